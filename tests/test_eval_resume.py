"""Evaluations that are stopped, killed, damaged, or that are several: same tables, nothing asked twice."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caef_data.errors import UserError
from caef_data.eval import agenda as agenda_module
from caef_data.eval import rollout as rollout_module
from caef_data.eval.agenda import Agenda
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import Answer, Ask, Call, Verdict
from caef_data.eval.evaluate import Share, evaluate
from caef_data.eval.kept import UNKNOWN, Kept
from caef_data.eval.session import Session, agenda_of, one_at_a_time, prepare
from caef_data.tests.commands import call, everything, full_disk
from caef_data.tests.evaluating import (
    Counting,
    finish,
    judge,
    settings,
    tables_of,
    wrong_at_times,
)


def test_a_stopped_evaluation_goes_on_and_asks_nothing_twice(data: Path, tmp_path: Path) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=6))
    finish(whole, Counting())
    session = prepare(settings(data, tmp_path / "stopped", limit=6))
    assert session.tables.run_id == whole.tables.run_id
    asked: list[tuple[str, str]] = []
    for fail_after in (100, 300, None):
        backend = Counting(fail_after=fail_after)
        if fail_after is None:
            finish(session, backend)
        else:
            with pytest.raises(KeyboardInterrupt):
                finish(session, backend)
            row = session.tables.read_run()
            assert row is not None and row["status"] == "unfinished" and session.tables.read_finished() is None
        asked += backend.asked
    assert len(asked) == len(set(asked))
    assert tables_of(session) == tables_of(whole)
    assert session.tables.read_finished() is not None and not session.work.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" * len(data), lambda _: b""])
def test_notes_that_are_damaged_are_made_again(data: Path, tmp_path: Path, damage: Any) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=6))
    finish(whole, Counting())
    session = prepare(settings(data, tmp_path / "damaged", limit=6))
    with pytest.raises(KeyboardInterrupt):
        finish(session, Counting(fail_after=300))
    spoil(session, damage, {"agenda", "kept"})
    finish(session, Counting())
    assert tables_of(session) == tables_of(whole)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # no traceback of a file left open
@pytest.mark.parametrize("most", [2_000, 8_000, 20_000])  # in the agenda; there too; in the tables, all answered
def test_a_full_disk_loses_nothing(data: Path, tmp_path: Path, most: int) -> None:
    words = ("eval", "--backend", "oracle", "--data", data, "--limit", 20, "--out", tmp_path / "results")
    with full_disk(most):
        code, said = call(*words)
    assert code == 2 and said.startswith("the disk is full") and "run the same command again" in said
    left = [name for name in everything(tmp_path / "results") if "writing" in name]
    assert not left
    code, said = call(*words)
    assert code == 0, said
    whole = prepare(settings(data, tmp_path / "whole", limit=20))
    finish(whole, OracleBackend())
    assert tables_of(prepare(settings(data, tmp_path / "results", limit=20))) == tables_of(whole)


def test_a_limit_on_files_is_a_full_disk_to_the_numbers_of_calls_too(tmp_path: Path) -> None:
    keys = (number.to_bytes(16, "big") for number in range(200_000))  # more than wait in memory
    numbers = agenda_module._Numbers(tmp_path / "numbers.db")
    with full_disk(100_000), pytest.raises(OSError) as error:
        for key in keys:
            numbers.of(key)
    assert error.value.errno == errno.ENOSPC
    numbers.remove()


def spoil(session: Session, damage: Any, folders: set[str]) -> None:
    notes = [path for path in session.work.rglob("*.parquet") if path.parent.name in folders]
    assert {path.parent.name for path in notes} == folders
    for path in notes:
        path.write_bytes(damage(path.read_bytes()))


@pytest.mark.parametrize("folders", [{"kept"}, {"finals"}, {"kept", "finals"}])
def test_a_rollout_whose_notes_are_damaged_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: set[str]
) -> None:
    monkeypatch.setattr(rollout_module, "AT_ONCE", 50)
    asked = {"task": ("add", "sub"), "strategy": "rollout"}
    whole = prepare(settings(data, tmp_path / "whole", **asked))
    finish(whole, Counting())

    class Dying(Counting):
        def decode(self, adapter: str, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer]]:
            if any(session.work.glob("finals/*.parquet")):
                raise KeyboardInterrupt
            yield from super().decode(adapter, asks)

    session = prepare(settings(data, tmp_path / "damaged", **asked))
    with pytest.raises(KeyboardInterrupt):
        finish(session, Dying())
    spoil(session, lambda data: data[:-40], folders)
    finish(session, Counting())
    assert tables_of(session) == tables_of(whole)
    assert sum(row["final_correct"] for row in tables_of(session)["class_accuracy"] if row["final_correct"]) > 0


def _evaluate_slowly(data: Path, out: Path) -> None:
    class Slow(Counting):
        def verify(self, adapter: str, calls: Sequence[Call]) -> Iterator[tuple[int, Verdict]]:
            for found in super().verify(adapter, calls):
                time.sleep(0.001)
                yield found

    import caef_data.eval.kept as module

    module.EVERY = 0.02
    finish(prepare(settings(data, out, limit=6)), Slow())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed")
def test_kill_9_at_any_moment(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    context = multiprocessing.get_context("fork")
    session = prepare(settings(data, out, limit=6))
    known = 0
    for wait in (0.3, 0.5, 0.7):
        process = context.Process(target=_evaluate_slowly, args=(data, out))
        process.start()
        time.sleep(wait)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if (session.work / "agenda").is_dir():
            kept = Kept(session.work / "kept", agenda_of(session, Share()).num_calls)
            now = int((kept.right != UNKNOWN).sum())
            assert now >= known
            known = now
    if session.tables.read_finished() is None:
        finish(session, Counting())
    whole = prepare(settings(data, tmp_path / "whole", limit=6))
    finish(whole, Counting())
    assert tables_of(session) == tables_of(whole)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
@pytest.mark.parametrize("table", ["calls", "failures", "problems", "class_accuracy"])
def test_a_finished_run_whose_tables_are_damaged_is_evaluated_again(
    data: Path, tmp_path: Path, table: str, damage: Any
) -> None:
    session = prepare(settings(data, tmp_path / "results", limit=6))
    finish(session, Counting())
    whole, row = tables_of(session), session.tables.read_run()
    words = ("eval", "--backend", "oracle", "--data", data, "--limit", 6, "--out", tmp_path / "results")
    assert "nothing is asked again" in call(*words)[1]
    damage(max(session.tables.folder(table).glob("*.parquet"), key=lambda path: path.stat().st_size))
    assert session.tables.read_finished() is None
    code, said = call(*words)
    assert code == 0 and "damaged or missing" in said and "nothing is asked again" not in said
    now = session.tables.read_finished()
    assert now is not None and row is not None and now["started"] > row["started"]
    assert len(tables_of(session)["calls"]) == len(whole["calls"])  # of an oracle that does not err: no failures
    assert not session.work.exists()
    part = next(session.tables.folder("calls").glob("*.parquet"))
    shutil.copy(part, part.with_name("copy.parquet"))  # too much is as wrong as too little
    assert session.tables.read_finished() is None
    assert call(*words)[0] == 0 and session.tables.read_finished() is not None


def test_what_a_kill_left_of_a_finished_run_is_removed(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path / "results", limit=6))
    finish(session, Counting())
    (session.work / "agenda").mkdir(parents=True)
    before = everything(tmp_path / "results" / "calls")
    code, said = call("eval", "--backend", "oracle", "--data", data, "--limit", 6, "--out", tmp_path / "results")
    assert code == 0 and "nothing is asked again" in said
    assert not session.work.exists() and everything(tmp_path / "results" / "calls") == before


def test_two_evaluations_do_not_mix(data: Path, tmp_path: Path) -> None:
    one = prepare(settings(data, tmp_path, task=("add",), mode=("one_step",)))
    two = prepare(settings(data, tmp_path, task=("sub",), mode=("one_step",)))
    assert one.tables.run_id != two.tables.run_id
    with one_at_a_time(one):
        finish(two, Counting())
        with pytest.raises(UserError, match="another process"), one_at_a_time(one):
            pass
    finish(one, Counting())
    assert {row["task"] for row in tables_of(one)["class_accuracy"]} == {"add"}
    assert {row["task"] for row in tables_of(two)["class_accuracy"]} == {"sub"}


def test_several_processes_share_the_calls(agenda: Agenda, tmp_path: Path) -> None:
    import threading

    barrier = threading.Barrier(3, timeout=60)
    backends = [Counting() for _ in range(3)]
    found: dict[int, Kept] = {}

    def work(rank: int) -> None:
        kept = found[rank] = Kept(tmp_path / "kept", agenda.num_calls, rank)
        share = Share(rank, 3, barrier.wait)  # type: ignore[arg-type]
        evaluate(agenda, kept, backends[rank], verify=True, share=share, progress=lambda kept: None)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    alone, _ = judge(agenda, tmp_path / "alone", "verify", OracleBackend(wrong_at_times))
    asked = [pair for backend in backends for pair in backend.asked]
    assert len(asked) == len(set(asked)) == agenda.num_calls
    for rank in range(3):
        np.testing.assert_array_equal(found[rank].right, alone.right)
