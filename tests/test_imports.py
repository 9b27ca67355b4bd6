"""Imports point one way, and what is heavy is imported only where it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {  # parts of the package -> (other parts, third-party packages) that their modules may import
    "errors": (set(), set()),
    "atomic": (set(), set()),
    "retry": ({"errors"}, {"httpx2", "tenacity"}),
    "tm": ({"tm", "errors"}, {"msgspec", "numpy", "polars", "pyarrow", "yaml"}),
    "schemas": ({"schemas"}, {"pyarrow"}),
    "pipelines": (
        {"pipelines", "tm", "schemas", "errors", "atomic", "retry", ""},
        {"numpy", "polars", "pyarrow", "duckdb", "rich", "fsspec", "huggingface_hub", "httpx2", "tenacity", "ray"}
        | {"yaml", "msgspec"},
    ),
    "eval": (
        {"eval", "pipelines", "tm", "schemas", "errors", "atomic", "retry", ""},
        {
            "numpy",
            "polars",
            "pyarrow",
            "duckdb",
            "msgspec",
            "rich",
            "torch",
            "transformers",
            "accelerate",
            "peft",
            "safetensors",
            "huggingface_hub",
            "httpx2",
        }
        | {"jinja2", "markupsafe", "vl_convert", "yaml"}
        | {"datasets", "inspect_ai", "openenv", "reasoning_gym", "verifiers"},  # those that take environments
    ),
    "options": ({"pipelines", "tm", "errors"}, {"typer"}),
    "process": ({"errors"}, set()),
    "cli": ({"pipelines", "eval", "options", "process", ""}, {"typer", "rich"}),
    "__main__": ({"cli", "pipelines", "process"}, set()),
    "api": ({"pipelines", "eval", "errors"}, {"rich", "duckdb"}),
    "__init__": ({"api", "eval", "errors", "tm"}, set()),  # what the package offers, imported when it is asked for
}
HEAVY = {
    "accelerate",
    "torch",
    "transformers",
    "peft",
    "ray",
    "datasets",
    "duckdb",
    "matplotlib",
    "huggingface_hub",
    "openai",
}
HEAVY |= {"accelerate", "fsspec", "s3fs", "jinja2", "vl_convert"}
# One stage in several files, which nothing else imports at its top: heavy packages may stand at theirs.
BACKEND = ("device", "greedy", "load", "local", "model", "prefix")
STAGE = {f"eval/backends/{name}.py" for name in BACKEND} | {"eval/training/loop.py"}
PLACES = ("*.py", "tm/**/*.py", "schemas/**/*.py", "pipelines/**/*.py", "eval/**/*.py")
MODULES = sorted(path.relative_to(ROOT) for place in PLACES for path in ROOT.glob(place))


def imported(path: Path, types: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, whether the import is made with the module's own) of every import of a file.

    ``types``: those for types alone count as the module's own.
    """
    tree = ast.parse((ROOT / path).read_text())
    inside = {
        id(node)
        for part in ast.walk(tree)
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
        or (not types and isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING")
        for node in ast.walk(part)
    }
    package = ["caef_data", *path.parent.parts]
    for node in ast.walk(tree):
        top = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from ((name.name, top) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "caef_data" or not node.module:
                yield from ((f"{module}.{name.name}", top) for name in node.names)
            else:
                yield module, top


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    parts, packages = MAY_IMPORT[path.parts[0].removesuffix(".py")]
    known = {name.removesuffix(".py") for name in MAY_IMPORT}
    for name, top in imported(path):
        first, _, rest = name.partition(".")
        if first == "caef_data":
            staged = any(name.startswith(f"caef_data.{one[:-3].replace('/', '.')}") for one in STAGE)
            assert not (top and staged and str(path) not in STAGE), f"{path} imports {name} at its top"
            part = rest.partition(".")[0]
            assert (part if part in known else "") in parts, f"{path} imports {name}"
        elif first not in sys.stdlib_module_names:
            assert first in packages, f"{path} imports {name}"
            assert not (top and first in HEAVY and str(path) not in STAGE), (
                f"{path} imports {name} at its top: import it where it is needed"
            )


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for types count, those inside functions do not: they are made when all files are known."""
    names = {".".join(["caef_data", *path.with_suffix("").parts]).removesuffix(".__init__"): path for path in MODULES}
    follows = {
        name: {other for other, top in imported(path, types=True) if top and other in names}
        for name, path in names.items()
    }
    TopologicalSorter(follows).prepare()  # raises CycleError, which names the circle


def test_the_rule_sees_relative_imports() -> None:
    assert ("caef_data.errors", True) in set(imported(Path("tm/__init__.py")))
    assert ("caef_data.pipelines.console", False) in set(imported(Path("cli.py")))


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["build", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, caef_data.cli\n"
        f"sys.argv = ['caef-data', *{words!r}]\n"
        "try: caef_data.cli.main()\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert not {"numpy", "polars", "pyarrow", "pandas", *HEAVY} & set(result.stderr.split())


@pytest.mark.parametrize(("room", "none"), [("verify", {"pandas"}), ("build", {"pandas", "polars"})])
def test_building_imports_no_torch_and_no_reader(room: str, none: set[str]) -> None:
    code = f"import sys, caef_data.pipelines.console, caef_data.pipelines.{room}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {*none, *HEAVY} & set(result.stdout.split())


def test_the_script_that_workers_import_too_brings_no_command_line() -> None:
    code = "import sys, caef_data.__main__; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"typer", "rich", "numpy", "caef_data.cli"} & set(result.stdout.split())


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60]
