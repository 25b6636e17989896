"""Published figures: read with their sources, or refused with the row that is wrong."""

import pytest

from hybridiqa.evaluation.published import choose_published, read_published
from hybridiqa.utils.root import ROOT

HEADER = "dataset,model,srcc,plcc,source\n"


def write(path, text: str):
    path.write_text(HEADER + text)
    return path


def test_a_figure_that_is_not_known_is_none(tmp_path):
    table = write(tmp_path / "a.csv", "biq2021,NIQE,0.2674,0.2981,a page\nbiq2021,DeepEns,.792,,a paper\nx,y,,-1,z\n")
    assert read_published(table) == [
        {"dataset": "biq2021", "model": "NIQE", "srcc": 0.2674, "plcc": 0.2981, "source": "a page"},
        {"dataset": "biq2021", "model": "DeepEns", "srcc": 0.792, "plcc": None, "source": "a paper"},
        {"dataset": "x", "model": "y", "srcc": None, "plcc": -1, "source": "z"},
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,NIQE,0.2,0.3,\n", "row 1: it has no source"),
        ("a,,0.2,0.3\n", "row 1: it has no model and no source"),
        ("a,NIQE,,,page\n", "row 1: it has neither srcc nor plcc"),
        ("a,NIQE,26.7,,page\n", "row 1: srcc must be -1 to 1, got 26.7"),
        ("a,NIQE,0.2,nan,page\n", "row 1: plcc must be -1 to 1, got nan"),
        ("a,NIQE,good,,page\n", "row 1: srcc is no number: 'good'"),
        ("a,NIQE,0.2,,page\na,NIQE,0.2,,page\n", "row 2 is there twice"),
    ],
)
def test_a_row_that_tells_too_little_or_the_impossible_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_published(write(tmp_path / "a.csv", row))


def test_each_dataset_has_its_own_figures_and_a_table_of_other_datasets_is_refused(tmp_path):
    table = write(tmp_path / "a.csv", "a,NIQE,0.2,,page\nb,NIQE,0.3,,page\n")
    chosen = choose_published(table, ["b", "c"])
    assert chosen == {"b": [{"model": "NIQE", "srcc": 0.3, "plcc": None, "source": "page"}], "c": []}
    assert choose_published(None, ["b"]) == {"b": []}
    with pytest.raises(ValueError, match="has figures of a, b, none of c: name it so, NAME=DATASET"):
        choose_published(table, ["c"])


def test_the_figures_of_biq2021_are_those_that_its_authors_list():
    rows = {row["model"]: row for row in read_published(ROOT / "results" / "published.csv")}
    assert len(rows) == 13 and {row["dataset"] for row in rows.values()} == {"biq2021"}
    assert all("nisarahmedrana/BIQ2021" in row["source"] for row in rows.values())
    assert (rows["BRISQUE"]["plcc"], rows["BRISQUE"]["srcc"]) == (0.6941, 0.6039)
    assert (rows["NASNet-Large"]["plcc"], rows["NASNet-Large"]["srcc"]) == (0.7083, 0.6725)
    assert [name for name, row in rows.items() if row["plcc"] is None] == ["SGL-IQA", "DeepEns"]
