"""The field's databases: miniature releases in the official layout are read to the right scores, groups and splits."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from PIL import Image
from scipy.io import savemat

from hybridiqa.commands.prepare_dataset import main
from hybridiqa.data.database_reader import (
    ReleaseFiles,
    find_list,
    read_database,
    recognise,
    rescale_score,
    upright_score,
)
from hybridiqa.data.databases import DATABASES, LIVE_FOLDERS


def save_images(root: Path, names: Iterable[str]) -> None:
    """Save images of eight pixels a side, each of another colour."""
    for index, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG"}.get(path.suffix[1:].lower(), path.suffix[1:].upper())
        Image.new("RGB", (8, 8), (index % 256, index // 256, 99)).save(path, kind)


def save_sheet(path: Path, rows: list[list], sheet: str = "Sheet1") -> None:
    openpyxl = pytest.importorskip("openpyxl")
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.active.title = "notes"
    book.active.append(["other figures"])
    if sheet != "Sheet1":
        page = book.create_sheet(sheet)
    else:
        page = book.active
        page.title, page["A1"] = sheet, None
        page.delete_rows(1)
    for row in rows:
        page.append(row)
    book.save(path)


def cells(texts: list[str], shape: tuple[int, int]) -> np.ndarray:
    """Return a MATLAB cell array of strings."""
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(shape)


def make_live(root: Path) -> dict:
    """Write 982 rows in the order of the five folders; every fifth is a copy of a reference, with a score of 0."""
    names = [f"{folder}/img{number}.bmp" for folder, count in LIVE_FOLDERS.items() for number in range(1, count + 1)]
    save_images(root, names)
    values, copies = np.arange(982.0) / 10, np.arange(982) % 5 == 0
    references = ["bikes.bmp" if index % 2 else "womanhat.bmp" for index in range(982)]
    save_images(root, ["refimgs/bikes.bmp", "refimgs/womanhat.bmp"])
    savemat(root / "dmos.mat", {"dmos": np.where(copies, 0, values)[None], "orgs": copies[None].astype(np.uint8)})
    savemat(root / "refnames_all.mat", {"refnames_all": cells(references, (1, 982))})
    return {
        name: (100 - value, reference, None)
        for name, value, reference, copy in zip(names, values, references, copies, strict=True)
        if not copy
    }


def make_livec(root: Path) -> dict:
    names = ["t1.bmp", "t2.bmp", "100.bmp", "533.JPG"]
    save_images(root, [f"Images/{'trainingImages/' if name[0] == 't' else ''}{name}" for name in names])
    (root / "Data").mkdir()
    savemat(root / "Data/AllImages_release.mat", {"AllImages_release": cells(names, (4, 1))})
    savemat(root / "Data/AllMOS_release.mat", {"AllMOS_release": np.array([[10.0, 20.0, 63.5, 3.42]])})
    return {"Images/100.bmp": (63.5, None, None), "Images/533.JPG": (3.42, None, None)}


def make_csiq(root: Path) -> dict:
    """Write a list whose header stands in the fourth row and column; one image's name is a number."""
    header = [None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    rows = [
        [None, None, None, 1600, 1, "noise", 1, 0.1, 0.25],
        [None, None, None, "elk", 3, "jpeg 2000", 5, 0.1, 1],
        [None, None, None, "elk", 6, "contrast", 2, 0.1, 0],
    ]
    save_sheet(root / "csiq.DMOS.xlsx", [["CSIQ"], [None], [None], header, *rows, [None] * 9], "all_by_image")
    names = ["awgn/1600.AWGN.1.png", "jpeg2000/elk.jpeg2000.5.png", "contrast/elk.contrast.2.png"]
    save_images(root / "dst_imgs", names)
    save_images(root / "src_imgs", ["1600.png", "elk.png"])
    scores = ((0.75, "1600", None), (0, "elk", None), (1, "elk", None))
    return {f"dst_imgs/{name}": row for name, row in zip(names, scores, strict=True)}


def make_tid2013(root: Path) -> dict:
    """List `I01_01_1.bmp`; on the disk the case is another one."""
    (root / "mos_with_names.txt").write_bytes(b"5.51429 I01_01_1.bmp\r\n0.20000 i25_11_5.bmp\r\n")
    save_images(root, ["distorted_images/i01_01_1.bmp", "distorted_images/I25_11_5.BMP"])
    save_images(root, ["reference_images/I01.BMP"])
    return {
        "distorted_images/i01_01_1.bmp": (5.51429, "i01", None),
        "distorted_images/I25_11_5.BMP": (0.2, "i25", None),
    }


def make_koniq10k(root: Path) -> dict:
    (root / "koniq10k_distributions_sets.csv").write_text(
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
        "10004473376.jpg,0,0,0.24,0.69,0.07,105,77.38,0.52,training\n"
        "10007357496.jpg,0,0,0.24,0.69,0.07,105,50,0.52,validation\n"
        "10007903636.jpg,0,0,0.24,0.69,0.07,105,10,0.52,test\n"
    )
    names = ["10004473376.jpg", "10007357496.jpg", "10007903636.jpg"]
    save_images(root, [f"{folder}/{name}" for folder in ("512x384", "1024x768") for name in names])
    rows = ((77.38, None, "train"), (50, None, "validation"), (10, None, "test"))
    return {f"1024x768/{name}": row for name, row in zip(names, rows, strict=True)}


def make_bid(root: Path) -> dict:
    save_sheet(root / "DatabaseGrades.xlsx", [["Image Number", "Average Subjective Grade"], [1, 4.92], [590, 0.164]])
    save_images(root, ["ImageDatabase/DatabaseImage0001.JPG", "ImageDatabase/DatabaseImage0590.JPG"])
    return {
        "ImageDatabase/DatabaseImage0001.JPG": (4.92, None, None),
        "ImageDatabase/DatabaseImage0590.JPG": (0.164, None, None),
    }


def make_kadid10k(root: Path) -> dict:
    """Write a list whose DMOS is best at 5, and is not inverted."""
    (root / "dmos.csv").write_text("dist_img,ref_img,dmos,var\nI01_01_01.png,I01.png,4.57,0.496\n")
    save_images(root, ["images/I01_01_01.png", "images/I01.png"])
    return {"images/I01_01_01.png": (4.57, "I01.png", None)}


def make_spaq(root: Path) -> dict:
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    rows = [["00001.jpg", 23.5, *[50] * 5], ["00002.jpg", 88, *[50] * 5]]
    save_sheet(root / "Annotations/MOS and Image attribute scores.xlsx", [header, *rows])
    save_images(root, ["TestImage/00001.jpg", "TestImage/00002.jpg"])
    return {"TestImage/00001.jpg": (23.5, None, None), "TestImage/00002.jpg": (88, None, None)}


def make_agiqa3k(root: Path) -> dict:
    (root / "data.csv").write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        'sd1.5_lowstep_000.jpg,"statue, of a man",,,,2.5,0.4,1,1\n'
        'AttnGAN_normal_000.jpg,"statue, of a man",,,,0.195,0.4,1,1\n'
    )
    save_images(root, ["file/sd1.5_lowstep_000.jpg", "file/AttnGAN_normal_000.jpg"])
    return {
        "file/sd1.5_lowstep_000.jpg": (2.5, "statue, of a man", None),
        "file/AttnGAN_normal_000.jpg": (0.195, "statue, of a man", None),
    }


