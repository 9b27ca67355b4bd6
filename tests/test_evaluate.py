"""Evaluation without a model: what is asked, how verdicts become tables, strategies, kills, several at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caef_data import tm
from caef_data.errors import UserError
from caef_data.eval import agenda as agenda_module
from caef_data.eval import kept as kept_module
from caef_data.eval.agenda import Agenda, write_agenda
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import Answer, Ask, Call, Verdict
from caef_data.eval.evaluate import first_failing_places
from caef_data.eval.kept import RIGHT, UNKNOWN
from caef_data.eval.runs import MODES, RAW, Problem, read_problems, reference, steps_of, walk
from caef_data.eval.session import prepare
from caef_data.pipelines.folder import Folder
from caef_data.tests.commands import call
from caef_data.tests.evaluating import (
    OPERATORS,
    Counting,
    finish,
    judge,
    settings,
    tables_of,
    wrong_at_times,
)

CASES = [("sub", 47, 12), ("mul", 12, 3), ("div", 17, 5), ("add", 9, 99), ("left_mask", 4500, 0), ("less_than", 3, 30)]


@pytest.mark.parametrize("strategy", ["verify", "rollout"])
def test_tables_do_not_depend_on_how_many_calls_are_held_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    whole = prepare(settings(data, tmp_path / "whole", limit=8, strategy=strategy))
    finish(whole, Counting())
    monkeypatch.setattr(agenda_module, "WINDOW", 30)  # as an evaluation of many thousand problems: many row groups
    monkeypatch.setattr(kept_module, "MOST", 30)
    parts = prepare(settings(data, tmp_path / "parts", limit=8, strategy=strategy))
    finish(parts, Counting())
    assert tables_of(parts) == tables_of(whole)


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
                for problem in read_problems(Folder(data), task, mode, "test", 20):
                    for step in problem.steps:
                        assert oracle.answer(step.adapter, step.prompt, "") == step.completion
                        kinds.add(step.kind)
    assert kinds == {"executor", "aligner_in", "aligner_out", "raw"}


def test_the_strategies_agree_on_every_problem(agenda: Agenda, tmp_path: Path) -> None:
    found, results = {}, {}
    for strategy in ("verify", "generate", "rollout"):
        kept, finals = judge(agenda, tmp_path / strategy, strategy, OracleBackend(wrong_at_times))
        found[strategy] = first_failing_places(agenda, kept.right)
        results[strategy] = kept
    walked = np.isin(agenda.problems.column("mode").to_pylist(), ["executor", "process"])
    assert 20 < (found["verify"] >= 0).sum() < agenda.num_problems - 20
    np.testing.assert_array_equal(found["verify"], found["generate"])
    np.testing.assert_array_equal(found["verify"][walked], found["rollout"][walked])
    for other in ("generate", "rollout"):  # what is known of each call, too
        both = results[other].tokens > 0
        assert both.sum() > 0.4 * agenda.num_calls and (other == "rollout" or both.all())
        for name in ("tokens", "completion_tokens", "at"):
            ones, others = (getattr(results[strategy], name)[both] for strategy in ("verify", other))
            np.testing.assert_array_equal(ones, others)
    assert finals is not None
    right = found["rollout"] < 0
    assert (finals[walked & right] == RIGHT).all()
    assert set(agenda.problems.column("task").to_pylist()) == set(OPERATORS)


def test_verify_decodes_only_where_a_problem_first_fails(agenda: Agenda, tmp_path: Path) -> None:
    kept, _ = judge(agenda, tmp_path, "verify", OracleBackend(wrong_at_times))
    places = first_failing_places(agenda, kept.right)
    first = set(agenda.flat[places[places >= 0]].tolist())
    also = set[int]()  # behind a call that white space alone makes wrong, the next one that fails
    for start, end in zip(agenda.starts[:-1], agenda.starts[1:], strict=True):
        failing = [call for call in agenda.flat[start:end].tolist() if kept.right[call] != RIGHT]
        blank = list(takewhile(lambda call: kept.stripped[call], failing))
        also |= set(failing[: len(blank) + 1])
    decoded = set(np.flatnonzero(kept.decoded).tolist())
    assert first <= also <= decoded and len(decoded) <= len(also) + 5 and also - first
    assert not (kept.right == UNKNOWN).any()
    texts = {call: text for call, text, _ in kept.texts()}
    assert set(texts) == decoded
    for problem in np.flatnonzero(places >= 0).tolist()[:50]:
        before = agenda.flat[agenda.starts[problem] : places[problem]]
        assert (kept.right[before] == RIGHT).all()


@pytest.mark.parametrize("strategy", ["verify", "generate", "rollout"])
def test_the_published_counting_strips_white_space_at_both_ends(
    data: Path, agenda: Agenda, tmp_path: Path, strategy: str
) -> None:
    def spaced(adapter: str, prompt: str, answer: str) -> str:
        kind = sum(prompt.encode()) % 9
        return {0: answer.strip(), 1: f" {answer}\n\n", 2: answer.replace(" ", "  "), 3: "x"}.get(kind, answer)

    kept, _ = judge(agenda, tmp_path, strategy, OracleBackend(spaced))
    oracle = OracleBackend(spaced)
    pairs = [(task, mode) for task in OPERATORS for mode in MODES]
    problems = [one for task, mode in pairs for one in read_problems(Folder(data), task, mode, "test", 8)]
    exact, stripped = [], []
    for problem in problems:
        given = [(oracle.answer(step.adapter, step.prompt, ""), step.completion) for step in problem.steps]
        exact.append(all(text == expected for text, expected in given))
        stripped.append(all(text.strip() == expected.strip() for text, expected in given))
    assert ((first_failing_places(agenda, kept.right) < 0) == exact).all()
    assert ((first_failing_places(agenda, kept.stripped) < 0) == stripped).all()
    assert 0 < sum(exact) < sum(stripped) < len(problems)


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
                yield index, replace(answer, ended=False)

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


def answering(*wrong: tuple[str, str]) -> Any:
    """Answer as the machines do, but for some prompts."""
    said = dict(wrong)
    return lambda adapter, prompt, answer: said.get(prompt, answer)


def test_a_rollout_that_strays_onto_anothers_track_takes_nothing_from_it(tmp_path: Path) -> None:
    """1+2 goes on as if it were 12+9; 12+9 is right all the same, and so is the last text of neither else."""
    strays, other = list(reference("add", 1, 2)), list(reference("add", 12, 9))
    problems = [
        Problem("add", "executor", "test", "consistent", "any", a, b, len(a), len(b), tuple(steps))
        for a, b, steps in (("1", "2", strays), ("12", "9", other))
    ]
    found = write_agenda(tmp_path / "agenda", problems)
    backend = OracleBackend(answering((strays[0].prompt, other[1].completion)))
    kept, finals = judge(found, tmp_path, "rollout", backend)
    assert (first_failing_places(found, kept.right) >= 0).tolist() == [True, False]
    assert finals.tolist() == [0, RIGHT]


def test_off_the_track_an_answer_may_be_as_long_as_any_of_the_run(tmp_path: Path) -> None:
    """A call is much longer than the prompt that it follows: a run that misread its question still gets through it."""

    class Short(OracleBackend):
        def decode(self, adapter: str, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer]]:
            for index, answer in super().decode(adapter, asks):
                fits = len(answer.text) <= len(asks[index].expected)
                yield index, replace(answer, text=answer.text[: len(asks[index].expected)], ended=fits)

    steps, misread = list(steps_of("sub", "process", "35", "11")), tm.align_in("35-12=")
    problem = Problem("sub", "process", "test", "consistent", "any", "35", "11", 2, 2, tuple(steps))
    found = write_agenda(tmp_path / "agenda", [problem])
    asked: set[str] = set()

    def change(adapter: str, prompt: str, answer: str) -> str:
        asked.add(adapter)
        return misread if prompt == "35-11=" else answer

    kept, finals = judge(found, tmp_path, "rollout", Short(change))
    assert finals.tolist() == [0] and int((kept.right == RIGHT).sum()) == 0
    assert asked == {step.adapter for step in steps}  # to the very end


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
        assert (row["prompt"], row["expected"], row["text"]) == (steps[step].prompt, steps[step].completion, "?")
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
    with pytest.raises(UserError, match="it has no raw text"):
        prepare(settings(data, tmp_path, task=("left_mask",), mode=("process",)))
    with pytest.raises(UserError, match="no finished dataset"):
        prepare(settings(tmp_path, tmp_path / "out"))
