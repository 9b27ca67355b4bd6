"""The machines: recorded runs, step machine against columns, composition, answers, closed forms."""

import gc
import gzip
import json
import re
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data.pipelines.sampling.steps import sampled_rows
from caef_data.tests.sizes import examples
from caef_data.tm import align_in, align_out, machine, transition, transitions
from caef_data.tm.basic import BasicMachine
from caef_data.tm.columns import Number, Operands
from caef_data.tm.interpreter import execute
from caef_data.tm.machine import DIALECTS, Batch, Dialect, Rows, SteppedBatch
from caef_data.tm.render import RowGroup, Template, render

Pair = tuple[int, int]
GOLDEN = Path(__file__).parent / "golden"
BASIC = ("add", "equal", "greater_than", "left_mask", "less_than", "reflection")
COMPOSERS = ("div", "mul", "sub")
TASKS = tuple(sorted(BASIC + COMPOSERS))
HALT = "No command to execute. Halt state."
INT64 = 2**63 - 1
CALLED = {task.upper(): task for task in BASIC}
ANSWERS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "equal": lambda a, b: a == b,
    "greater_than": lambda a, b: a > b,
    "less_than": lambda a, b: a < b,
    "reflection": lambda a, b: a - b,
    "left_mask": lambda a, b: int("0" + str(a)[1:]),
}


def columns(task: str, pairs: list[Pair], dialect: Dialect = "consistent", *, stepped: bool = False) -> Batch:
    found = machine(task)
    b = None if found.unary else Number.of([b for _, b in pairs])
    operands = Operands(Number.of([a for a, _ in pairs]), b)
    return SteppedBatch(found, operands, dialect) if stepped else found.batch(operands, dialect)


def answers(batch: Batch) -> list[str]:
    return list(render([RowGroup(batch.all, Template("{x}"), {"x": batch.answer()})], len(batch.all)).to_pylist())


def named(codes: Any, names: tuple[str | None, ...]) -> list[str | None]:
    return [names[code] for code in codes.tolist()]


def rendered(batch: Batch, rows: Rows) -> list[tuple[Any, ...]]:
    """Everything that the columns say about these rows, in the order of ``walked``."""
    prompts, completions = batch.prompts(rows), batch.completions(rows)
    return list(
        zip(
            rows.expression.tolist(),
            prompts.text.to_pylist(),
            completions.text.to_pylist(),
            named(prompts.state, prompts.states),
            named(completions.state, completions.states),
            named(completions.call, completions.calls),
            strict=True,
        )
    )


def one(row: int, task: str, pair: Pair, t: int, dialect: Dialect) -> tuple[Any, ...]:
    """What the step machine says about transition ``t``, fetched in closed form."""
    step = machine(task).transition(*pair, t, dialect)
    return row, step.prompt, step.completion, step.state, step.next_state, step.call


def walked(task: str, pairs: list[Pair], dialect: Dialect) -> list[tuple[Any, ...]]:
    """What the step machine says about every transition, walked from the start."""
    return [
        (row, step.prompt, step.completion, step.state, step.next_state, step.call)
        for row, pair in enumerate(pairs)
        for step in machine(task).transitions(*pair, dialect)
    ]


# ---------------------------------------------------------------------------------------------- recorded runs


@cache
def golden(task: str) -> tuple[dict[str, Any], ...]:
    with gzip.open(GOLDEN / f"{task}.jsonl.gz", "rt") as file:
        return tuple(json.loads(line) for line in file)


def recorded_pairs(task: str) -> list[Pair]:
    return [(int(record["a"]), int(record["b"] or 0)) for record in golden(task)]


def dialects_of(task: str) -> tuple[Dialect, ...]:
    """The dialects in which the recorded text is right: published, and consistent where both are the same."""
    return ("published",) if task in ("sub", "mul") else DIALECTS


