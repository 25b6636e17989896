"""A published hyperIQA or hybridIQA checkpoint -> a folder that `AutoModel.from_pretrained` loads.

    python convert_checkpoint.py CHECKPOINT.pth --output_dir DIR
    python convert_checkpoint.py USER/REPO --filename CHECKPOINT.pth --output_dir DIR --push_to_hub USER/NAME

hyperIQA's KonIQ-10k checkpoint speaks in 0-100 and wants every image squeezed first:

    python convert_checkpoint.py koniq_pretrained.pkl --output_dir DIR --score_range 0 100 --size 512 384
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
from pathlib import Path

from huggingface_hub import hf_hub_download, list_repo_files
from transformers import PreTrainedModel

from hybridiqa.models import hub_code
from hybridiqa.models.backbones import read_state_dict
from hybridiqa.models.hyperiqa_weights import build_model
from hybridiqa.models.model_card import write_converted_card
from hybridiqa.utils.atomic import check_new_folder, new_folder
from hybridiqa.utils.cli import CommandFailure, exit_status
from hybridiqa.utils.hub import MODEL_FILES, WEIGHTS, HubRepository, PushError, push_folder
from hybridiqa.utils.libraries import first_line, silence_libraries

SUFFIXES = (".pth", ".pkl")


def find_checkpoint(checkpoint: str, filename: str | None) -> Path:
    """The file itself, or the one in a Hub repository.

    Raises:
        ValueError: no such file, or more than one to choose from.
    """
    if Path(checkpoint).is_file():
        return Path(checkpoint)
    if Path(checkpoint).exists() or checkpoint.count("/") != 1 or checkpoint.endswith(SUFFIXES):
        raise ValueError(f"{checkpoint} is neither a file nor a Hub id like user/name")
    try:
        if filename is None:
            found = [name for name in list_repo_files(checkpoint) if name.endswith(SUFFIXES)]
            if len(found) != 1:
                raise ValueError(f"{checkpoint} holds {', '.join(found) or 'no .pth or .pkl'}: choose with --filename")
            filename = found[0]
        return Path(hf_hub_download(checkpoint, filename))
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot fetch {checkpoint} from the Hub: {first_line(error)}") from error


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a local .pth / .pkl, or a Hub id")
    parser.add_argument("--output_dir", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--filename", help="which file of the Hub repository (default: its only .pth or .pkl)")
    parser.add_argument("--score_range", type=float, nargs=2, default=[1.0, 9.0], metavar=("MIN", "MAX"))
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="squeeze each image to it, in pixels"
    )
    parser.add_argument("--push_to_hub", metavar="USER/NAME", help="upload the folder there")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--license", help="of the published weights, as the Hub spells it, for the card")
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> PreTrainedModel:
    """Write the folder; the model that is in it.

    Raises:
        ValueError: options or a checkpoint that cannot be converted.
    """
    check_new_folder(args.output_dir)
    processor = hub_code.HybridIQAImageProcessor(size=args.size)
    if not args.score_range[0] < args.score_range[1]:
        raise ValueError(f"--score_range must be MIN MAX with MIN < MAX, got {args.score_range}")
    checkpoint = find_checkpoint(args.checkpoint, args.filename)
    model = build_model(read_state_dict(checkpoint), args.score_range)
    model.image_processor = processor
    with open(checkpoint, "rb") as file:
        source_hash = hashlib.file_digest(file, "sha256").hexdigest()
    with new_folder(args.output_dir) as unfinished:
        model.save_pretrained(unfinished)
        name = args.push_to_hub or args.output_dir.absolute().name
        write_converted_card(unfinished, args.checkpoint, source_hash, args.score_range, name, args.license)
    return model


def run(args: argparse.Namespace) -> None:
    """Convert, and push where that is asked for.

    Raises:
        ValueError: options or a checkpoint that cannot be used.
        CommandFailure: the converted folder did not arrive on the Hub.
    """
    repository = HubRepository(args.push_to_hub, "model", args.private) if args.push_to_hub else None
    if args.private and not repository:
        raise ValueError("--private goes with --push_to_hub")
    if repository:
        repository.check()
    model = convert(args)
    depths = model.config.backbone_config.depths
    print(f"{args.output_dir}: backbone depths {depths}, {model.num_parameters() / 1e6:.1f} M parameters")
    if not repository:
        return
    try:
        print(f"pushed to {push_folder(args.output_dir, repository, MODEL_FILES, WEIGHTS)}")
    except PushError as error:
        again = ["hf", "upload", args.push_to_hub, str(args.output_dir), *(["--private"] if args.private else [])]
        raise CommandFailure(f"{error}. The folder is whole; push it by: {shlex.join(again)}") from error


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    silence_libraries()
    return exit_status("convert_checkpoint.py", lambda: run(args))
