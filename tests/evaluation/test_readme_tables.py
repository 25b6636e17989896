"""README.md's tables are those of the reports in results/, which say how they were made."""

import json

import pytest

from hybridiqa.commands import benchmark
from hybridiqa.evaluation.readme_tables import BLOCK, TABLES, with_tables, write_tables
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
        with_tables(f"<!-- {comment} -->\n<!-- end of table -->", root)


def test_the_readme_has_the_tables_of_all_reports_as_they_are(capsys):
    assert benchmark.main(["tables", "--check"]) == 0, capsys.readouterr().out
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    used = [(match["name"], match["report"]) for match in BLOCK.finditer(text)]
    assert {name for name, _ in used} >= {"ranking", "differences", "robustness", "stability", "scoring", "training"}
    assert {report for _, report in used} == {path.relative_to(ROOT).as_posix() for path in REPORTS}
    assert all(name in TABLES for name, _ in used)


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
        assert report["rows"] and report["facts"]
