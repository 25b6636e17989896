"""README and docs: programs take the commands, examples use what there is, links lead somewhere."""

import argparse
import ast
import builtins
import importlib
import re
import runpy
import signal
import sys
import tomllib

import pytest
import yaml
from documents import DOCUMENTS, MANUAL, OTHERS, README, anchors_of, blocks, commands_of, links_of
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from transformers import HfArgumentParser

from hybridiqa.utils.root import ROOT

MAX_README_LINES = 220
COMMANDS = [
    pytest.param(command, id=f"{document}: {' '.join(command)[:80]}")
    for document in (*MANUAL, *OTHERS)
    for block in blocks("bash", document=document)
    for command in commands_of(block)
]
EXAMPLES = [
    pytest.param(code, id=f"{document}: {code.splitlines()[0]}")
    for document in (*MANUAL, *OTHERS)
    for code in blocks("python", document=document)
]
TYPED_IN_TEST_README = [  # by the program itself
    command
    for block in [*blocks("bash", "As a Space"), *blocks("bash", document="docs/hub.md")]
    for command in commands_of(block)
]
FILE_OF_OURS = re.compile(r"(?:\.ci|docs|examples|hybridiqa|metrics|recipes|results|tests)/[\w./-]*")
OPTIONAL = {"gradio_client"}  # not in requirements.txt
TEXT_SUFFIXES = {".md", ".py", ".sh", ".toml", ".cff", ".yaml", ".txt", ".html"}


class Parsed(BaseException):
    """The arguments were taken: nothing is run with them. Not an Exception, so that no program handles it."""


def parse_only(monkeypatch: pytest.MonkeyPatch, script: str, arguments: list[str]) -> None:
    """Call a script with these arguments, as far as its own parser takes them.

    Raises:
        Parsed: it takes them.
        SystemExit: it does not.
    """

    def stop_after(parse):
        def parse_and_stop(*args, **kwargs):
            parse(*args, **kwargs)
            raise Parsed

        return parse_and_stop

    for parser, method in ((argparse.ArgumentParser, "parse_args"), (HfArgumentParser, "parse_args_into_dataclasses")):
        monkeypatch.setattr(parser, method, stop_after(getattr(parser, method)))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_pip(arguments: list[str]) -> None:
    """Raise an error unless `pip install` is given lists of requirements that there are, and requirements."""
    assert arguments.pop(0) == "install"
    while arguments:
        if (word := arguments.pop(0)) == "-r":
            assert (ROOT / arguments.pop(0)).is_file()
        else:
            Requirement(word)


def check_pytest(arguments: list[str]) -> None:
    """Raise an error unless the folders of tests and the markers that pytest is given are there."""
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    markers = {marker.split(":")[0] for marker in configured["markers"]}
    while arguments:
        word = arguments.pop(0)
        if word == "-m":
            assert set(arguments.pop(0).split()) - {"not", "and", "or"} <= markers
        elif word == "-n":
            assert int(arguments.pop(0)) > 0
        else:
            assert word.startswith("--durations=") or (ROOT / word).exists(), word


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_its_program_takes(monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    program, *arguments = command[2:] if command[:2] == ["accelerate", "launch"] else command
    if program == "python" and arguments[0] != "-m":
        program, *arguments = arguments
    if program.endswith(".py"):
        with pytest.raises(Parsed):
            parse_only(monkeypatch, program, arguments)
    elif program == "python" and arguments[1] == "pytest":
        check_pytest(arguments[2:])
    elif program == "pip":
        check_pip(arguments)
    elif program == "bash":
        assert (ROOT / arguments[0]).is_file()
    elif program in ("ruff", "mypy", "pre-commit", "sha256sum"):
        assert not [word for word in arguments if "/" in word and not (ROOT / word).exists()]
    else:
        assert command in TYPED_IN_TEST_README


def test_what_a_program_does_not_take_is_found(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for script, *arguments in (
        ["score.py", "a.png", "--outptu", "scores.csv"],
        ["organize.py", "sort", "scores.csv", "--into", "sorted"],
        ["train.py", "--dataset", "prepared", "--output_dir", "new", "--num_epoch_count", "3"],
    ):
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
            parse_only(patch, script, arguments)
        assert end.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_of_python_uses_what_there_is(code):
    tree = ast.parse(code)
    names = set(vars(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = (
                pytest.importorskip(node.module) if node.module in OPTIONAL else importlib.import_module(node.module)
            )
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used <= names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_leads_to_a_file_or_a_title(document):
    folder = (ROOT / document).parent
    for target in links_of(document):
        path, _, anchor = target.partition("#")
        reached = (folder / path).resolve() if path else ROOT / document
        assert reached.exists() and reached.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors_of(reached.relative_to(ROOT).as_posix()), target


@pytest.mark.parametrize("document", [*MANUAL, *OTHERS])
def test_a_file_that_is_named_is_there(document):
    for span in re.findall(r"`([^`\n]+)`", DOCUMENTS[document]):
        if FILE_OF_OURS.fullmatch(span):
            assert (ROOT / span).exists(), span


def test_every_document_that_is_spoken_of_is_there():
    folders = [
        ROOT,
        *(ROOT / name for name in ("docs", "hybridiqa", "recipes", "metrics", "tests", "results", "examples")),
    ]
    paths = {path for folder in folders for path in (folder.glob("*") if folder == ROOT else folder.rglob("*"))}
    for path in sorted(path for path in paths if path.suffix in TEXT_SUFFIXES):
        for name in re.findall(r"\bdocs/\w+\.md\b", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path} speaks of {name}"


def test_the_readme_is_short_and_leads_to_every_document():
    assert len(README.splitlines()) <= MAX_README_LINES
    reached = {target.partition("#")[0] for target in links_of("README.md")}
    assert {*MANUAL, "CONTRIBUTING.md", "SECURITY.md"} - {"README.md"} <= reached


def test_the_readme_names_every_script_and_package_once():
    first_cells = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    scripts = {path.name for path in ROOT.glob("*.py") if not path.stem.endswith("_hybridiqa")}
    packages = {f"{path.parent.name}/" for path in ROOT.glob("hybridiqa/*/__init__.py")}
    assert sorted(first_cells) == sorted(scripts | packages)


def test_the_commands_that_ci_takes_from_the_readme_are_there_once():
    lines = [line for block in blocks("bash", document="README.md") for line in block.splitlines()]
    for words in ("python -m pytest", "python score.py examples/"):
        (line,) = [line for line in lines if words in line]
        assert line.startswith("pip install -r requirements.txt ")


def test_the_tools_that_contributors_are_told_of_are_installed_with_the_tests():
    listed = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    assert all(re.search(rf"^{tool}\b", listed, re.MULTILINE) for tool in ("pytest", "ruff", "mypy"))


def test_pre_commit_checks_what_ci_checks():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert len(local["hooks"]) == 3
    assert all(f'timed "{hook["entry"]}"' in script for hook in local["hooks"])


def test_the_citation_is_that_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    assert citation["license"].lower() == ModelCard(README).data.license
    bibtex = README.split("```bibtex\n")[1]
    assert all(str(paper[key]) in bibtex for key in ("title", "collection-title", "year"))
    assert all(f"{author['family-names']}, {author['given-names']}" in bibtex for author in paper["authors"])
