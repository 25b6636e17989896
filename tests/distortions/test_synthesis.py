"""Scored folder that is made of clean images."""

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import difference, textured_picture
from PIL import Image

from hybridiqa.data.folders import read_hybrid_folder
from hybridiqa.distortions.generated import GENERATED
from hybridiqa.distortions.held_out import HELD_OUT_DISTORTIONS
from hybridiqa.distortions.synthesis import (
    CHAIN_GROUPS,
    CODECS,
    MAX_CHAIN_LENGTH,
    MAX_CHAINS,
    MAX_GROUP_BYTES,
    MAX_MIXES,
    SynthesisOptions,
    Version,
    cut_at_random,
    read_clean,
    synthesize,
)
from hybridiqa.distortions.trained import DISTORTIONS, LEVELS, distort


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def clean_dir(tmp_path):
    folder = tmp_path / "clean"
    (folder / "sub").mkdir(parents=True)
    textured_picture(seed=1).save(folder / "a.png")
    textured_picture(seed=2).save(folder / "a.jpg")
    textured_picture(90, 120, seed=3).save(folder / "sub" / "b.png")
    return folder


def test_synthesis_writes_every_distortion_type_and_level_at_its_score(tmp_path, clean_dir):
    report = synthesize(clean_dir, tmp_path / "out")
    assert (report.num_clean, report.num_distorted) == (3, 3 * 60)
    for level in LEVELS:
        names = {path.name for path in (tmp_path / "out" / "Artifact" / str(6 - level)).iterdir()}
        assert names == {f"{g}__{f}_{level}.png" for g in ("a", "a-2", "sub-b") for f in DISTORTIONS}
    records = read_hybrid_folder(tmp_path / "out", group_pattern="([^/]+)__").records
    assert {record.group for record in records} == {"a", "a-2", "sub-b"}
    assert {record.score for record in records if "clean" in record.relative_path} == {7.0}
    assert {record.score for record in records if "_5.png" in record.relative_path} == {1.0}


def test_the_manifest_names_source_digest_and_clean_size(tmp_path, clean_dir):
    synthesize(clean_dir, tmp_path / "out", SynthesisOptions(versions_per_image=1, max_size=60))
    with open(tmp_path / "out" / "manifest.csv", newline="") as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert rows["sub-b"] == {
        "group": "sub-b",
        "source": "sub/b.png",
        "sha256": hashlib.sha256((clean_dir / "sub" / "b.png").read_bytes()).hexdigest(),
        "width": "45",
        "height": "60",
    }
    assert {rows["a"]["source"], rows["a-2"]["source"]} == {"a.jpg", "a.png"}


def test_drawn_versions_spread_over_the_levels(tmp_path, clean_dir):
    synthesize(clean_dir, tmp_path / "out", SynthesisOptions(versions_per_image=7))
    for group in ("a", "a-2", "sub-b"):
        counts = [len(list((tmp_path / "out" / "Artifact" / str(s)).glob(f"{group}__*"))) for s in LEVELS]
        assert sum(counts) == 7 and set(counts) == {1, 2}


def test_the_number_of_processes_does_not_change_a_byte(tmp_path, clean_dir):
    options = SynthesisOptions(
        **{"versions_per_image": 11, "mixes_per_image": 1, "crops_per_image": 2, "crop_size": 64, "seed": 3},
        **{"types": ("trained", "generated"), "chains_per_image": 5, "milder_chains": True},
    )
    synthesize(clean_dir, tmp_path / "one", options)
    synthesize(clean_dir, tmp_path / "two", options, num_workers=2)
    synthesize(clean_dir, tmp_path / "other", replace(options, seed=4))
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")
    assert folder_bytes(tmp_path / "one") != folder_bytes(tmp_path / "other")


def test_a_palette_image_is_halved_and_small_ones_are_not_enlarged(tmp_path):
    textured_picture(100, 60).quantize(16).save(tmp_path / "palette.png")
    textured_picture(100, 60).save(tmp_path / "plain.png")
    assert read_clean(tmp_path / "palette.png", None).size == (50, 30)
    assert read_clean(tmp_path / "palette.png", 25).size == (25, 15)
    assert read_clean(tmp_path / "plain.png", 1000).size == (100, 60)


def test_a_dithered_image_becomes_smooth_when_it_is_halved(tmp_path):
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 128, dtype=np.uint8), (128, 1))).convert("RGB")
    black_and_white = ramp.convert("1").convert("P")  # Pillow dithers
    black_and_white.save(tmp_path / "d.png")
    error_before = difference(black_and_white.convert("RGB"), ramp)
    error_after = difference(read_clean(tmp_path / "d.png", None), ramp.resize((64, 64), Image.Resampling.BOX))
    assert error_after < error_before / 2


