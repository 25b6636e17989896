"""The files that the Hub loads: what they do when they are imported, and what they may import."""

import ast
import sys
from pathlib import Path

import pytest

from hybridiqa.models import hub_code
from hybridiqa.models.loading import HUB_CODE
from hybridiqa.utils.root import ROOT

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
LIBRARIES = {"torch", "transformers", "numpy", "PIL", *sys.stdlib_module_names}


@pytest.fixture(params=HUB_CODE)
def module(request) -> ast.Module:
    return ast.parse((ROOT / request.param).read_text(encoding="utf-8"))


def is_constant(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or gives a name to a value that is made without calling anything but re.compile."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    calls = [ast.unparse(node.func) for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return isinstance(statement, ast.Assign | ast.AnnAssign) and set(calls) <= {"re.compile"}


def test_importing_them_defines_things_and_does_nothing_else(module):
    doing = [ast.unparse(node) for node in module.body if not isinstance(node, DEFINITIONS) and not is_constant(node)]
    assert doing == []
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            inner = [part for part in node.body if not isinstance(part, DEFINITIONS) and not is_constant(part)]
            assert [ast.unparse(part) for part in inner] == []


def test_they_import_libraries_that_transformers_brings_and_each_other(module):
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            assert {name.name.split(".")[0] for name in node.names} <= LIBRARIES
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in LIBRARIES
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            assert f"{node.module}.py" in HUB_CODE


def signature_of(function: ast.FunctionDef) -> tuple[str, str]:
    return ast.unparse(function.args), ast.unparse(function.returns)


def test_types_of_names_that_are_handed_on_are_those_of_the_hub_files():
    source = ast.parse(Path(hub_code.__file__).read_text(encoding="utf-8"))
    block = next(node for node in source.body if isinstance(node, ast.If))
    declared = {node.name: node for node in block.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    variables = {node.target.id for node in block.body if isinstance(node, ast.AnnAssign)}
    assert declared.keys() | variables == hub_code.FILE_OF.keys()
    for name, node in declared.items():
        file = ROOT / f"{hub_code.FILE_OF[name]}.py"
        found = next(each for each in ast.parse(file.read_text("utf-8")).body if getattr(each, "name", "") == name)
        if isinstance(node, ast.FunctionDef):
            assert signature_of(node) == signature_of(found)
        else:
            assert [ast.unparse(base) for base in node.bases] == [ast.unparse(base) for base in found.bases]
