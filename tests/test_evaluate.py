"""Evaluation without a model: what is asked, how verdicts become tables, strategies, kills, several at once."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from caef_data import tm
from caef_data.errors import UserError
from caef_data.eval import problems as problems_module
from caef_data.eval import results as results_module
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import Answer, Request
from caef_data.eval.inputs import task_modes
from caef_data.eval.problems import MODES, RAW, Problems, whole_runs
from caef_data.eval.rollout import walk
from caef_data.eval.session import prepare
from caef_data.pipelines.folder import Folder
from caef_data.tests.commands import call
from caef_data.tests.evaluating import (
    OPERATORS,
    Counting,
    finish,
    judge,
    planned,
    reference,
    samples,
    samples_of,
    settings,
    tables_of,
    wrong_at_times,
)

CASES = [("sub", 47, 12), ("mul", 12, 3), ("div", 17, 5), ("add", 9, 99), ("left_mask", 4500, 0), ("less_than", 3, 30)]


@pytest.mark.parametrize("strategy", ["verify", "rollout"])
def test_tables_do_not_depend_on_how_many_calls_are_held_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=4, strategy=strategy))
    finish(whole, Counting())
    monkeypatch.setattr(results_module, "BATCH", 30)  # as an evaluation of many thousand problems: many batches
    monkeypatch.setattr(problems_module, "TOGETHER", 100)
    parts = prepare(settings(data, tmp_path / "parts", limit=4, strategy=strategy))
    finish(parts, Counting())
    assert tables_of(parts) == tables_of(whole)


def runs_of(task: str, mode: str, *pairs: tuple[str, str | None]) -> Problems:
    rows = pa.table({"a": [a for a, _ in pairs], "b": pa.array([b for _, b in pairs], pa.string())})
    [found] = whole_runs(task, mode, "test", rows)
    return found


def pairs_of(task: str) -> list[tuple[str, str | None]]:
    """Return expressions of a task whose runs are not long."""
    found, chance = tm.machine(task), random.Random(task)
    size, count = (2, 6) if task in ("mul", "div") else (8, 30)
    pairs: list[tuple[str, str | None]] = []
    while len(pairs) < count:
        a, b = (chance.randrange(10 ** chance.randint(1, size)) for _ in range(2))
        a = 10 ** len(str(b)) - 1 if task == "reflection" else a
        if found.domain_error(a, b) is None:
            pairs.append((str(a), None if found.unary else str(b)))
    return pairs


@pytest.mark.parametrize("task", tm.tasks())
def test_whole_runs_in_columns_are_those_of_the_machines(task: str) -> None:
    """Every call of many runs at once, those of called machines where they happen; each request in the pool once."""
    pairs = pairs_of(task)
    executed = runs_of(task, "executor", *pairs)
    runs = [one.steps for one in samples_of(executed)]
    assert runs == [tuple(reference(task, int(a), int(b or 0))) for a, b in pairs]
    count = len(executed.requests)
    assert list(dict.fromkeys(executed.steps.tolist())) == list(range(count))  # in the order of their first time
    if tm.machine(task).has_raw:
        processed = runs_of(task, "process", *pairs)
        for (first, *inside, last), run, (a, b) in zip(
            (one.steps for one in samples_of(processed)), runs, pairs, strict=True
        ):
            question, aligner = f"{a}{tm.machine(task).sign}{b}=", f"aligners/{task}"
            assert first == (aligner, task, "aligner_in", None, question, tm.align_in(question))
            assert tuple(inside) == run
            assert last == (aligner, task, "aligner_out", None, *tm.align_out(task, a, b))


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
                for step in (step for one in samples(Folder(data), task, mode, 20) for step in one.steps):
                    assert oracle.answer(step.adapter, step.prompt, "") == step.completion
                    kinds.add(step.kind)
    assert kinds == {"executor", "aligner_in", "aligner_out", "raw"}


def test_the_strategies_agree_on_every_problem(plan: Path, tmp_path: Path) -> None:
    found = {
        strategy: judge(plan, tmp_path / strategy, strategy, OracleBackend(wrong_at_times))
        for strategy in ("verify", "generate", "rollout")
    }
    verified = found["verify"]
    first = {strategy: judged.first_wrong(judged.correct) for strategy, judged in found.items()}
    walked = np.isin(verified.problems.column("mode").to_pylist(), ["executor", "process"])
    assert 20 < (first["verify"] >= 0).sum() < len(walked) - 20
    np.testing.assert_array_equal(first["verify"], first["generate"])
    np.testing.assert_array_equal(first["verify"][walked], first["rollout"][walked])
    for strategy in ("generate", "rollout"):  # what is known of each request, too
        both = found[strategy].tokens > 0
        assert both.sum() > 0.4 * len(both) and (strategy == "rollout" or both.all())
        for name in ("tokens", "completion_tokens", "at"):
            ones, others = (getattr(judged, name)[both] for judged in (verified, found[strategy]))
            np.testing.assert_array_equal(ones, others)
    assert (found["rollout"].finals[walked & (first["rollout"] < 0)] == 1).all()
    assert set(verified.problems.column("task").to_pylist()) == set(OPERATORS)


def test_verify_decodes_only_where_a_problem_first_fails(plan: Path, tmp_path: Path) -> None:
    found = judge(plan, tmp_path, "verify", OracleBackend(wrong_at_times))
    places = found.first_wrong(found.correct)
    first = set(found.flat[places[places >= 0]].tolist())
    also = set[int]()  # behind a request that white space alone makes wrong, the next one that fails
    for start, end in pairwise(found.starts):
        failing = [request for request in found.flat[start:end].tolist() if found.correct[request] != 1]
        blank = list(takewhile(lambda request: found.stripped[request], failing))
        also |= set(failing[: len(blank) + 1])
    decoded = set(np.flatnonzero(found.decoded).tolist())
    assert first <= also <= decoded and len(decoded) <= len(also) + 5 and also - first
    assert not (found.correct == -1).any()
    assert set(found.texts) == decoded
    for problem in np.flatnonzero(places >= 0).tolist()[:50]:
        before = found.flat[found.starts[problem] : places[problem]]
        assert (found.correct[before] == 1).all()


@pytest.mark.parametrize("strategy", ["verify", "generate", "rollout"])
def test_the_published_counting_strips_white_space_at_both_ends(
    data: Path, plan: Path, tmp_path: Path, strategy: str
) -> None:
    def spaced(adapter: str, prompt: str, answer: str) -> str:
        kind = sum(prompt.encode()) % 9
        return {0: answer.strip(), 1: f" {answer}\n\n", 2: answer.replace(" ", "  "), 3: "x"}.get(kind, answer)

    found, oracle = judge(plan, tmp_path, strategy, OracleBackend(spaced)), OracleBackend(spaced)
    pairs = [(task, mode) for task in OPERATORS for mode in MODES]
    exact, stripped = [], []
    for problem in (one for pair in pairs for one in samples(Folder(data), *pair, 8)):
        given = [(oracle.answer(step.adapter, step.prompt, ""), step.completion) for step in problem.steps]
        exact.append(all(text == expected for text, expected in given))
        stripped.append(all(text.strip() == expected.strip() for text, expected in given))
    assert ((found.first_wrong(found.correct) < 0) == exact).all()
    assert ((found.first_wrong(found.stripped) < 0) == stripped).all()
    assert 0 < sum(exact) < sum(stripped) < len(exact)


def test_another_tokenisation_of_the_right_text_is_right(plan: Path, tmp_path: Path) -> None:
    class Otherwise(OracleBackend):
        def verify_batches(self, adapter: str, calls: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
            for batch in super().verify_batches(adapter, calls):
                yield [(index, Answer(False, 1, -0.5, verdict.tokens)) for index, verdict in batch]

    found = judge(plan, tmp_path, "verify", Otherwise())
    assert (found.correct == 1).all() and found.decoded.all()


def test_an_answer_that_does_not_end_is_wrong(plan: Path, tmp_path: Path) -> None:
    class Rambling(OracleBackend):
        def decode_batches(self, adapter: str, asks: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
            for batch in super().decode_batches(adapter, asks):
                yield [(index, replace(answer, ended=False)) for index, answer in batch]

    for strategy in ("generate", "rollout"):
        found = judge(plan, tmp_path / strategy, strategy, Rambling())
        assert not (found.correct == 1).any()
        assert not (found.finals == 1).any()


def test_requests_are_made_once_and_adapters_are_switched_once(plan: Path, tmp_path: Path) -> None:
    backend = Counting(change=lambda adapter, prompt, answer: answer)
    found = judge(plan, tmp_path, "verify", backend)
    assert len(backend.asked) == len(set(backend.asked)) == len(found.correct)
    assert len(found.flat) - len(found.correct) > 500
    assert len(backend.switches) == len(set(backend.switches)) == 16


def answering(*wrong: tuple[str, str]) -> Any:
    """Answer as the machines do, but for some prompts."""
    said = dict(wrong)
    return lambda adapter, prompt, answer: said.get(prompt, answer)


def test_a_rollout_that_strays_onto_anothers_track_takes_nothing_from_it(tmp_path: Path) -> None:
    """1+2 goes on as if it were 12+9; 12+9 is right all the same, and so is the last text of neither else."""
    problems = runs_of("add", "executor", ("1", "2"), ("12", "9"))
    strays, other = (one.steps for one in samples_of(problems))
    backend = OracleBackend(answering((strays[0].prompt, other[1].completion)))
    found = judge(planned(tmp_path / "plan", problems), tmp_path, "rollout", backend)
    assert (found.first_wrong(found.correct) >= 0).tolist() == [True, False]
    assert found.finals.tolist() == [0, 1]


def test_off_the_track_an_answer_may_be_as_long_as_any_of_the_run(tmp_path: Path) -> None:
    """A call is much longer than the prompt that it follows: a run that misread its question still gets through it."""

    class Short(OracleBackend):
        def decode_batches(self, adapter: str, asks: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
            for batch in super().decode_batches(adapter, asks):
                yield [(index, cut(answer, len(asks[index].completion))) for index, answer in batch]

    def cut(answer: Answer, size: int) -> Answer:
        return replace(answer, text=answer.text[:size], ended=len(answer.text) <= size)

    problems, misread = runs_of("sub", "process", ("35", "11")), tm.align_in("35-12=")
    asked: set[str] = set()

    def change(adapter: str, prompt: str, answer: str) -> str:
        asked.add(adapter)
        return misread if prompt == "35-11=" else answer

    found = judge(planned(tmp_path / "plan", problems), tmp_path, "rollout", Short(change))
    assert found.finals.tolist() == [0] and int((found.correct == 1).sum()) == 0
    assert asked == set(problems.requests.column("adapter").to_pylist())  # to the very end


def test_processes_that_torchrun_did_not_start(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    for wrong in ("2", "many"):
        monkeypatch.setenv("WORLD_SIZE", wrong)
        code, said = call("eval", "--backend", "oracle", "--data", data, "--limit", 1, "--out", tmp_path / "out")
        assert code == 2 and "torchrun" in said, said


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
        assert (row["prompt"], row["expected"], row["text"]) == (*steps[step][4:], "?")
        assert row["first_wrong_char"] == 0


def test_classes_that_the_limit_left_out_have_no_accuracy(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path, task=("add",), mode=("executor",), limit=1))
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
    with pytest.raises(UserError, match="the task has no raw text"):
        prepare(settings(data, tmp_path, task=("left_mask",), mode=("process",)))
    with pytest.raises(UserError, match="no stress rows of add\n.*--split stress\n.*\n.*next: +--split test"):
        prepare(settings(data, tmp_path, task=("add",), split="stress"))
    adapters = {"executors/sub": None}  # that of another task: the dataset is fine
    with pytest.raises(UserError, match="no executors/add.*\n.*\n.*\n.*next: +caef-data adapters --task add"):
        task_modes(settings(data, tmp_path, task=("add",)), Folder(data).manifest(), adapters)
    _, notes = task_modes(settings(data, tmp_path), Folder(data).manifest(), {"executors/left_mask": None})
    [told] = [note for note in notes if note.endswith("left out, no adapter is theirs")]
    assert told.startswith("add, div, equal, ") and "left_mask" not in told
    with pytest.raises(UserError, match="there is no dataset here"):
        prepare(settings(tmp_path, tmp_path / "out"))
