"""Results of caef-data 0.1.0 answer as today's do, and ids of runs stay text, wherever they lie and whoever reads them.

``results_0_1_0`` was written by version 0.1.0: a finished run of add and div, and a stopped one with what it knew.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from caef_data.eval.tables import RunTables
from caef_data.tests.commands import call, contents
from caef_data.tests.results_data import RUNS

OLD = Path(__file__).parent / "data" / "results_0_1_0"
FINISHED, STOPPED = "aa6d5b168ec114e1", "b93624dc4558107b"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "sql.md"
LIKE_NUMBERS = ["1234567890123456", "12e4567890123456", "0000000000000001", "1e00000000000000"]


def asked(results: Path, sql: str) -> list[str]:
    code, said = call("query", "--results", results, "--format", "csv", sql)
    assert code == 0, said
    return said.splitlines()[1:]


def test_a_query_answers_on_old_results() -> None:
    runs = asked(OLD, "SELECT run_id, status, name, rules, max_problems, caef_data FROM runs ORDER BY run_id")
    assert runs == [f"{FINISHED},finished,,,12,0.1.0", f"{STOPPED},unfinished,,,,0.1.0"]
    assert asked(OLD, "SELECT run_id, task, sum(correct), sum(n) FROM class_accuracy GROUP BY ALL ORDER BY ALL") == [
        f"{FINISHED},add,12,12",
        f"{FINISHED},div,11,12",
    ]
    assert asked(OLD, "SELECT count(*) FROM problems") == ["0"]
    assert asked(OLD, "SELECT run_id, task, a, b FROM failures") == [f"{FINISHED},div,1200,86"]


def test_a_report_answers_on_old_results(tmp_path: Path) -> None:
    code, said = call("report", "--results", OLD, "--out", tmp_path / "report.html")
    assert code == 0 and "1 run, 2 tasks" in said, said
    assert f"{STOPPED[:8]} is not finished; go on with: caef-data eval" in said
    assert FINISHED[:8] in (tmp_path / "report.html").read_text("utf-8")


def test_a_stopped_run_of_old_rules_is_left_alone(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(OLD, results)
    before = contents(results)
    code, said = call("eval", "--backend", "oracle", "--data", data, "--task", "add", "--limit", 2, "--out", results)
    assert code == 0, said
    assert before.items() <= contents(results).items()
    assert len(asked(results, "FROM runs WHERE name IS NULL")) == 3


@pytest.fixture(scope="module")
def below(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return results below a folder that looks like a partition, of runs whose ids look like numbers."""
    folder = tmp_path_factory.mktemp("below") / "run_id=7" / "results"
    shutil.copytree(results, folder)
    for run, other in zip(RUNS, LIKE_NUMBERS, strict=False):
        for path in folder.glob(f"*/run_id={run.id}"):
            path.rename(path.with_name(f"run_id={other}"))
    return folder


def test_a_query_takes_ids_as_text_from_below_the_results_alone(below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(below.parent.parent)
    for results in (below, Path("run_id=7") / "results"):
        found = asked(results, "SELECT run_id FROM runs ORDER BY run_id")
        assert found == sorted([*LIKE_NUMBERS, RUNS[4].id])
        joined = "SELECT run_id, sum(n) FROM class_accuracy JOIN runs USING (run_id) WHERE name = 'base' GROUP BY ALL"
        assert asked(results, joined) == [f"1e00000000000000,{sum_of(below, '1e00000000000000')}"]


def sum_of(results: Path, run: str) -> int:
    table = RunTables(results, run).read_classes()
    assert table is not None
    return sum(table["n"].to_pylist())


@pytest.mark.parametrize("absolute", [True, False])
def test_other_tools_take_ids_as_text_from_below_the_results_alone(
    below: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if absolute:
        code = code.replace("results/class_accuracy", os.fspath(below / "class_accuracy"))
    else:
        monkeypatch.chdir(below.parent)
    read: dict[str, Any] = {}
    exec(compile(code, "docs/sql.md", "exec"), read)
    for name in ("with_polars", "with_pyarrow", "with_duckdb"):
        ids = read[name]["run_id"].to_pylist() if name == "with_pyarrow" else read[name]["run_id"].to_list()
        assert set(ids) == set(LIKE_NUMBERS), name
        assert all(ids.count(run) == len(list_of(below, run)) for run in LIKE_NUMBERS)


def list_of(results: Path, run: str) -> list[Any]:
    table = RunTables(results, run).read_classes()
    assert table is not None
    return list(table.to_pylist())
