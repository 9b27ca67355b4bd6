"""Evaluation without a model: what is asked, how verdicts become tables, strategies, kills, several at once."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caef_data import tm
from caef_data.errors import UserError
from caef_data.eval.agenda import Agenda, write_agenda
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import Answer, Ask, Call, Verdict
from caef_data.eval.evaluate import Share, evaluate, first_failing_places
from caef_data.eval.kept import RIGHT, UNKNOWN, Kept
from caef_data.eval.rollout import roll_out
from caef_data.eval.runs import MODES, RAW, read_problems, reference, walk
from caef_data.eval.session import Session, agenda_of, one_at_a_time, prepare, run
from caef_data.eval.settings import EvalSettings
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.local_folder import LocalFolder
from caef_data.pipelines.plan import make_plan

OPERATORS = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than")
CASES = [("sub", 47, 12), ("mul", 12, 3), ("div", 17, 5), ("add", 9, 99), ("left_mask", 4500, 0), ("less_than", 3, 30)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "data"
    build(make_plan(from_flags(["all"], min=1, max=2, num=2, num_test=2)), out, workers=1)
    return out


@pytest.fixture(scope="module")
def agenda(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Agenda:
    folder = LocalFolder(data)
    pairs = [(task, mode) for task in OPERATORS for mode in MODES]
    problems = (one for task, mode in pairs for one in read_problems(folder, task, mode, "test", 8))
    return write_agenda(tmp_path_factory.mktemp("agenda") / "agenda", problems)


def wrong_at_times(adapter: str, prompt: str, answer: str) -> str:
    """Err at about one prompt in forty: another digit, a line too many or too few, nothing, a call to nowhere."""
    key = hashlib.sha256(f"{adapter}{prompt}".encode()).digest()
    if key[0] >= 7:
        return answer
    damaged = (
        answer.replace("1", "2", 1) + ("" if "1" in answer else "x"),
        answer + "\n",
        answer[:-1],
        "",
        answer.replace("REFLECTION", "NOWHERE") + " ",
        "\n".join(answer.split("\n")[:2]) + "\n..\n/x, q0, |1\n",
    )
    return damaged[key[1] % len(damaged)]


class Counting(OracleBackend):
    """Counts what it is asked; can be told to break down."""

    def __init__(self, *, change: Any = wrong_at_times, fail_after: int | None = None) -> None:
        super().__init__(change)
        self.asked: list[tuple[str, str]] = []
        self.switches: list[str] = []
        self.fail_after = fail_after

    def verify(self, adapter: str, calls: Sequence[Call]) -> Iterator[tuple[int, Verdict]]:
        self.switches.append(adapter)
        for index, verdict in super().verify(adapter, calls):
            if self.fail_after is not None and len(self.asked) >= self.fail_after:
                raise KeyboardInterrupt
            self.asked.append((adapter, calls[index].prompt))
            yield index, verdict

    def decode(self, adapter: str, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer]]:
        self.switches.append(adapter)
        yield from super().decode(adapter, asks)


def judge(agenda: Agenda, folder: Path, strategy: str, backend: OracleBackend) -> tuple[Kept, Any]:
    kept, finals = Kept(folder / "kept", agenda.num_calls), None
    common: dict[str, Any] = {"share": Share(), "progress": lambda kept: None}
    if strategy == "rollout":
        finals = roll_out(agenda, kept, backend, known=agenda.adapters, **common).right
    else:
        evaluate(agenda, kept, backend, verify=strategy == "verify", **common)
    kept.flush()
    return kept, finals


@pytest.mark.parametrize(("task", "a", "b"), CASES)
def test_a_perfect_model_is_asked_what_the_machines_say(task: str, a: int, b: int) -> None:
    steps = list(reference(task, a, b))
    answers = {(step.adapter, step.prompt): step.completion for step in steps}
    walking, asked = walk(task, "executor", steps[0].prompt), []
    question = next(walking)
    with pytest.raises(StopIteration) as end:
        while True:
            asked.append(question)
            question = walking.send(answers[question])
    assert asked == [(step.adapter, step.prompt) for step in steps]
    assert end.value.value == tm.machine(task).halted(a, b) == steps[-1].completion


def test_the_oracle_answers_every_kind_of_question_without_being_told(data: Path) -> None:
    oracle, kinds = OracleBackend(), set()
    for task in tm.tasks():
        for mode in (*MODES, RAW):
            if mode in ("one_step", "executor") or tm.machine(task).has_raw:
                for problem in read_problems(LocalFolder(data), task, mode, "test", 20):
                    for step in problem.steps:
                        assert oracle.answer(step.adapter, step.prompt, "") == step.completion
                        kinds.add(step.kind)
    assert kinds == {"executor", "aligner_in", "aligner_out", "raw"}


def test_the_strategies_agree_on_every_problem(agenda: Agenda, tmp_path: Path) -> None:
    found = {}
    for strategy in ("verify", "generate", "rollout"):
        kept, finals = judge(agenda, tmp_path / strategy, strategy, OracleBackend(wrong_at_times))
        found[strategy] = first_failing_places(agenda, kept.right)
    walked = np.isin(agenda.problems.column("mode").to_pylist(), ["executor", "process"])
    assert 20 < (found["verify"] >= 0).sum() < agenda.num_problems - 20
    np.testing.assert_array_equal(found["verify"], found["generate"])
    np.testing.assert_array_equal(found["verify"][walked], found["rollout"][walked])
    assert finals is not None
    right = found["rollout"] < 0
    assert (finals[walked & right] == RIGHT).all()
    assert set(agenda.problems.column("task").to_pylist()) == set(OPERATORS)


def test_verify_decodes_only_where_a_problem_first_fails(agenda: Agenda, tmp_path: Path) -> None:
    kept, _ = judge(agenda, tmp_path, "verify", OracleBackend(wrong_at_times))
    places = first_failing_places(agenda, kept.right)
    first = set(agenda.flat[places[places >= 0]].tolist())
    assert set(np.flatnonzero(kept.decoded).tolist()) == first
    assert not (kept.right == UNKNOWN).any()
    texts = {call: text for call, text, _ in kept.texts()}
    assert set(texts) == first
    for problem in np.flatnonzero(places >= 0).tolist()[:50]:
        before = agenda.flat[agenda.starts[problem] : places[problem]]
        assert (kept.right[before] == RIGHT).all()


def test_another_tokenisation_of_the_right_text_is_right(agenda: Agenda, tmp_path: Path) -> None:
    class Otherwise(OracleBackend):
        def verify(self, adapter: str, calls: Sequence[Call]) -> Iterator[tuple[int, Verdict]]:
            for index, verdict in super().verify(adapter, calls):
                yield index, Verdict(False, 1, -0.5, verdict.tokens)

    kept, _ = judge(agenda, tmp_path, "verify", Otherwise())
    assert (kept.right == RIGHT).all() and kept.decoded.all()


def test_an_answer_that_does_not_end_is_wrong(agenda: Agenda, tmp_path: Path) -> None:
    class Rambling(OracleBackend):
        def decode(self, adapter: str, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer]]:
            for index, answer in super().decode(adapter, asks):
                yield index, Answer(answer.text, False, answer.tokens)

    for strategy in ("generate", "rollout"):
        kept, finals = judge(agenda, tmp_path / strategy, strategy, Rambling())
        assert not (kept.right == RIGHT).any()
        assert finals is None or not (finals == RIGHT).any()


def test_calls_are_asked_once_and_adapters_are_switched_once(agenda: Agenda, tmp_path: Path) -> None:
    backend = Counting(change=lambda adapter, prompt, answer: answer)
    judge(agenda, tmp_path, "verify", backend)
    assert len(backend.asked) == len(set(backend.asked)) == agenda.num_calls
    assert agenda.num_repeated > 500
    assert len(backend.switches) == len(set(backend.switches)) == len(agenda.adapters)


def settings(data: Path, out: Path, **more: Any) -> EvalSettings:
    return EvalSettings(data=str(data), out=str(out), backend="oracle", **more)


def finish(session: Session, backend: OracleBackend) -> Any:
    with one_at_a_time(session):
        return run(session, agenda_of(session, Share()), backend, Share(), lambda kept: None, "caef-data eval")


def tables_of(session: Session) -> dict[str, list[dict[str, Any]]]:
    tables = session.tables
    found = {}
    for table in ("calls", "class_accuracy", "failures"):
        parts = [tables.read_part(table, part) for part in tables.parts(table)]
        rows = [row for part in parts if part is not None for row in part.to_pylist()]
        found[table] = sorted(rows, key=str)
    return found


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
            assert row is not None and row["status"] == "unfinished" and session.finished() is None
        asked += backend.asked
    assert len(asked) == len(set(asked))
    assert tables_of(session) == tables_of(whole)
    assert session.finished() is not None and not session.work.exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" * len(data), lambda _: b""])
def test_notes_that_are_damaged_are_made_again(data: Path, tmp_path: Path, damage: Any) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=6))
    finish(whole, Counting())
    session = prepare(settings(data, tmp_path / "damaged", limit=6))
    with pytest.raises(KeyboardInterrupt):
        finish(session, Counting(fail_after=300))
    notes = [path for path in session.work.rglob("*.parquet")]
    assert len({path.parent for path in notes}) == 2  # agenda, kept
    for path in notes:
        path.write_bytes(damage(path.read_bytes()))
    finish(session, Counting())
    assert tables_of(session) == tables_of(whole)


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
    if session.finished() is None:
        finish(session, Counting())
    whole = prepare(settings(data, tmp_path / "whole", limit=6))
    finish(whole, Counting())
    assert tables_of(session) == tables_of(whole)


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


def test_a_failure_names_the_first_failing_call(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path, task=("sub",), mode=("executor",)))
    finish(session, Counting(change=lambda adapter, prompt, answer: answer if adapter != "executors/add" else "?"))
    rows = tables_of(session)["failures"]
    accuracy = tables_of(session)["class_accuracy"]
    assert rows and sum(row["n"] for row in accuracy) == len(rows) and not any(row["correct"] for row in accuracy)
    for row in rows:
        steps = list(reference("sub", int(row["a"]), int(row["b"])))
        step = next(index for index, one in enumerate(steps) if one.adapter == "executors/add")
        assert (row["step"], row["num_calls"], row["adapter"]) == (step, len(steps), "executors/add")
        assert (row["prompt"], row["expected"], row["text"]) == (steps[step].prompt, steps[step].completion, "?")
        assert row["first_wrong_char"] == 0


def test_classes_that_the_limit_left_out_have_no_accuracy(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path, task=("add",), mode=("one_step",), limit=1))
    finish(session, Counting())
    rows = tables_of(session)["class_accuracy"]
    assert sum(row["n"] for row in rows) == 1 and len(rows) == 4
    assert all((row["accuracy"] is None) == (row["n"] == 0) for row in rows)


def test_damaged_rows_are_refused_before_a_model_is_loaded(data: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    shard = next((copy / "add-one_step").glob("test-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    with pytest.raises(UserError, match="not what the manifest says"):
        prepare(settings(copy, tmp_path / "out", task=("add",), mode=("one_step",)))


def test_what_cannot_be_evaluated_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no train rows of add-full"):
        prepare(settings(data, tmp_path, task=("add",), mode=("executor",), split="train"))
    with pytest.raises(UserError, match="it has no raw text"):
        prepare(settings(data, tmp_path, task=("left_mask",), mode=("process",)))
    with pytest.raises(UserError, match="no finished dataset"):
        prepare(settings(tmp_path, tmp_path / "out"))
