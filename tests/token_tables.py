"""What rows cost in real vocabularies, as ``caef-data tokens`` counts it.

``python -m caef_data.tests.token_tables`` writes the table of docs/training.md anew.
"""

import json
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from caef_data.cli import app
from caef_data.tests.real_vocabularies import VOCABULARIES, vocabulary

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BLOCK = re.compile(r"(?<=<!-- tokens: -->\n\n).*?(?=\n\n<!-- /tokens -->)", re.DOTALL)
ROWS, DIGITS, LIMIT = 40, (10, 50, 100), "1024"  # rows of each task; digits of both operands
VIEWS = ("one_step", "full", "aligner", "raw", "commands")
LINES = [*((view, "second") for view in VIEWS), ("one_step", "first")]


@cache
def counted(name: str, digits: int, stage: str, view: str) -> dict[str, Any]:
    """Return what the command says of rows of all tasks."""
    with tempfile.TemporaryDirectory() as folder:
        declared = {"task": "all", "min": digits, "max": digits, "num": ROWS, "views": [view], "splits": ["train"]}
        path = Path(folder, "rows.toml")
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in declared.items()))
        words = ["tokens", path, "--tokenizer", vocabulary(name), "--rows", ROWS, "--stage", stage, "--json"]
        result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def cell(name: str, digits: int, stage: str, view: str) -> str:
    """Return the mean and the longest."""
    configs = counted(name, digits, stage, view)["configs"]
    tokens, rows = sum(one["mean"] * one["counted"] for one in configs), sum(one["counted"] for one in configs)
    assert not any(one["unspelled"] for one in configs)
    return f"{tokens / rows:,.0f} ({max(one['longest'] for one in configs):,})"


def cut(name: str, stage: str, view: str) -> str:
    """Return the part of the longest rows that a limit would cut."""
    configs = counted(name, DIGITS[-1], stage, view)["configs"]
    return f"{sum(one['over'][LIMIT] for one in configs) / sum(one['counted'] for one in configs):.0%}"


def table() -> str:
    """Return the table."""
    lines = [["rows", "digits", *VOCABULARIES], ["---"] * (2 + len(VOCABULARIES))]
    for view, stage in LINES:
        told = f"`{view}`{', with the instruction' if stage == 'first' else ''}"
        for digits in DIGITS:
            lines.append([told, str(digits), *(cell(name, digits, stage, view) for name in VOCABULARIES)])
            print(*lines[-1], flush=True)
        lines.append([told, "100, over 1,024", *(cut(name, stage, view) for name in VOCABULARIES)])
    for told, where in (("a digit on a tape", "tape"), ("a digit in a number", "number")):
        costs = [counted(name, DIGITS[0], "second", "raw")["tokens_a_digit"][where] for name in VOCABULARIES]
        lines.append([told, "", *(f"{cost:.2f}" for cost in costs)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    made = table()
    DOCUMENT.write_text(BLOCK.sub(lambda _: made, DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
