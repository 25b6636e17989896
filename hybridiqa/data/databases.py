"""Databases of the field as their authors release them: where the scores lie, what they mean, what belongs together.

Each is one entry of `DATABASES`. What a list calls an image is looked for in the release without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from hybridiqa.utils.tables import read_table


@dataclass(frozen=True)
class Listed:
    """An image as a database's list has it.

    Args:
        file: its path below the release, or as many of the path's last parts as decide which file it is.
        score: as listed.
        group: what it must stay together with in a split; None where it stands alone.
        split: "train", "validation" or "test", where the release says so.
    """

    file: str
    score: float
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Database:
    """One database.

    Args:
        title: its name, as its authors write it.
        lists: patterns of the file that lists the scores, below the release's root; the first that is there is read.
        read: list file -> what it lists.
        score_range: of the listed scores; None where they have no ends.
        group: what a group is, in words.
        sources: two at least that describe the layout, independent of each other.
        columns: of the list, by which a release is told from others with a file of this name.
        is_higher_better: False for difference scores (DMOS), which are inverted.
        split: the official one, in words.
        folders: of the images, the preferred first, where the same names lie in several.
        unverified: what two sources do not confirm.
    """

    title: str
    lists: tuple[str, ...]
    read: Callable[[Path], list[Listed]]
    score_range: tuple[float, float] | None
    group: str
    sources: tuple[str, ...]
    columns: tuple[str, ...] = ()
    is_higher_better: bool = True
    split: str = "none"
    folders: tuple[str, ...] = ()
    unverified: str = ""


def _texts(matrix: np.ndarray) -> list[str]:
    """Return the strings of a MATLAB cell array."""
    return [str(cell.item() if cell.size == 1 else cell) for cell in matrix.ravel()]


LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


def _read_live(path: Path) -> list[Listed]:
    """Read the list without the copies of references that `orgs` marks in it, which no rater compared."""
    scores = loadmat(path)
    values = scores["dmos_new" if "dmos_new" in scores else "dmos"].ravel()
    references = _texts(loadmat(path.with_name("refnames_all.mat"))["refnames_all"])
    names = [f"{folder}/img{number}.bmp" for folder, count in LIVE_FOLDERS.items() for number in range(1, count + 1)]
    rows = zip(names, values, references, scores["orgs"].ravel().astype(bool), strict=True)
    return [Listed(name, float(value), reference) for name, value, reference, is_copy in rows if not is_copy]


def _read_live_challenge(path: Path) -> list[Listed]:
    """Read the list without its first rows, which raters were trained on and which lie elsewhere, as all readers do."""
    names = _texts(loadmat(path.with_name("AllImages_release.mat"))["AllImages_release"])
    scores = loadmat(path)["AllMOS_release"].ravel()
    rows = zip(names, scores, strict=True)
    return [Listed(f"Images/{name}", float(score)) for name, score in rows if not re.match("t[0-9]", name)]


CSIQ_FOLDERS = {  # by the list's `dst_type`, without spaces
    "noise": "awgn/{}.AWGN.{}.png",
    "jpeg": "jpeg/{}.JPEG.{}.png",
    "jpeg2000": "jpeg2000/{}.jpeg2000.{}.png",
    "fnoise": "fnoise/{}.fnoise.{}.png",
    "blur": "blur/{}.BLUR.{}.png",
    "contrast": "contrast/{}.contrast.{}.png",
}


def _read_csiq(path: Path) -> list[Listed]:
    listed = []
    for row in read_table(path, "all_by_image", ("image", "dst_type", "dst_lev", "dmos")):
        pattern = CSIQ_FOLDERS[str(row["dst_type"]).replace(" ", "").lower()]
        image = _whole(row["image"])
        listed.append(Listed(pattern.format(image, _whole(row["dst_lev"])), float(row["dmos"]), image))
    return listed


def _whole(cell: str | float) -> str:
    """Return a number in a spreadsheet's cell as text: the image called 1600 is no 1600.0."""
    return str(int(cell)) if isinstance(cell, float) else str(cell)