def test_broken_images_are_named_and_distortions_without_effect_left_out(tmp_path, clean_dir):
    (clean_dir / "broken.png").write_bytes((clean_dir / "a.png").read_bytes()[:200])
    (clean_dir / "a.json").write_text("{}")
    Image.fromarray(np.tile(np.arange(128, dtype=np.uint8), (64, 1))).save(clean_dir / "grey.png")
    report = synthesize(clean_dir, tmp_path / "out")
    assert [path for path, _ in report.unreadable] == ["broken.png"]
    assert {("grey.png", f"oversaturate_{level}") for level in LEVELS} <= set(report.without_effect)
    assert report.num_clean == 4
    assert report.num_distorted == 4 * 60 - len(report.without_effect)


def test_a_failed_synthesis_leaves_nothing_behind(tmp_path, clean_dir):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no clean image"):
        synthesize(tmp_path / "empty", tmp_path / "deep" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "empty"]
    with pytest.raises(ValueError, match="nothing is overwritten"):
        synthesize(tmp_path / "empty", clean_dir)


def test_mixes_are_two_distortions_at_the_level_of_both_with_codecs_last(tmp_path, clean_dir):
    options = SynthesisOptions(versions_per_image=5, mixes_per_image=10)
    report = synthesize(clean_dir, tmp_path / "out", options)
    assert report.num_distorted == 3 * 15
    mixes = sorted((tmp_path / "out" / "Artifact").rglob("*+*.png"))
    assert len(mixes) == 30
    for path in mixes:
        first, second = path.stem.split("__")[1].split("+")
        (name, level), (last_name, last_level) = first.rsplit("_", 1), second.rsplit("_", 1)
        assert name != last_name and not (name in CODECS and last_name not in CODECS)
        both = min(5, round(float(np.hypot(int(level), int(last_level)))))
        assert path.parent.name == str(6 - both)
    counts = [len(list((tmp_path / "out" / "Artifact" / str(s)).glob("a__*+*"))) for s in LEVELS]
    assert counts == [2] * 5


def test_a_mix_is_its_distortions_one_after_the_other():
    clean = textured_picture()
    mix = Version((("noise", 2), ("jpeg", 3)))
    assert (mix.level, mix.name) == (4, "noise_2+jpeg_3")
    expected = distort(distort(clean, "noise", 2, seed=5), "jpeg", 3, seed=5)
    assert mix.apply(clean, seed=5).tobytes() == expected.tobytes()


def draw_chains(num_chains: int, seed: int, **options) -> list[Version]:
    options = SynthesisOptions(versions_per_image=0, chains_per_image=num_chains, **options)
    return options.draw_versions(np.random.default_rng(seed))


def test_every_type_has_a_place_in_the_order_of_chains_and_no_held_out_one_has():
    types = [name for group in CHAIN_GROUPS for name in group]
    assert sorted(types) == sorted([*DISTORTIONS, *GENERATED]) and CHAIN_GROUPS[-1] == CODECS
    assert not set(types) & set(HELD_OUT_DISTORTIONS)


def test_chains_keep_the_order_of_groups_and_take_at_most_one_type_of_each():
    group_of = {name: number for number, group in enumerate(CHAIN_GROUPS) for name in group}
    drawn = [chain for seed in range(10) for chain in draw_chains(50, seed, milder_chains=True)]
    for chain in drawn:
        groups = [group_of[name] for name, _ in chain.distortions]
        assert groups == sorted(set(groups)), chain.name
    assert {name for chain in drawn for name, _ in chain.distortions} == set(group_of)
    assert {len(chain.distortions) for chain in drawn} == set(range(1, MAX_CHAIN_LENGTH + 1))


def test_chains_are_distinct_and_their_levels_spread_evenly():
    for seed in range(10):
        chains = draw_chains(40, seed)
        assert len(set(chains)) == 40
        assert [sum(chain.level == level for chain in chains) for level in LEVELS] == [8] * 5
        assert len({len(chain.distortions) for chain in chains}) == MAX_CHAIN_LENGTH
    rest = [chain.level for chain in draw_chains(7, seed=0)]
    assert {rest.count(level) for level in LEVELS} == {1, 2}


def test_chains_are_none_of_the_other_versions_and_do_not_change_them():
    options = SynthesisOptions(mixes_per_image=MAX_MIXES, types=("trained", "generated"))
    others = options.draw_versions(np.random.default_rng(0))
    both = replace(options, chains_per_image=MAX_CHAINS).draw_versions(np.random.default_rng(0))
    assert len(others) == 90 + MAX_MIXES and both[: len(others)] == others
    assert len(set(both)) == len(others) + MAX_CHAINS


def test_a_milder_chain_has_each_level_one_less_and_a_lower_level():
    assert Version((("blur", 3), ("noise", 1), ("jpeg", 2))).milder == Version((("blur", 2), ("jpeg", 1)))
    assert Version((("blur", 1), ("jpeg", 1))).milder is None
    for seed in range(10):
        chains = draw_chains(50, seed)
        milder = [chain.milder for chain in chains]
        assert all(less is None or less.level < chain.level for chain, less in zip(chains, milder, strict=True))
        both = draw_chains(50, seed, milder_chains=True)
        assert both[:50] == chains and len(set(both)) == len(both)
        assert set(both) == {*chains, *milder} - {None}


