"""Evaluations that are stopped, killed, damaged, or that are several: same tables, nothing asked twice."""

import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caef_data.errors import UserError
from caef_data.eval import results as results_module
from caef_data.eval import rollout as rollout_module
from caef_data.eval import session as session_module
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.backends.ranks import Rank, SharedBackend
from caef_data.eval.calls import Answer, Request
from caef_data.eval.results import ResultStore
from caef_data.eval.session import prepare
from caef_data.eval.settings import STRATEGIES
from caef_data.tests.commands import call, contents, everything, full_disk
from caef_data.tests.evaluating import (
    Counting,
    begun,
    finish,
    judge,
    settings,
    tables_of,
    wrong_at_times,
)


def test_a_stopped_evaluation_goes_on_and_asks_nothing_twice(data: Path, tmp_path: Path) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=6, task=("add", "sub")))
    finish(whole, Counting())
    session = prepare(settings(data, tmp_path / "stopped", limit=6, task=("add", "sub")))
    assert session.tables.run_id == whole.tables.run_id
    asked: list[tuple[str, str]] = []
    for fail_after in (40, 120, None):
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
    assert session.tables.read_finished() is not None and not session.file.parent.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" * len(data), lambda _: b""])
def test_a_file_that_is_damaged_is_made_again(data: Path, tmp_path: Path, damage: Any) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=6, task=("add", "sub")))
    finish(whole, Counting())
    session = prepare(settings(data, tmp_path / "damaged", limit=6, task=("add", "sub")))
    with pytest.raises(KeyboardInterrupt):
        finish(session, Counting(fail_after=100))
    path = session.file
    path.write_bytes(damage(path.read_bytes()))
    finish(session, Counting())
    assert tables_of(session) == tables_of(whole)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # no traceback of a file left open
