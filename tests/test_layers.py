"""Imports point down: a rule per package, held over every import statement of the project."""

import ast
import graphlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("pipeline", "jobs") for path in (ROOT / folder).rglob("*.py"))
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef

# What each package may import beside itself. The longest name that fits a module is its package.
BASE = "engine.audio engine.languages engine.options engine.results"  # of the engine, without torch
# Of the engine, for all others.
OF_ENGINE = f"{BASE} engine.model.hub engine.model.snapshot engine.sparsify.level engine.decoding.loops"
MODEL = f"errors {BASE} engine.model"
SPARSIFY = f"{MODEL} engine.sparsify"
DECODING = f"{SPARSIFY} engine.decoding"
ADAPTIVE = f"errors schema planning longform metrics output {OF_ENGINE}"
DATAFLOW = f"{ADAPTIVE} sources reading adaptive config wording"
DRIVER = f"{DATAFLOW} dataflow results"
SEARCH = f"{DRIVER} driver"
MAY_IMPORT = {
    "errors": "",
    "schema": "",
    "demo": "",
    "wording": "",
    "engine": "errors",
    "engine.audio": "",
    "engine.languages": "",
    "engine.options": "errors",
    "engine.results": "",
    "engine.model": f"errors {BASE}",
    "engine.sparsify": MODEL,
    "engine.decoding": SPARSIFY,
    "engine.timing": DECODING,
    "engine.scheduling": f"{DECODING} engine.timing",
    "engine.profile": DECODING,
    "engine.capacity": DECODING,
    "engine.transcript": f"{DECODING} engine.timing engine.scheduling",
    "engine.engine": f"{DECODING} engine.timing engine.scheduling engine.profile engine.transcript "
    "engine.capacity",
    "sources": "errors wording",
    "planning": "schema sources",
    "longform": OF_ENGINE,
    "reading": "errors schema sources planning engine.audio",
    "recogniser": "engine longform reading",
    "metrics": "schema engine.languages",
    "output": "errors schema planning metrics",
    "adaptive": ADAPTIVE,
    "config": "errors engine.options",
    "dataflow": DATAFLOW,
    "results": "errors wording schema sources metrics output adaptive engine.languages",
    "driver": DRIVER,
    "driver.model": f"{DRIVER} driver engine",
    "search": SEARCH,
    "benchmark": "errors schema engine sources reading adaptive metrics config dataflow results driver demo",
    "jobs": f"{ADAPTIVE} wording sources reading adaptive config driver results search benchmark demo",
}
# Under `if TYPE_CHECKING:` alone: for the names of types.
FOR_TYPES = {"config": "sources adaptive"}


def short_name(module: str) -> str:
    """`pipeline.engine.audio` → `engine.audio`, without the file of a package."""
    return module.removesuffix(".__init__").removeprefix("pipeline.").removeprefix("pipeline")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {short_name(name_of(path)): path for path in FILES}


@cache
def trees() -> dict[Path, ast.Module]:
    """Parsed when the first test asks: half a second, of every process that only collects."""
    return {path: ast.parse(path.read_text()) for path in FILES}


def imported(node: ast.AST) -> Iterator[str]:
    """The names of our modules that one statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if short_name(name) in MODULES else node.module for name in names]
    else:
        return
    yield from (short_name(name) for name in names if name.split(".")[0] in ("pipeline", "jobs"))


def imports_of(tree: ast.AST) -> set[str]:
    """Of every statement, wherever it stands."""
    return {name for node in ast.walk(tree) for name in imported(node)} - {""}


def for_types(tree: ast.AST) -> set[str]:
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    return {name for block in blocks for name in imports_of(block)}


def is_within(module: str, packages: str) -> bool:
    """Whether a module is one of these or lies below one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages.split())


def package_of(module: str) -> str:
    return max((package for package in MAY_IMPORT if is_within(module, package)), key=len)


@cache
def imports() -> dict[str, set[str]]:
    return {module: imports_of(trees()[path]) for module, path in MODULES.items() if module}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_lies_below_it(package):
    members = [module for module in imports() if package_of(module) == package]
    assert members, f"{package} is no package of ours"
    broken = set()
    for module in members:
        types_only = for_types(trees()[MODULES[module]])
        for name in imports()[module]:
            more = FOR_TYPES.get(package, "") if name in types_only else ""
            if not is_within(name, f"{package} {MAY_IMPORT[package]} {more}"):
                broken.add((module, name))
    assert broken == set()


def test_no_module_imports_itself_round_a_corner():
    """A package's `__init__` counts as its own file: who imports `a.b` does not wait for all of `a`."""
    list(graphlib.TopologicalSorter(imports()).static_order())


def roots_of(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports, ours and others."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_ray_is_imported_by_the_dataflow_alone():
    assert {package_of(name) for name in imports() if "ray" in roots_of(trees()[MODULES[name]])} == {
        "dataflow"
    }


HEAVY = {"ray", "torch", "transformers", "pandas"}
# These import what is heavy when they are imported; whoever needs them imports them when it calls them.
WITH_HEAVY = "benchmark dataflow.graph dataflow.monitoring engine"


def newly_loaded(modules: list[str], unwanted: set[str]) -> str:
    """Which of these modules, imported in this order in a fresh interpreter, brought in what is unwanted."""
    code = """
import importlib, sys
_, modules, unwanted = sys.argv
for name in modules.split():
    importlib.import_module(name)
    if found := set(unwanted.split()) & set(sys.modules):
        print(name, *found)
        break
"""
    command = [sys.executable, "-c", code, " ".join(modules), " ".join(unwanted)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_only_the_graph_and_the_models_load_ray_or_torch_when_imported():
    light = [name for name in imports() if not is_within(name, WITH_HEAVY) or is_within(name, OF_ENGINE)]
    names = [name if is_within(name, "jobs") else f"pipeline.{name}" for name in light]
    assert newly_loaded(["pipeline.engine", *names], HEAVY) == ""


def test_the_engine_loads_none_of_our_input_and_output():
    names = [f"pipeline.{name}" for name in imports() if is_within(name, "engine")]
    others = {"ray", "pyarrow", "soundfile", "av", "jiwer", "soxr", "fsspec.core", "onnxruntime"}
    assert newly_loaded([name for name in names if not name.endswith("column_sums")], others) == ""


def test_files_and_functions_are_short():
    assert [name for name, path in MODULES.items() if len(path.read_text().splitlines()) > 300] == []
    functions = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    assert statistics.median(node.end_lineno - node.lineno + 1 for node in functions) < 10


def test_the_tree_in_the_readme_names_every_module():
    tree = re.search(r"^```\njobs/.*?^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    listed, package = set(), ""
    for line in tree.splitlines()[1:-1]:
        if not line.startswith(" "):
            package = folder = line.split()[0]
            continue
        words = line.split()
        if words[0].endswith("/"):
            folder = package + words.pop(0)
        elif not line.startswith("        "):
            folder = package
        listed |= {f"{folder}{word}.py" for word in words}
    there = {str(path.relative_to(ROOT)) for path in FILES if not path.stem.startswith("__")}
    assert listed == there