def _read_tid2013(path: Path) -> list[Listed]:
    rows = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    return [Listed(f"distorted_images/{name}", float(score), name[:3].lower()) for score, name in rows]


def _read_bid(path: Path) -> list[Listed]:
    return [
        Listed(f"DatabaseImage{int(row['Image Number']):04d}.JPG", float(row["Average Subjective Grade"]))
        for row in read_table(path, None, ("Image Number", "Average Subjective Grade"))
    ]


KONIQ_SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def _read_koniq(path: Path) -> list[Listed]:
    """Read either list: that with the official split has the 0-100 score under `MOS`, the other under `MOS_zscore`."""
    rows = read_table(path)
    if not {"MOS_zscore", "set"} & set(rows[0]):
        raise ValueError(f"{path} has neither MOS_zscore nor set: its MOS is not on the 0-100 scale")
    score_column = "MOS_zscore" if "MOS_zscore" in rows[0] else "MOS"
    splits = [KONIQ_SPLITS[row["set"]] if "set" in row else None for row in rows]
    return [
        Listed(row["image_name"], float(row[score_column]), None, split)
        for row, split in zip(rows, splits, strict=True)
    ]


def _read_kadid(path: Path) -> list[Listed]:
    return [Listed(f"images/{row['dist_img']}", float(row["dmos"]), row["ref_img"]) for row in read_table(path)]


def _read_spaq(path: Path) -> list[Listed]:
    rows = read_table(path, None, ("Image name", "MOS"))
    return [Listed(f"TestImage/{row['Image name']}", float(row["MOS"])) for row in rows]


def _read_agiqa(path: Path) -> list[Listed]:
    return [Listed(row["name"], float(row["mos_quality"]), row["prompt"]) for row in read_table(path)]


def _read_ava(path: Path) -> list[Listed]:
    """Read lines of index, image, votes for 1 to 10, two tags and challenge; the score is the mean vote."""
    test_path = path.parent / "aesthetics_image_lists" / "generic_test.jpgl"
    test = set(test_path.read_text(encoding="ascii").split()) if test_path.is_file() else None
    listed = []
    for line in path.read_text(encoding="ascii").splitlines():
        _, image, *counts, _, _, challenge = line.split()
        votes = [int(count) for count in counts]
        mean = sum(vote * count for vote, count in enumerate(votes, 1)) / sum(votes)
        split = None if test is None else "test" if image in test else "train"
        listed.append(Listed(f"{image}.jpg", mean, challenge, split))
    return listed


def _read_hecd(path: Path) -> list[Listed]:
    return [
        Listed(f"HECDImages/{row['Recolour File']}", float(row["Mean zScore"]), row["Ground Truth File"])
        for row in read_table(path)
    ]


BIQ2021_LISTS = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


def _read_biq2021(path: Path) -> list[Listed]:
    """Read the two lists, of which the release needs both: the official split is which one an image stands in."""
    return [
        Listed(f"Images/{row['Image Name']}", float(row["MOS"]), None, split)
        for split, name in BIQ2021_LISTS.items()
        for row in read_table(path.with_name(name), None, ("Image Name", "MOS"))
    ]