def make_ava(root: Path) -> dict:
    """Write votes for 1 to 10, whose means are worked by hand: (1 + 3 * 10) / 4 and (2 * 5 + 6) / 3."""
    (root / "AVA.txt").write_text("1 953619 1 0 0 0 0 0 0 0 0 3 1 22 1396\n2 953958 0 0 0 0 2 1 0 0 0 0 0 0 1397\n")
    (root / "aesthetics_image_lists").mkdir()
    (root / "aesthetics_image_lists/generic_test.jpgl").write_text("953958\n")
    save_images(root, ["images/images/953619.jpg", "images/images/953958.jpg"])
    return {
        "images/images/953619.jpg": (31 / 4, "1396", "train"),
        "images/images/953958.jpg": (16 / 3, "1397", "test"),
    }


def make_biq2021(root: Path) -> dict:
    (root / "Train (Images and MOS).csv").write_text("Image Name,MOS,,\nss01 (2).jpg,0.8471,,\nss03 (10).jpg,0.25,,\n")
    (root / "Test (Images and MOS).csv").write_text("Image Name,MOS\nss02 (7).jpg,0.7321\n")
    save_images(
        root / "Images", ["ss01 (2).jpg", "ss02 (7).jpg", "SS03 (10).jpg"]
    )  # the release has one such name, too
    return {
        "Images/ss01 (2).jpg": (0.8471, None, "train"),
        "Images/SS03 (10).jpg": (0.25, None, "train"),
        "Images/ss02 (7).jpg": (0.7321, None, "test"),
    }


