"""A small frozen dataset: digests of its rows anchor the text, the split function, the sampling and the order of rows.

``python tests/test_frozen.py`` makes ``frozen.json`` anew. That belongs to a change that is meant to change rows: raise
a version in ``pipelines/versions.py`` and say what changed in ``CHANGELOG.md``.
"""

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import parse_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.versions import rules

ROOT = Path(__file__).resolve().parents[1]
FROZEN = Path(__file__).with_name("frozen.json")
NINE = ["add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask"]
COMMON = f"""
splits = ["train", "test", "stress"]
views = ["one_step", "full", "aligner", "raw", "scratchpad", "commands"]
task = {json.dumps(NINE)}
"""
DECLARATIONS = {
    "short": f"min = 1\nmax = 3\nnum = 3{COMMON}",
    "long": f"min = 23\nmax = 25\nnum = 2\nnum_test = 1{COMMON}",
    "published": f'min = 1\nmax = 7\nnum = 1\nseed = 7\nbalance = false\ndialect = "published"{COMMON}',
    "every step": 'max = 3\nnum = 2\nsteps = "all"\nmax_steps = 500\nviews = ["one_step"]\ntask = ["add", "left_mask"]',
    "shards": 'max = 6\nnum = 20\nrows_per_shard = 300\nviews = ["one_step", "raw"]\ntask = ["less_than", "div"]',
    "slips": f'max = 4\nnum = 1\nsplits = ["train", "test", "stress"]\nviews = ["slips"]\ntask = {json.dumps(NINE)}',
}
MESSAGE = """
The rows of {name} changed: {what}.
Every dataset built before holds other rows than one built now. If that is meant, change together:
a version constant in pipelines/versions.py, a line in CHANGELOG.md, and frozen.json (python tests/test_frozen.py).
"""


def digests(name: str, folder: Path) -> dict[str, str]:
    """Build a declaration; return digest (over the JSON lines of the rows in order) and rows of every config, split."""
    build(make_plan(parse_declaration(DECLARATIONS[name])), folder, workers=1)
    found = {}
    for config in sorted(folder.glob("*-*/")):
        for split in ("train", "test", "stress"):
            rows = [
                row for path in sorted(config.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()
            ]
            lines = [json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows]
            if rows:
                digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:24]
                found[f"{config.name} {split}"] = f"{digest} {len(rows)} rows"
    return found


def make() -> dict[str, Any]:
    found = {}
    for name in DECLARATIONS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = digests(name, Path(folder) / "data")
    return {"versions": rules(), "rows": found}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_rows_are_frozen(name: str, tmp_path: Path) -> None:
    frozen = json.loads(FROZEN.read_text())["rows"][name]
    found = digests(name, tmp_path / "data")
    changed = sorted(key for key in {*frozen, *found} if frozen.get(key) != found.get(key))
    shown = ", ".join(changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
    assert not changed, MESSAGE.format(name=name, what=f"{len(changed)} of {len(frozen)}: {shown}")


def test_everything_is_frozen() -> None:
    frozen = json.loads(FROZEN.read_text())["rows"]
    assert set(frozen) == set(DECLARATIONS)
    helpers = ("reflection", "left_mask")  # they have no raw text
    for name in ("short", "long", "published"):
        for task in NINE:
            for view in ("one_step", "full", "aligner", "raw", "scratchpad", "commands"):
                for split in ("train", "test", "stress"):
                    there = f"{task}-{view} {split}" in frozen[name]
                    # the families of stress need lengths and operands that not every task has
                    assert there == (task not in helpers or view not in ("aligner", "raw")) or split == "stress"
    assert sum(key.endswith("stress") for key in frozen["short"]) == 50


def test_versions_go_with_the_rows() -> None:
    made_with = json.loads(FROZEN.read_text())["versions"]
    assert made_with == rules(), "frozen.json was made with other version constants: python tests/test_frozen.py"
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for name, number in rules().items():
        assert re.search(rf"\b{name} {number}\b", changelog), f"CHANGELOG.md says nothing of {name} {number}"


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(make(), indent=1) + "\n")
    print(f"wrote {FROZEN}: raise a version in pipelines/versions.py and say in CHANGELOG.md what changed")
