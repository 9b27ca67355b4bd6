"""The examples in the documentation are made again and compared.

``<!-- run: COMMAND -->`` stands before a fenced block that holds the command's plain output at 80 columns;
``<!-- python: -->`` before a python block that is followed by a block with what the code prints.
``python tests/test_docs.py`` writes the blocks anew.
"""

import contextlib
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(
    r"(?P<head><!-- (?:run: (?P<command>[^\n]+?)|python:) -->\n(?:```python\n(?P<code>.*?)```\n)?```text\n)"
    r"(?P<output>.*?)```\n",
    re.DOTALL,
)


def run_command(command: str) -> str:
    from typer.testing import CliRunner

    from caef_data.cli import app

    program, *words = shlex.split(command)
    assert program == "caef-data", f"only caef-data can be run here, not {program}"
    result = CliRunner().invoke(app, words, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.output


def run_code(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<documentation>", "exec"), {})
    return printed.getvalue()


def made(block: re.Match[str]) -> str:
    output = run_command(block["command"]) if block["command"] else run_code(block["code"])
    return "".join(f"{line.rstrip()}\n" for line in output.rstrip("\n").split("\n"))


def blocks() -> list[object]:
    found = []
    for document in DOCUMENTS:
        for block in BLOCK.finditer(document.read_text(encoding="utf-8")):
            name = f"{document.name}: {block['command'] or block['code'].splitlines()[-1].strip()}"
            found.append(pytest.param(block, id=name))
    return found


@pytest.mark.parametrize("block", blocks())
def test_block_is_what_the_program_prints(
    block: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert block["output"] == made(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_marked_block_is_found(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    marks = len(re.findall(r"^<!-- (?:run|python):", text, re.MULTILINE))
    assert marks == len(BLOCK.findall(text)), "a mark must stand directly before its fenced block"


def test_format_has_examples() -> None:
    assert len(BLOCK.findall((ROOT / "docs" / "format.md").read_text(encoding="utf-8"))) >= 8


def test_architecture_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    known = {
        path.name for part in ("tm", "schemas", "pipelines", "eval", "tests") for path in (ROOT / part).rglob("*.py")
    }
    named = set(re.findall(r"[\w/-]+\.py\b|\b\w+/(?:\w+/)*(?=[\s`,;)])", text))
    assert len(named) > 25
    gone = sorted(
        name for name in named - {"data/", "ckpt/", "results/"} if not (ROOT / name).exists() and name not in known
    )
    assert not gone, f"docs/architecture.md names what is not there: {gone}"


def write(document: Path, make: Callable[[re.Match[str]], str] = made) -> None:
    text = document.read_text(encoding="utf-8")
    document.write_text(BLOCK.sub(lambda block: f"{block['head']}{make(block)}```\n", text), encoding="utf-8")


if __name__ == "__main__":
    for path in DOCUMENTS:
        write(path)