DATABASES = {
    "live": Database(
        title="LIVE, release 2",
        lists=("dmos_realigned.mat", "dmos.mat"),
        read=_read_live,
        score_range=(0, 100),
        is_higher_better=False,
        group="reference image",
        sources=("the release's readme.txt", "IQA-PyTorch scripts/process_live.py", "hyperIQA folders.py"),
    ),
    "livec": Database(
        title="LIVE In the Wild Image Quality Challenge",
        lists=("Data/AllMOS_release.mat",),
        read=_read_live_challenge,
        score_range=(0, 100),
        group="the image itself",
        sources=("the release's README.txt", "IQA-PyTorch scripts/process_livechallenge.py", "hyperIQA folders.py"),
    ),
    "csiq": Database(
        title="CSIQ",
        lists=("csiq.DMOS.xlsx",),
        read=_read_csiq,
        score_range=(0, 1),
        is_higher_better=False,
        group="reference image",
        folders=("dst_imgs",),
        sources=("UNIQUE IQA_database/data_csiq.m", "hyperIQA csiq_label.txt and README"),
    ),
    "tid2013": Database(
        title="TID2013",
        lists=("mos_with_names.txt",),
        read=_read_tid2013,
        score_range=(0, 9),
        group="reference image",
        sources=("hyperIQA folders.py", "IQA-PyTorch scripts/process_tid.py"),
    ),
    "koniq10k": Database(
        title="KonIQ-10k",
        lists=("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv"),
        columns=("image_name", "MOS"),
        read=_read_koniq,
        score_range=(0, 100),
        group="the image itself",
        split="the list's column `set`, in koniq10k_distributions_sets.csv only",
        folders=("1024x768", "512x384"),
        sources=("subpic/koniq metadata", "IQA-PyTorch scripts/process_koniq10k.py", "hyperIQA folders.py"),
    ),
    "bid": Database(
        title="BID, the blurred image database",
        lists=("DatabaseGrades.xlsx",),
        read=_read_bid,
        score_range=(0, 5),
        group="the image itself",
        sources=("UNIQUE IQA_database/data_BID.m", "hyperIQA folders.py"),
        unverified="the ends of the scale; some copies have the list as .xls, to be saved as .xlsx first",
    ),
    "kadid10k": Database(
        title="KADID-10k",
        lists=("dmos.csv",),
        columns=("dist_img", "ref_img", "dmos"),
        read=_read_kadid,
        score_range=(1, 5),  # of what the list calls DMOS, and where 5 is the best all the same
        group="reference image",
        folders=("images",),
        sources=("the authors' page", "IQA-PyTorch meta_info_KADID10kDataset.csv", "ARNIQA data/dataset_kadid10k.py"),
    ),
    "spaq": Database(
        title="SPAQ",
        lists=("Annotations/MOS and Image attribute scores.xlsx",),
        read=_read_spaq,
        score_range=(0, 100),
        group="the image itself",
        folders=("TestImage",),
        sources=("h4nwei/SPAQ README", "IQA-PyTorch scripts/process_spaq.py"),
    ),
    "agiqa3k": Database(
        title="AGIQA-3K",
        lists=("data.csv",),
        columns=("name", "prompt", "mos_quality"),
        read=_read_agiqa,
        score_range=(0, 5),
        group="prompt",
        sources=("lcysyzxdxc/AGIQA-3k-Database data.csv", "its readers in other projects"),
        unverified="the name of the images' folder; any is found",
    ),
    "ava": Database(
        title="AVA",
        lists=("AVA.txt",),
        read=_read_ava,
        score_range=(1, 10),
        group="challenge",
        split="aesthetics_image_lists/generic_test.jpgl is the test split",
        sources=("AVA README.txt", "IQA-PyTorch scripts/process_ava.py"),
    ),
    "biq2021": Database(
        title="BIQ2021",
        lists=(BIQ2021_LISTS["train"],),
        columns=("Image Name", "MOS"),
        read=_read_biq2021,
        score_range=(0, 1),
        group="the image itself",
        split="10,000 for training and 2,000 for testing, each in a list of its own",
        folders=("Images",),
        sources=("nisarahmedrana/BIQ2021 README.md", "JEI 31(5) 053010"),
    ),
    "hecd": Database(
        title="HECD, the human evaluated colourisation dataset",
        lists=("Data/mean_zscores.csv",),
        columns=("Ground Truth File", "Recolour File", "Mean zScore"),
        read=_read_hecd,
        score_range=None,
        group="scene",
        folders=("HECDImages",),
        sources=("seanmullery/HECD README and scripts",),
        unverified="all of it: no reader of another project is known",
    ),
}
