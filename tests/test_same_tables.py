"""Result tables are those that caef-data 0.2.0 wrote, row by row: a model that errs at times, every mode and strategy.

``same_tables.json`` holds the number of rows of each table and a hash of them, recorded with that version.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from caef_data.eval.session import prepare
from caef_data.eval.tables import RunTables
from caef_data.tests.commands import call
from caef_data.tests.evaluating import Counting, finish, settings, tables_of

RECORDED = Path(__file__).parent / "data" / "same_tables.json"
CKPT = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "ckpt"
ORACLE: dict[str, dict[str, Any]] = {
    "verify": {"limit": 6},
    "generate": {"limit": 6, "strategy": "generate"},
    "rollout": {"limit": 6, "strategy": "rollout"},
    "baseline": {"baseline": True, "base_model": "any"},
}
ASKED = ["--task", "add", "--task", "sub", "--limit", 4, "--dtype", "float32", "--batch-tokens", 2048]


def digests(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    """Return the number of rows of each table and their hash; margins, whose last bits a CPU decides, are left out."""
    found = {}
    for table, rows in tables.items():
        told = sorted(json.dumps({**row, "margin": None}, sort_keys=True) for row in rows)
        found[table] = [len(rows), hashlib.sha256("\n".join(told).encode()).hexdigest()]
    return found


def recorded(name: str) -> Any:
    return json.loads(RECORDED.read_text("utf-8"))[name]


def of_oracle(data: Path, out: Path, name: str) -> dict[str, list[Any]]:
    session = prepare(settings(data, out, **ORACLE[name]))
    finish(session, Counting())
    return {"run": session.tables.run_id, **digests(tables_of(session))}  # type: ignore[dict-item]


def of_tiny(smoke: Path, out: Path) -> dict[str, list[Any]]:
    code, said = call("eval", "--adapters", CKPT, "--data", smoke, *ASKED, "--out", out)
    assert code == 0, said
    [run] = (out / "calls").iterdir()

    class Of:
        tables = RunTables(out, run.name.partition("=")[2])

    return digests(tables_of(Of))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ORACLE)
def test_tables_of_a_model_that_errs_are_those_of_0_2_0(data: Path, tmp_path: Path, name: str) -> None:
    assert of_oracle(data, tmp_path, name) == recorded(name)


@pytest.mark.long
def test_tables_of_the_tiny_adapters_are_those_of_0_2_0(smoke: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the tiny model needs peft")
    assert of_tiny(smoke, tmp_path) == recorded("tiny")