def test_a_milder_chain_is_less_distorted():
    clean = textured_picture()
    pairs = [(chain, chain.milder) for chain in draw_chains(40, seed=1) if chain.milder]
    larger = [
        difference(clean, chain.apply(clean, 1)) > difference(clean, milder.apply(clean, 1)) for chain, milder in pairs
    ]
    assert len(pairs) >= 24 and np.mean(larger) > 0.95  # one distortion can hide another: blur after noise


def test_chains_are_written_at_the_score_of_their_level_and_know_their_image(tmp_path, clean_dir):
    options = SynthesisOptions(versions_per_image=0, chains_per_image=10, milder_chains=True)
    report = synthesize(clean_dir, tmp_path / "out", options)
    assert not report.without_effect
    paths = sorted((tmp_path / "out" / "Artifact").rglob("*.png"))
    assert report.num_distorted == len(paths) > 30
    for path in paths:
        levels = [int(part.rsplit("_", 1)[1]) for part in path.stem.split("__")[1].split("+")]
        assert path.parent.name == str(6 - round(float(np.hypot.reduce(levels))))
    records = read_hybrid_folder(tmp_path / "out", group_pattern="([^/]+)__").records
    assert {record.group for record in records} == {"a", "a-2", "sub-b"}


def test_the_longest_name_of_a_chain_fits_a_file_system():
    longest = sorted((max(map(len, group)) for group in CHAIN_GROUPS), reverse=True)[:MAX_CHAIN_LENGTH]
    name = "@1000__" + "+".join("t" * length + "_5" for length in longest) + ".png"
    assert MAX_GROUP_BYTES + len(name) <= 255


def test_generated_types_alone_or_with_the_trained_ones_can_be_chosen(tmp_path, clean_dir):
    def draw(*types: str) -> list[Version]:
        return SynthesisOptions(types=types).draw_versions(np.random.default_rng(0))

    assert [version.name for version in draw("generated")] == [
        f"{name}_{level}" for name in GENERATED for level in LEVELS
    ]
    assert draw("generated", "trained") == draw("trained") + draw("generated")
    report = synthesize(clean_dir, tmp_path / "out", SynthesisOptions(versions_per_image=10, types=("generated",)))
    assert report.num_distorted == 30
    names = {path.stem.split("__")[1][:-2] for path in (tmp_path / "out" / "Artifact").rglob("*.png")}
    assert names <= set(GENERATED)


def test_crops_are_squares_of_the_image_and_keep_apart_what_is_of_one_image(tmp_path, clean_dir):
    textured_picture(40, 200).save(clean_dir / "narrow.png")
    options = SynthesisOptions(versions_per_image=5, crops_per_image=3, crop_size=64)
    assert synthesize(clean_dir, tmp_path / "out", options).num_clean == 12
    clean_paths = sorted((tmp_path / "out" / "Perfect" / "5").iterdir())
    groups = [f"{name}@{number}" for name in ("a", "a-2", "narrow", "sub-b") for number in (1, 2, 3)]
    assert sorted(path.stem for path in clean_paths) == sorted(f"{group}__clean" for group in groups)
    assert {Image.open(path).size for path in clean_paths if "narrow" not in path.name} == {(64, 64)}
    assert {Image.open(path).size for path in clean_paths if "narrow" in path.name} == {(40, 64)}
    assert len({path.read_bytes() for path in clean_paths}) == 12
    with open(tmp_path / "out" / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == groups
    assert {row["source"] for row in rows} == {"a.jpg", "a.png", "narrow.png", "sub/b.png"}


@pytest.mark.parametrize("seed", range(5))
def test_a_crop_shows_the_image_between_its_own_size_and_one_that_fits(seed):
    ramp = np.linspace(0, 255, 200)
    image = Image.fromarray(np.stack(np.broadcast_arrays(ramp, ramp[:, None], 0.0), axis=-1).astype(np.uint8))
    crop = np.asarray(cut_at_random(image, 50, np.random.default_rng(seed)), dtype=float)
    assert crop.shape == (50, 50, 3)
    steps = np.diff(crop[:, :, 0].mean(axis=0)).mean(), np.diff(crop[:, :, 1].mean(axis=1)).mean()
    scales = [(255 / 199) / step for step in steps]  # of the image's own pixels in one of the crop
    assert scales[0] == pytest.approx(scales[1], rel=0.05)
    assert 0.97 * 50 / 200 <= scales[0] <= 1.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versions_per_image": 61}, "got 61 versions per image"),
        ({"mixes_per_image": -1}, "got -1 mixes per image; accepted: 0 to 400"),
        ({"types": ("generated",), "versions_per_image": 31}, "got 31 versions per image; accepted: 0 to 30"),
        ({"types": ("sepia",)}, "got the types sepia; accepted: trained, generated"),
        ({"types": ()}, "got the types none"),
        ({"chains_per_image": 201}, "got 201 chains per image; accepted: 0 to 200"),
        ({"milder_chains": True}, "got milder chains and no chains"),
        ({"crop_size": 100}, "go together"),
        ({"crops_per_image": 0, "crop_size": 100}, "got seed 0, max_size None, 0 crops of 100"),
        ({"seed": -1}, "got seed -1"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SynthesisOptions(**options)