@pytest.mark.parametrize("task", TASKS)
def test_step_machine_repeats_every_recorded_run_byte_for_byte(task: str) -> None:
    assert len(golden(task)) >= 100
    for record in golden(task):
        a, b, steps = record["a"], record["b"], [tuple(step) for step in record["steps"]]
        for dialect in dialects_of(task):
            assert [(s.prompt, s.completion) for s in transitions(task, a, b, dialect=dialect)] == steps
        for k in {0, 1, len(steps) // 2, len(steps) - 2, len(steps) - 1}:
            step = transition(task, int(a), None if b is None else int(b), k, dialect="published")
            assert (step.prompt, step.completion) == steps[k]
        if record["aligner_in"] is not None:
            raw, text = record["aligner_in"]
            assert align_in(raw) == text
            assert list(align_out(task, a, b)) == record["aligner_out"]


@pytest.mark.parametrize("task", TASKS)
def test_columns_repeat_every_recorded_run_byte_for_byte(task: str) -> None:
    records, pairs = golden(task), recorded_pairs(task)
    expected = [(e, t, *step) for e, record in enumerate(records) for t, step in enumerate(record["steps"])]
    for dialect in dialects_of(task):
        batch = columns(task, pairs, dialect)
        rows = batch.every()
        texts = batch.prompts(rows).text.to_pylist(), batch.completions(rows).text.to_pylist()
        found = zip(rows.expression.tolist(), batch.steps(rows).tolist(), *texts, strict=True)
        assert list(found) == expected
        assert batch.num_steps.tolist() == [len(record["steps"]) for record in records]
        assert batch.initial().to_pylist() == [record["steps"][0][0] for record in records]
        assert batch.halted().to_pylist() == [record["steps"][-1][1] for record in records]
        if records[0]["aligner_out"] is not None:
            assert answers(batch) == [record["aligner_out"][1].split("=")[-1] for record in records]
            assert batch.initial().to_pylist() == [record["aligner_in"][1] for record in records]
            assert batch.halted().to_pylist() == [record["aligner_out"][0] for record in records]


@pytest.mark.parametrize("task", ["sub", "mul"])
def test_recorded_runs_of_sub_and_mul_are_not_the_consistent_dialect(task: str) -> None:
    differs = sum(
        [list(step) for step in record["steps"]]
        != [[s.prompt, s.completion] for s in transitions(task, record["a"], record["b"])]
        for record in golden(task)
    )
    assert differs > 10


# ---------------------------------------------------------------------------------- step machine == columns

SPECIAL = st.builds(lambda n, d: max(0, 10**n + d), st.integers(0, 119), st.sampled_from([-1, 0, 1]))
LONG = st.text("0123456789", min_size=1, max_size=120).map(int)
NUMBER = st.one_of(
    st.integers(0, 12),
    LONG,
    SPECIAL,
    st.builds(lambda n, d: int(str(d) * n), st.integers(1, 120), st.integers(0, 9)),
)


def expression(task: str, short: bool = True) -> st.SearchStrategy[Pair]:
    """Expressions of a task with operands of 1..120 digits; ``short`` keeps the runs of loops short."""
    pair = st.one_of(st.tuples(NUMBER, NUMBER), NUMBER.map(lambda x: (x, x)))
    if task == "sub":
        return pair.map(lambda p: (max(p), min(p)))
    if task == "left_mask":
        return NUMBER.map(lambda x: (x, 0))
    if task == "reflection":
        return pair.map(lambda p: (10 ** len(str(max(p))) - 1, min(p))) | NUMBER.map(
            lambda x: (10 ** len(str(x)) - 1, 10 ** len(str(x)) - 1 - x)
        )
    if task == "mul":
        return st.tuples(NUMBER, st.integers(1, 30)) if short else pair.map(lambda p: (p[0], max(p[1], 1)))
    if task == "div" and short:
        parts = st.tuples(NUMBER.map(lambda b: max(b, 1)), st.integers(0, 25), NUMBER)
        return parts.map(lambda p: (p[0] * p[1] + p[2] % p[0], p[0]))
    return pair.map(lambda p: (p[0], max(p[1], 1))) if task == "div" else pair


@st.composite
def batches(draw: st.DrawFn, task: str, short: bool = True) -> list[Pair]:
    """Batches of mixed lengths, some expressions repeated."""
    pairs = draw(st.lists(expression(task, short), min_size=1, max_size=7))
    return pairs + draw(st.lists(st.sampled_from(pairs), max_size=2))


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=examples(12, 35), deadline=None)
@given(data=st.data())
def test_step_machine_equals_columns_at_every_step_of_mixed_batches(task: str, data: st.DataObject) -> None:
    pairs, dialect = data.draw(batches(task)), data.draw(st.sampled_from(DIALECTS))
    found, batch = machine(task), columns(task, pairs, dialect)
    rows = batch.every()
    expected = walked(task, pairs, dialect)
    assert rendered(batch, rows) == expected
    lengths = [found.num_steps(*pair) for pair in pairs]
    assert batch.num_steps.tolist() == lengths
    assert batch.steps(rows).tolist() == [t for n in lengths for t in range(n)]
    assert batch.initial().to_pylist() == [found.initial(*pair) for pair in pairs]
    assert batch.halted().to_pylist() == [found.halted(*pair) for pair in pairs]
    assert answers(batch) == [str(ANSWERS[task](*pair)) for pair in pairs]
    order = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=40)))
    assert rendered(batch, batch.take(rows, order)) == [expected[row] for row in order.tolist()]


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_step_in_closed_form_equals_walking_there(task: str, data: st.DataObject) -> None:
    pair, dialect = data.draw(expression(task)), data.draw(st.sampled_from(DIALECTS))
    found = machine(task)
    assert [one(0, task, pair, t, dialect) for t in range(found.num_steps(*pair))] == walked(task, [pair], dialect)
    if isinstance(found, BasicMachine):
        now = found.start(*pair)
        for i in range(found.num_steps(*pair) + 1):
            shown, _ = found.walk(*pair, i)
            assert (shown.state, found.entry(shown)) == (now.state, found.entry(now))
            now = now if now.state == "qH" else execute(now, found.line(now))


