"""Draw the pictures in `examples/`: four clean illustrations and one visibly damaged twin of each.

    python recipes/draw_examples.py --output_dir examples

Everything is drawn by program from a fixed seed (one CPU core, about half a minute), so two runs write identical
bytes. The damages come from `hybridiqa.distortions.trained.degrade`. Files that exist are kept unless `--overwrite`
is given.
"""

import argparse
import sys
from pathlib import Path

# Run as a file, Python would look for the project's packages in this folder only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hybridiqa.distortions.trained import degrade
from recipes.example_city import draw_city
from recipes.example_garden import draw_garden
from recipes.example_lake import draw_lake
from recipes.example_portrait import draw_portrait

SEED = 7
# name: (drawing function, damage family, severity 1-5); one family a picture, each one plain to see
PICTURES = {
    "portrait": (draw_portrait, "jpeg", 4),
    "lake": (draw_lake, "noise", 3),
    "city": (draw_city, "blur", 3),
    "garden": (draw_garden, "shuffled_blocks", 3),
}


def output_paths(output_dir):
    """The clean and the damaged path of every picture: {name: (clean, damaged)}."""
    return {
        name: (output_dir / f"{name}_clean.png", output_dir / f"{name}_{family}.png")
        for name, (_, family, _) in PICTURES.items()
    }


def check_free(paths):
    """Raise one FileExistsError that names every file in the way."""
    taken = [str(path) for pair in paths.values() for path in pair if path.exists()]
    if taken:
        raise FileExistsError(f"{len(taken)} files exist already; give --overwrite to replace them: {', '.join(taken)}")


def write_picture(name, clean_path, damaged_path):
    draw, family, severity = PICTURES[name]
    clean = draw(SEED)
    damaged = degrade(clean, family, severity, SEED)
    for image, path in ((clean, clean_path), (damaged, damaged_path)):
        image.save(path, optimize=True)
        print(f"{path}  {image.width}x{image.height}  {path.stat().st_size} bytes")


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output_dir", type=Path, default=Path("examples"), help="folder for the eight PNG files")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def main(argv=None):
    parser = build_parser()
    arguments = parser.parse_args(argv)
    paths = output_paths(arguments.output_dir)
    if not arguments.overwrite:
        try:
            check_free(paths)
        except FileExistsError as error:
            parser.error(str(error))
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for name, (clean_path, damaged_path) in paths.items():
        write_picture(name, clean_path, damaged_path)


if __name__ == "__main__":
    main()