def make_hecd(root: Path) -> dict:
    (root / "Data").mkdir(parents=True)
    (root / "Data/mean_zscores.csv").write_text(
        "Ground Truth File,Recolour File,Mean zScore\n"
        "015004_gt.jpg,015004_gt.jpg,0.397\n015004_gt.jpg,015004AB_1.jpg,-1.8\n022090_gt.jpg,022090L_2.jpg,1.3\n"
    )
    names = ["015004_gt.jpg", "015004AB_1.jpg", "022090L_2.jpg"]
    save_images(root / "HECDImages", names)
    rows = ((0.397, "015004_gt.jpg", None), (-1.8, "015004_gt.jpg", None), (1.3, "022090_gt.jpg", None))
    return {f"HECDImages/{name}": row for name, row in zip(names, rows, strict=True)}


MAKERS = {name: globals()[f"make_{name}"] for name in DATABASES}


@pytest.fixture(params=MAKERS)
def release(request, tmp_path) -> tuple[str, Path, dict]:
    """Return name, folder and, by relative path, (score with higher as better, group, split)."""
    (tmp_path / "release").mkdir()
    return request.param, tmp_path / "release", MAKERS[request.param](tmp_path / "release")


def test_a_release_gives_its_scores_groups_and_splits(release):
    name, root, expected = release
    contents = read_database(root, name)
    assert {record.relative_path: record.score for record in contents.records} == pytest.approx(
        {path: score for path, (score, _, _) in expected.items()}
    )
    assert {record.relative_path: record.group for record in contents.records} == {
        path: group or path for path, (_, group, _) in expected.items()
    }
    assert contents.splits == {path: split for path, (_, _, split) in expected.items() if split}
    assert (contents.missing, contents.unreadable) == ([], [])


def test_a_release_is_recognised_by_its_files_in_folders_of_its_zip_too(release):
    name, root, expected = release
    assert recognise(root) == recognise(root.parent) == name
    assert len(read_database(root.parent, name).records) == len(expected)


def test_rescaled_scores_go_from_1_to_9_and_the_best_stays_the_best(release):
    name, root, _ = release
    plain, rescaled = read_database(root, name), read_database(root, name, is_rescaled=True)
    low, high = plain.scores["listed_range"]
    for before, after in zip(plain.records, rescaled.records, strict=True):
        assert after.score == pytest.approx(1 + 8 * (before.score - low) / (high - low))
        assert before.bin == after.bin
    assert rescaled.scores["range"] == [1, 9]


@pytest.mark.parametrize(
    ("score", "is_higher_better", "is_rescaled", "expected"),
    [(25, True, False, 25), (25, False, False, 75), (25, True, True, 3), (25, False, True, 7), (100, False, True, 1)],
)
def test_difference_scores_are_inverted(score, is_higher_better, is_rescaled, expected):
    upright = upright_score(score, (0, 100), is_higher_better)
    assert (rescale_score(upright, (0, 100)) if is_rescaled else upright) == expected