@pytest.mark.parametrize("task", ["mul", "div"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sampled_rows_of_endless_loops_equal_the_step_machine(task: str, data: st.DataObject) -> None:
    pairs, dialect = data.draw(batches(task, short=False)), data.draw(st.sampled_from(DIALECTS))
    batch = columns(task, pairs, dialect)
    key = np.array(data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(pairs), max_size=len(pairs))), np.uint64)
    rows = sampled_rows(batch, key)
    turns, steps = rows.index.turn.integers(), rows.index.at.tolist()
    times = [3 * turn + step - 2 for turn, step in zip(turns, steps, strict=True)]
    where = rows.expression.tolist()
    for e, t in zip(where, times, strict=True):
        assert 0 <= t < machine(task).num_steps(*pairs[e])
    expected = [one(e, task, pairs[e], t, dialect) for e, t in zip(where, times, strict=True)]
    assert rendered(batch, rows) == expected


@pytest.mark.parametrize("task", ["mul", "div"])
def test_step_numbers_are_given_exactly_as_far_as_64_bits_hold_them(task: str) -> None:
    most = (INT64 + 1) // 3  # turns whose number of transitions still fits
    turns = [10**16, 10**17 - 1, 10**17, 10**18 - 1, 10**18, most, most + 1, 10**19, 10**30]
    batch = columns(task, [(7, b) if task == "mul" else (b - 1, 1) for b in turns])
    assert batch.num_steps.tolist() == [3 * b - 1 if 3 * b - 1 <= INT64 else -1 for b in turns]
    rows = sampled_rows(batch, np.arange(len(turns), dtype=np.uint64))
    found = zip(rows.index.turn.integers(), rows.index.at.tolist(), strict=True)
    times = [3 * turn + step - 2 for turn, step in found]
    assert len(times) == 5 * len(turns)
    assert batch.steps(rows).tolist() == [t if t <= INT64 else -1 for t in times]


@pytest.mark.parametrize("task", TASKS)
def test_step_machine_equals_columns_for_all_small_operands(task: str) -> None:
    pairs = [pair for pair in small(task, 12) if machine(task).domain_error(*pair) is None]
    for dialect in DIALECTS:
        assert rendered(columns(task, pairs, dialect), columns(task, pairs, dialect).every()) == walked(
            task, pairs, dialect
        )


@pytest.mark.parametrize("task", TASKS)
def test_a_machine_rendered_by_its_steps_gives_the_same_rows(task: str) -> None:
    pairs = [pair for pair in small(task, 11) if machine(task).domain_error(*pair) is None]
    fast, slow = columns(task, pairs), columns(task, pairs, stepped=True)
    assert rendered(slow, slow.every()) == rendered(fast, fast.every())
    assert slow.initial().to_pylist() == fast.initial().to_pylist()
    assert slow.halted().to_pylist() == fast.halted().to_pylist()
    assert answers(slow) == answers(fast)
    assert slow.num_steps.tolist() == fast.num_steps.tolist()


def small(task: str, below: int) -> list[Pair]:
    if task == "left_mask":
        return [(a, 0) for a in range(below * below)]
    if task == "reflection":
        return [(a, b) for a in (9, 99) for b in range(100)]
    return [(a, b) for a in range(below) for b in range(below)]


# ------------------------------------------------------------------------------------------------ composition


@cache
def ends_of(task: str, x: int, y: int | None) -> tuple[str, str]:
    """The first and the last entry of a machine's own run, without their last newlines."""
    steps = list(transitions(task, x, y))
    return steps[0].prompt.removesuffix("\n"), steps[-1].completion.removesuffix("\n")