@pytest.mark.parametrize("stage", ["nothing", "plan", "answers", "tables"])
def test_a_full_disk_loses_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    session = prepare(settings(data, tmp_path / "results", limit=8, task=("add", "sub")))
    words = ("eval", "--backend", "oracle", "--data", data, "--limit", 8, "--task", "add,sub", "--out")
    with begun(
        session if stage == "answers" else prepare(settings(data, tmp_path / "other", limit=8, task=("add", "sub")))
    ) as store:
        size = store.path.stat().st_size
    if stage == "tables":  # all is answered, and the tables are not written
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(session_module, "write_tables", stop)
            finish(session, OracleBackend())
    with full_disk({"nothing": 2_000, "tables": 20_000}.get(stage, size // 2)):
        code, said = call(*words, tmp_path / "results")
    assert code == 2 and said.startswith("the disk is full") and "run the same command again" in said
    assert not [name for name in everything(tmp_path / "results") if "writing" in name]
    assert bool(contents(session.file.parent).get(session.file.name)) == (stage in ("answers", "tables"))
    code, said = call(*words, tmp_path / "results")
    assert code == 0, said
    whole = prepare(settings(data, tmp_path / "whole", limit=8, task=("add", "sub")))
    finish(whole, OracleBackend())
    assert tables_of(session) == tables_of(whole)


def test_a_rollout_that_is_stopped_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_module, "AT_ONCE", 50)
    asked = {"task": ("add", "sub"), "strategy": "rollout"}
    whole = prepare(settings(data, tmp_path / "whole", **asked))
    finish(whole, Counting())

    class Dying(Counting):
        def decode_batches(self, adapter: str, asks: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
            if len(self.switches) > 60:
                raise KeyboardInterrupt
            yield from super().decode_batches(adapter, asks)

    session = prepare(settings(data, tmp_path / "stopped", **asked))
    with pytest.raises(KeyboardInterrupt):
        finish(session, Dying())
    with begun(session) as store:
        assert 0 < (store.finals >= 0).sum() < store.num_problems
    finish(session, Counting())
    assert tables_of(session) == tables_of(whole)
    assert sum(row["final_correct"] for row in tables_of(session)["class_accuracy"] if row["final_correct"]) > 0


SIZE = 40  # questions of a batch


class Slow(Counting):
    """Answers in small batches, each after a while; writes into a file what it is asked."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def verify_batches(self, adapter: str, calls: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        for start in range(0, len(calls), SIZE):
            part = calls[start : start + SIZE]
            self._work("verify", adapter, [call.prompt for call in part])
            yield [(start + index, found) for batch in super().verify_batches(adapter, part) for index, found in batch]

    def decode_batches(self, adapter: str, asks: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        for start in range(0, len(asks), SIZE):
            part = asks[start : start + SIZE]
            self._work("decode", adapter, [ask.prompt for ask in part])
            yield [(start + index, found) for batch in super().decode_batches(adapter, part) for index, found in batch]

    def _work(self, *asked: Any) -> None:
        with self.log.open("a") as log:
            log.write(f"{asked!r}\n")
        time.sleep(results_module.PAUSE)  # as batches of a model: each is on disk before the next one is asked


def _evaluate_slowly(data: Path, out: Path, log: Path, how: dict[str, Any]) -> None:
    finish(prepare(settings(data, out, **how)), Slow(log))


def kill_at_random(data: Path, folder: Path, kills: int, how: dict[str, Any]) -> None:
    """Kill an evaluation at random moments, go on after each, and compare with one that went through."""
    context, chance, log = multiprocessing.get_context("fork"), random.Random(kills), folder / "log"
    started = time.monotonic()
    _evaluate_slowly(data, folder / "whole", folder / "whole.log", how)
    took = time.monotonic() - started
    session, killed = prepare(settings(data, folder / "killed", **how)), 0
    while killed < kills:
        process = context.Process(target=_evaluate_slowly, args=(data, folder / "killed", log, how))
        process.start()
        process.join(chance.uniform(0.1, 0.4) * took)
        assert process.exitcode in (None, 0)
        process.kill()
        process.join()
        if session.tables.read_finished() is not None:  # it came to its end before, if not to its exit
            session.tables.remove()
            log.unlink()
            continue
        killed += 1
        if killed % 5 == 0 or killed == kills:
            finish(session, Slow(log))
            assert tables_of(session) == tables_of(prepare(settings(data, folder / "whole", **how)))
            if how["strategy"] != "rollout":  # what is asked off the track is not kept
                asked = Counter(
                    (kind, adapter, prompt)
                    for kind, adapter, prompts in map(eval, log.read_text().splitlines())
                    for prompt in prompts
                )
                assert sum(asked.values()) - len(asked) <= SIZE * killed
            session.tables.remove()
            log.unlink()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed")
def test_kill_9_at_any_moment(data: Path, tmp_path: Path) -> None:
    kill_at_random(data, tmp_path, 3, {"limit": 4, "task": ("add", "sub"), "strategy": "verify"})


@pytest.mark.long
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_25_kills_at_any_moment(data: Path, tmp_path: Path, strategy: str) -> None:
    kill_at_random(data, tmp_path, 25, {"limit": 6, "strategy": strategy})


def test_a_finished_run_whose_tables_are_damaged_is_evaluated_again(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path / "results", limit=2, task=("add", "sub")))
    words = ("eval", "--backend", "oracle", "--data", data, "--limit", 2, "--task", "add,sub", "--out")
    finish(session, Counting())
    shutil.copytree(tmp_path / "results", tmp_path / "whole")
    whole, row = tables_of(session), session.tables.read_run()
    assert "nothing is asked again" in call(*words, tmp_path / "results")[1]
    damages: tuple[Any, ...] = (Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9]))
    for table, damage in product(("calls", "failures", "problems", "class_accuracy"), damages):
        shutil.rmtree(tmp_path / "results")
        shutil.copytree(tmp_path / "whole", tmp_path / "results")
        damage(max(session.tables.folder(table).glob("*.parquet"), key=lambda path: path.stat().st_size))
        assert session.tables.read_finished() is None, table
        code, said = call(*words, tmp_path / "results")
        assert code == 0 and "damaged or missing" in said and "nothing is asked again" not in said
        now = session.tables.read_finished()
        assert now is not None and row is not None and now["started"] > row["started"]
        assert len(tables_of(session)["calls"]) == len(whole["calls"])  # of an oracle that does not err: no failures
        assert not session.file.parent.exists()
    part = next(session.tables.folder("calls").glob("*.parquet"))
    shutil.copy(part, part.with_name("copy.parquet"))  # too much is as wrong as too little
    assert session.tables.read_finished() is None
    assert call(*words, tmp_path / "results")[0] == 0 and session.tables.read_finished() is not None


def test_what_a_kill_left_of_a_finished_run_is_removed(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path / "results", limit=6))
    finish(session, Counting())
    session.file.parent.mkdir(parents=True)
    before = everything(tmp_path / "results" / "calls")
    code, said = call("eval", "--backend", "oracle", "--data", data, "--limit", 6, "--out", tmp_path / "results")
    assert code == 0 and "nothing is asked again" in said
    assert not session.file.parent.exists() and everything(tmp_path / "results" / "calls") == before


def test_two_evaluations_do_not_mix(data: Path, tmp_path: Path) -> None:
    one = prepare(settings(data, tmp_path, task=("add",), mode=("one_step",)))
    two = prepare(settings(data, tmp_path, task=("sub",), mode=("one_step",)))
    assert one.tables.run_id != two.tables.run_id
    words = ("eval", "--backend", "oracle", "--data", data, "--out", tmp_path, "--mode", "one_step", "--task")
    with begun(one):
        finish(two, Counting())
        with pytest.raises(UserError, match="another process"):
            ResultStore(one.file)
        code, said = call(*words, "add")
        assert code == 2 and said.startswith("this run is being evaluated by another process") and "wait for it" in said
        assert call(*words, "equal")[0] == 0
    finish(one, Counting())
    assert {row["task"] for row in tables_of(one)["class_accuracy"]} == {"add"}
    assert {row["task"] for row in tables_of(two)["class_accuracy"]} == {"sub"}


class Two(Rank):
    """Two processes in one: the second one's share is answered when it is handed out."""

    def __init__(self, other: Counting) -> None:
        super().__init__(0, 2)
        self.__dict__ |= {"other": other, "found": []}

    def hand_out(self, shares: Sequence[Any] = ()) -> Any:
        (way, adapter, asked), found = shares[1], self.__dict__["found"]
        found[:] = [pair for batch in getattr(self.__dict__["other"], way)(adapter, asked) for pair in batch]
        return shares[0]

    def collect(self, own: Any) -> list[Any]:
        return [own, self.__dict__["found"]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_share_the_requests(plan: Path, tmp_path: Path, strategy: str) -> None:
    backends = [Counting() for _ in range(2)]
    found = judge(plan, tmp_path, strategy, SharedBackend(backends[0], Two(backends[1])))
    alone = judge(plan, tmp_path / "alone", strategy, OracleBackend(wrong_at_times))
    counts = [len(backend.asked) for backend in backends]
    asked = {pair for backend in backends for pair in backend.asked}
    assert len(asked) == sum(counts) == (len(alone.correct) if strategy == "verify" else 0)
    assert strategy != "verify" or 0 < min(counts) >= max(counts) - len(found.texts)
    np.testing.assert_array_equal(found.correct, alone.correct)
    np.testing.assert_array_equal(found.finals, alone.finals)
    assert found.texts == alone.texts


def test_a_stopped_run_of_older_rules_is_begun_anew(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path, task=("add",)))
    session.tables.write_run({"status": "unfinished", "rules": session_module.VERSION - 1, "seconds": 1000.0})
    (session.file.parent / "agenda").mkdir(parents=True)
    (session.file.parent / "agenda" / "agenda.json").write_text("{}")
    words = ("eval", "--backend", "oracle", "--data", data, "--out", tmp_path, "--task")
    assert call(*words, "sub")[0] == 0
    before = contents(session.file.parent)
    assert before and call(*words, "equal")[0] == 0 and contents(session.file.parent) == before
    assert call(*words, "add")[0] == 0
    row = session.tables.read_finished()
    assert row is not None and row["seconds"] < 1000 and not session.file.parent.exists()