def test_every_layout_has_two_sources_or_says_what_is_not_verified():
    for name, database in DATABASES.items():
        assert len(database.sources) >= 2 or "all of it" in database.unverified, name


def test_the_realigned_scores_of_live_are_preferred(tmp_path):
    make_live(tmp_path)
    values = np.full((1, 982), 40.0)
    orgs = np.arange(982)[None] % 5 == 0
    savemat(tmp_path / "dmos_realigned.mat", {"dmos_new": values, "orgs": orgs.astype(np.uint8)})
    assert {record.score for record in read_database(tmp_path, "live").records} == {60.0}


def test_the_other_list_of_koniq_has_the_same_scale_and_no_split(tmp_path):
    expected = make_koniq10k(tmp_path)
    (tmp_path / "koniq10k_distributions_sets.csv").unlink()
    rows = [f"{Path(path).name},1,1,1,1,1,5,3.9,0.5,{score}" for path, (score, _, _) in expected.items()]
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore"
    (tmp_path / "koniq10k_scores_and_distributions.csv").write_text("\n".join([header, *rows]))
    contents = read_database(tmp_path, "koniq10k")
    assert [record.score for record in contents.records] == [score for score, _, _ in expected.values()]
    assert contents.splits == {}
    text = (tmp_path / "koniq10k_scores_and_distributions.csv").read_text().replace("MOS_zscore", "other")
    (tmp_path / "koniq10k_scores_and_distributions.csv").write_text(text)
    with pytest.raises(ValueError, match="not on the 0-100 scale"):
        read_database(tmp_path, "koniq10k")


def test_a_split_of_an_unknown_name_loses_no_image_in_silence(tmp_path):
    make_koniq10k(tmp_path)
    path = tmp_path / "koniq10k_distributions_sets.csv"
    path.write_text(path.read_text().replace("validation", "holdout"))
    with pytest.raises(ValueError, match="is not the list of KonIQ-10k: 'holdout'"):
        read_database(tmp_path, "koniq10k")


def test_a_list_of_equal_scores_on_an_open_scale_is_refused(tmp_path):
    make_hecd(tmp_path)
    (tmp_path / "Data/mean_zscores.csv").write_text(
        "Ground Truth File,Recolour File,Mean zScore\n015004_gt.jpg,015004_gt.jpg,0.5\n"
    )
    with pytest.raises(ValueError, match=r"gives every image the same score, 0\.5"):
        read_database(tmp_path, "hecd")


def test_a_name_that_could_be_several_files_is_refused(tmp_path):
    save_images(tmp_path, ["a/x.png", "b/x.png", "c/y.png"])
    finder = ReleaseFiles(tmp_path)
    assert finder.find("A/X.PNG") == "a/x.png" and finder.find("elsewhere/y.png") == "c/y.png"
    assert finder.find("z.png") is None
    assert ReleaseFiles(tmp_path, ["B"]).find("x.png") == "b/x.png"
    with pytest.raises(ValueError, match=r"'x.png' could be any of a/x.png, b/x.png"):
        finder.find("x.png")


def test_what_is_no_known_release_says_what_is_looked_for(tmp_path):
    with pytest.raises(ValueError, match="got none of their lists; known are live"):
        recognise(tmp_path)
    make_kadid10k(tmp_path)
    make_tid2013(tmp_path)
    with pytest.raises(ValueError, match=r"got tid2013 .*, kadid10k"):
        recognise(tmp_path)
    with pytest.raises(ValueError, match=r"holds no AVA: there is no AVA\.txt"):
        read_database(tmp_path, "ava")
    assert find_list(tmp_path, DATABASES["agiqa3k"]) is None


