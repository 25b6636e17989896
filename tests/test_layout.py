"""Layers of the packages: imports point down only, none goes round in a circle, `__init__.py` imports nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from hybridiqa.utils.root import ROOT

LAYERS = (  # a package imports those of the lines before its own
    {"utils"},
    {"models"},
    {"scores", "data"},
    {"inference", "training", "organize", "distortions"},
    {"webapp", "evaluation", "benchmarks"},
    {"commands"},
)
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}
SOURCE = ROOT / "hybridiqa"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(SOURCE.glob("*/*.py"))
    if path.name != "__init__.py"
}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported_names(path: Path) -> Iterator[str]:
    """Every module, or name in a module, that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_modules(path: Path) -> set[str]:
    """The modules of the packages that a file imports."""
    names = set(imported_names(path))
    return {name for name in MODULES if any(f"{found}.".startswith(f"{name}.") for found in names)}


def test_every_module_lies_in_a_package_that_has_a_layer():
    assert {path.parent.name for path in MODULES.values()} == set(LAYER_OF)
    assert sorted(path.name for path in SOURCE.glob("*.py")) == ["__init__.py", "dataset_loading.py"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    package = module.split(".")[1]
    for name in imported_modules(MODULES[module]):
        other = name.split(".")[1]
        assert other == package or LAYER_OF[other] < LAYER_OF[package], f"{module} imports {name}"
    assert not {name.split(".")[0] for name in imported_names(MODULES[module])} & SCRIPTS


def test_no_import_goes_round_in_a_circle():
    graph = {module: imported_modules(path) for module, path in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_packages_import_nothing_by_themselves():
    for path in SOURCE.rglob("__init__.py"):
        assert not list(imported_names(path)), path


def test_the_test_of_imports_sees_those_that_point_up(tmp_path):
    (tmp_path / "module.py").write_text("def load():\n    from hybridiqa.webapp import page\n")
    assert imported_modules(tmp_path / "module.py") == {"hybridiqa.webapp.page"}


def test_sorting_and_utilities_load_no_torch():
    utilities = ["devices", "libraries", "memory", "processes", "runs"]
    modules = ["organize", "hybridiqa.scores.score_file", *(f"hybridiqa.utils.{name}" for name in utilities)]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("script", ["score", "organize", "app", "benchmark", "convert_checkpoint"])
def test_help_loads_no_large_library(script):
    code = f"""
import sys
from hybridiqa.commands.{script} import main
try:
    main(["--help"])
finally:
    print({{"torch", "transformers", "datasets", "gradio"}} & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and done.stderr == "set()\n"
