"""Tables of README.md and docs/ are those of the reports in results/, which say how they were made."""

import json

import pytest

from hybridiqa.commands import benchmark
from hybridiqa.evaluation.readme_tables import BLOCK, TABLES, fill_tables, read_documents, write_tables
from hybridiqa.utils.root import ROOT

REPORTS = sorted((ROOT / "results").glob("*.json"))
MEASURED = {
    "value": 0.5,
    "interval": [0.25, 0.75],
}
REPORT = {
    "kind": "ranking",
    "datasets": {
        "mine": {
            "rows": [
                {"model": "a", "metrics": {"srcc": MEASURED, "krcc": MEASURED}},
                {"model": "b|c", "metrics": {"srcc": {"value": None, "interval": [None, None]}}},
            ],
            "differences": [
                {"first": "a", "second": "b", "metrics": {"srcc": {**MEASURED, "differ": True}}},
            ],
        }
    },
}
TEXT = """before
<!-- table ranking results/mine.json -->
| stale |
<!-- end of table -->
between
<!-- table differences results/mine.json -->
<!-- end of table -->
after
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine.json").write_text(json.dumps(REPORT))
    (tmp_path / "README.md").write_text(TEXT)
    return tmp_path


def test_tables_are_made_from_the_reports_and_all_else_stays(root):
    assert write_tables(is_check=False, root=root) == 0
    assert (root / "README.md").read_text() == (
        "before\n<!-- table ranking results/mine.json -->\n"
        "| model | SRCC | KRCC |\n| --- | --- | --- |\n"
        "| a | 0.500 [0.250, 0.750] | 0.500 [0.250, 0.750] |\n| b\\|c | not defined |  |\n"
        "<!-- end of table -->\nbetween\n<!-- table differences results/mine.json -->\n"
        "| first less second | SRCC |\n| --- | --- |\n| a less b | 0.500 [0.250, 0.750] |\n"
        "<!-- end of table -->\nafter\n"
    )
    assert write_tables(is_check=True, root=root) == 0


def test_published_figures_and_subsets_have_their_tables(root):
    report = json.loads(json.dumps(REPORT))
    result = report["datasets"]["mine"]
    result["rows"] = [{"model": "a", "metrics": dict.fromkeys(("srcc", "krcc", "plcc", "plcc_logistic"), MEASURED)}]
    result["published"] = [{"model": "NIQE", "srcc": 0.2674, "plcc": None, "source": "their page"}]
    metrics = dict.fromkeys(("srcc", "plcc_logistic"), MEASURED)
    result["subsets"] = [
        {"model": model, "subset": subset, "num_images": 7, "metrics": metrics}
        for model in ("a", "b")
        for subset in ("ss01", "ss02")
    ]
    (root / "results" / "mine.json").write_text(json.dumps(report))
    shown = "0.500 [0.250, 0.750]"
    assert TABLES["ranking"](report) == (
        "| model | SRCC | PLCC | PLCC, 4 parameters | source |\n| --- | --- | --- | --- | --- |\n"
        f"| a | {shown} | {shown} | {shown} | measured |\n| NIQE (published) | 0.267 |  |  | their page |"
    )
    text = fill_tables("<!-- table subsets results/mine.json -->\n<!-- end of table -->", root)
    assert text.splitlines()[1:-1] == [
        "| subset | images | model | SRCC | PLCC, 4 parameters |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {subset} | 7 | {model} | {shown} | {shown} |" for subset in ("ss01", "ss02") for model in ("a", "b")),
    ]
    with pytest.raises(ValueError, match="a table of subsets needs a report that was made with --subsets"):
        TABLES["subsets"](REPORT)


def test_a_check_finds_a_number_that_was_changed_by_hand_and_changes_nothing(root, capsys):
    write_tables(is_check=False, root=root)
    edited = (root / "README.md").read_text().replace("0.500 [0.250", "0.600 [0.250", 1)
    (root / "README.md").write_text(edited)
    assert write_tables(is_check=True, root=root) == 1
    assert (root / "README.md").read_text() == edited
    assert "-| a | 0.600 [0.250, 0.750]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("table nonsense results/mine.json", "there is no table 'nonsense'; there are ranking"),
        ("table ranking results/other.json", "results/other.json is no report"),
    ],
)
def test_a_table_or_a_report_that_is_not_there_is_named(root, comment, message):
    with pytest.raises(ValueError, match=message):
        fill_tables(f"<!-- {comment} -->\n<!-- end of table -->", root)


def test_the_documents_have_the_tables_of_all_reports_as_they_are(capsys):
    assert benchmark.main(["tables", "--check"]) == 0, capsys.readouterr().out
    used = [(match["name"], match["report"]) for text in read_documents().values() for match in BLOCK.finditer(text)]
    assert len(set(used)) == len(used)
    assert {name for name, _ in used} >= {"ranking", "differences", "robustness", "stability", "scoring", "training"}
    assert {report for _, report in used} == {path.relative_to(ROOT).as_posix() for path in REPORTS}
    assert all(name in TABLES for name, _ in used)


RANKING_BLOCK = "<!-- table ranking results/mine.json -->\n<!-- end of table -->\n"


def test_tables_lie_in_the_readme_and_in_docs_alike(root, capsys):
    (root / "docs").mkdir()
    (root / "README.md").write_text("no table here\n")
    (root / "docs" / "results.md").write_text(TEXT)
    (root / "docs" / "other.md").write_text("none here\n")
    assert write_tables(is_check=True, root=root) == 1
    assert "--- docs/results.md" in capsys.readouterr().out
    assert write_tables(is_check=False, root=root) == 0
    assert capsys.readouterr().out == "2 tables in docs/results.md\n"
    assert "| a | 0.500 [0.250, 0.750] |" in (root / "docs" / "results.md").read_text()
    assert write_tables(is_check=True, root=root) == 0
    assert (root / "README.md").read_text() == "no table here\n"


def test_a_table_of_a_report_stands_in_one_place(root):
    (root / "docs").mkdir()
    (root / "docs" / "results.md").write_text(RANKING_BLOCK)
    place = r"<!-- table ranking results/mine.json --> is twice, in README.md and docs/results.md"
    with pytest.raises(ValueError, match=place):
        write_tables(is_check=False, root=root)
    assert (root / "README.md").read_text() == TEXT
    (root / "docs" / "results.md").write_text("")
    (root / "README.md").write_text("")
    with pytest.raises(ValueError, match=r"<!-- table ranking results/mine.json --> is nowhere in README.md and docs"):
        write_tables(is_check=True, root=root)


def test_a_row_names_what_its_report_was_measured_with():
    report = json.loads((ROOT / "results" / "training.json").read_text(encoding="utf-8"))
    report["arguments"] |= {"image_size": 512, "input_batch_size": 30, "batch_size": 16, "layout": "r152"}
    table = TABLES["training"](report)
    assert "| patches cut from 512 px pictures, batch 30 |" in table
    assert "| training step, [3,8,36,3] layout, batch 16, float32 |" in table


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_says_how_it_was_made(path):
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["command"].startswith(f"python benchmark.py {report['kind']} ")
    assert report["commit"] and not report["commit"].endswith("-dirty")
    assert report["versions"]["torch"] and report["versions"]["python"] and report["device"]
    hashes = [report.get("data_hash"), *(part["data_hash"] for part in report.get("datasets", {}).values())]
    if report["kind"] in ("ranking", "robustness"):
        assert [len(value) for value in hashes if value] == [16]
    else:
        assert report["rows"] and report["facts"] and report["arguments"]["image_size"]