@cache
def call_of(quoted: str) -> tuple[str, int, int | None]:
    """The task and the operands that a quoted initial state line shows."""
    tapes = [int(tape.replace("|", "")[::-1]) for tape in re.findall(r"\] ((?:\|\d)+)", quoted)]
    return CALLED[quoted.split(",")[0]], tapes[0], tapes[1] if len(tapes) > 1 else None


def check_composition(steps: list[tuple[Any, ...]]) -> None:
    """Check one run: what each completion calls starts as it should, and what comes back is what really comes."""
    assert steps[0][1].count("\n") == 2
    for now, following in zip(steps, steps[1:], strict=False):
        called, prompt = now[2].split("\n"), following[1]
        task, x, y = call_of(called[2])
        first, last = ends_of(task, x, y)
        assert now[5] == task
        assert called[1].startswith(f"CMD [CALL] {task.upper()}, q")
        assert "\n".join(called[2:]) == first
        assert prompt == f"{called[0]}\n{called[1]}\n{last}\n"
    assert steps[-1][5] is None
    assert steps[-1][2].count("\n") == 1
    assert steps[-1][2].endswith("\n" + HALT)


@pytest.mark.parametrize("task", COMPOSERS)
def test_consistent_dialect_is_the_composition_of_the_machines_for_all_pairs_to_60(task: str) -> None:
    pairs = [(a, b) for a in range(61) for b in range(61) if machine(task).domain_error(a, b) is None]
    assert len(pairs) == {"sub": 61 * 62 // 2, "mul": 61 * 60, "div": 61 * 60}[task]
    batch = columns(task, pairs)
    ends = np.cumsum(batch.num_steps)
    steps = rendered(batch, batch.every())
    for start, end in zip([0, *ends.tolist()], ends.tolist(), strict=False):
        check_composition(steps[start:end])


@pytest.mark.parametrize("task", COMPOSERS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_consistent_dialect_is_the_composition_of_the_machines_for_long_operands(
    task: str, data: st.DataObject
) -> None:
    check_composition(walked(task, [data.draw(expression(task))], "consistent"))


def test_published_dialect_differs_from_consistent_exactly_where_it_is_known_to() -> None:
    for a in range(121):
        for b in range(0, a + 1, 3 if a > 40 else 1):
            differs = [
                x.prompt != y.prompt
                for x, y in zip(transitions("sub", a, b), transitions("sub", a, b, dialect="published"), strict=True)
            ]
            assert differs == [False, False, a > b, a == b, a == b or len(str(a - b)) < len(str(a))]
    for a, b in ((7, 9), (7, 10), (45, 103)):
        steps = zip(transitions("mul", a, b), transitions("mul", a, b, dialect="published"), strict=True)
        for t, (x, y) in enumerate(steps):
            count = str((t + 2) // 3)
            assert (x.prompt != y.prompt) == (t % 3 == 1 and count != count[::-1])
            assert x.completion == y.completion


# ---------------------------------------------------------------------------------------------------- answers


def read_result(halted: str) -> str:
    """The result of a halting entry: what stands after the last space of its state line."""
    found = halted.split("\n")[0].rpartition(" ")[2]
    return found if found in ("True", "False") else found.replace("|", "")[::-1]


@pytest.mark.parametrize("task", TASKS)
def test_answers_equal_python_integers_for_all_pairs_to_60(task: str) -> None:
    found = machine(task)
    pairs = [pair for pair in small(task, 61) if found.domain_error(*pair) is None]
    expected = [str(ANSWERS[task](*pair)) for pair in pairs]
    batch = columns(task, pairs)
    assert answers(batch) == expected
    assert [read_result(text) for text in batch.halted().to_pylist()] == expected
    assert [str(found.answer(*pair)) for pair in pairs] == expected
    assert [read_result(found.halted(*pair)) for pair in pairs] == expected


@pytest.mark.parametrize("task", TASKS)
def test_nothing_of_a_block_is_left_once_it_is_rendered(task: str) -> None:
    """Cycles of references would keep block after block in memory until the collector runs."""
    pairs = [(999, 7), (99, 12)] if task == "reflection" else [(47, 12), (10**12, 3)]
    batch = columns(task, pairs)
    rows = sampled_rows(batch, np.arange(2, dtype=np.uint64))
    batch.prompts(rows), batch.completions(rows), batch.halted(), batch.initial(), batch.answer()
    seen = weakref.ref(batch)
    gc.disable()
    try:
        del batch, rows
        assert seen() is None
    finally:
        gc.enable()