def test_a_broken_list_is_refused(tmp_path):
    (tmp_path / "dmos.mat").write_bytes(b"no matrix")
    with pytest.raises(ValueError, match="is not the list of LIVE"):
        read_database(tmp_path, "live")


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("row", ["0.png,a,nan", "0.png,a,1e400", ",b", "0.png"])
def test_a_list_with_a_row_that_says_too_little_is_one_line(tmp_path, capsys, row):
    save_images(tmp_path / "release", ["images/0.png", "images/1.png"])
    (tmp_path / "release/data.csv").write_text(f"prompt,mos_quality,name\na,3,1.png\n{row}\n")
    (tmp_path / "release/dmos.csv").write_text(f"dist_img,ref_img,dmos\n1.png,a,2\n{row}\n")
    for name in ("agiqa3k", "kadid10k"):
        options = [str(tmp_path / "release"), "--format", name, "--output_dir", str(tmp_path / "out")]
        assert main(options) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert str(tmp_path / "release") in line


def test_the_command_keeps_the_official_split_and_writes_the_mapping_down(tmp_path, capsys):
    (tmp_path / "release").mkdir()
    make_koniq10k(tmp_path / "release")
    arguments = [tmp_path / "release", "--format", "auto", "--rescale", "--output_dir"]
    assert run(*arguments, tmp_path / "prepared") == 0
    splits = load_from_disk(tmp_path / "prepared")
    assert {name: split["score"][:] for name, split in splits.items()} == {
        "train": [pytest.approx(1 + 8 * 0.7738, abs=1e-5)],
        "validation": [5.0],
        "test": [pytest.approx(1.8)],
    }
    mapping = json.loads(splits["train"].info.description)
    assert mapping == {"database": "KonIQ-10k", "listed_range": [0, 100], "turned": False, "range": [1, 9]}
    assert json.loads((tmp_path / "prepared/report.json").read_text())["scores"] == mapping
    fractions = ["--validation_fraction", 0.3, "--test_fraction", 0]
    assert run(*arguments, tmp_path / "random", "--random_split", *fractions) == 0
    assert {name: len(split) for name, split in load_from_disk(tmp_path / "random").items()} != {"train": 1}


def test_missing_images_are_listed_and_too_many_stop(tmp_path, capsys):
    (tmp_path / "release").mkdir()
    make_kadid10k(tmp_path / "release")
    rows = "".join(f"I01_02_0{number}.png,I01.png,3,0.5\n" for number in range(1, 4))
    with open(tmp_path / "release/dmos.csv", "a") as file:
        file.write(rows)
    options = ["--format", "kadid10k", "--validation_fraction", 0, "--test_fraction", 0, "--output_dir"]
    assert run(tmp_path / "release", "--max_missing", 2, *options, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "3 listed images are not in" in said and "--max_missing 3 would go on without them" in said
    assert run(tmp_path / "release", *options, tmp_path / "out") == 1
    assert "in the table, not in the folder: 3\n    images/I01_02_01.png" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_imagefolder_is_read_by_its_metadata(tmp_path, suffix):
    save_images(tmp_path / "images", ["a.png", "sub/b.png"])
    rows = [{"file_name": "a.png", "mos": 2.5, "scene": "s"}, {"file_name": "sub/b.png", "mos": 7, "scene": "s"}]
    table = Dataset.from_list([row | {"mos": float(row["mos"])} for row in rows])
    write = {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}[suffix]
    write(tmp_path / "images" / f"metadata.{suffix}")
    columns = ["--score_column", "mos", "--group_column", "scene"]
    fractions = ["--validation_fraction", 0, "--test_fraction", 0]
    options = ["--format", "imagefolder", *columns, *fractions, "--output_dir", tmp_path / "out"]
    assert run(tmp_path / "images", *options) == 0
    train = load_from_disk(tmp_path / "out")["train"]
    assert train["score"][:] == [2.5, 7.0] and train["group"][:] == ["s", "s"]
    assert run(tmp_path / "images" / "sub", "--format", "imagefolder", "--output_dir", tmp_path / "none") == 2


def test_options_that_go_with_databases_only_are_refused_elsewhere(tmp_path, capsys):
    save_images(tmp_path / "images", ["1/a.png"])
    for option in ("--rescale", "--random_split"):
        assert run(tmp_path / "images", option, "--output_dir", tmp_path / "out") == 2
        assert f"{option} has no effect here" in capsys.readouterr().err
