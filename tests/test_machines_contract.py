"""What every registered machine keeps, steps of endless runs, and operands that are refused."""

import random
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data.errors import UserError
from caef_data.pipelines.sampling.laws import class_parts
from caef_data.pipelines.sampling.split import every
from caef_data.pipelines.sampling.stress import families
from caef_data.tm import align_in, align_out, machine, operands, tasks, transition, transitions
from caef_data.tm.columns import Number, Operands
from caef_data.tm.instructions import instruction
from caef_data.tm.machine import DIALECTS, Machine

VIEWS = ("one_step", "full", "aligner", "raw", "scratchpad", "commands")


def shared_units(a: str, b: str) -> int:
    """How many digits, from the units on, are the same."""
    return next((k for k, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y), min(len(a), len(b)))


# Number of transitions of a run, from the tables of the text format.
LENGTHS: dict[str, Any] = {
    "add": lambda a, b: max(len(a), len(b)) + 2,
    "greater_than": lambda a, b: min(len(a), len(b)) + 2,
    "less_than": lambda a, b: min(len(a), len(b)) + 2,
    "sub": lambda a, b: 5,
    "mul": lambda a, b: 3 * int(b) - 1,
    "div": lambda a, b: 3 * (int(a) // int(b)) + 2,
    "equal": lambda a, b: shared_units(a, b) + 2,
    "reflection": lambda a, b: len(a) + 3 + len(a) - len(f"{int(a) - int(b)}".lstrip("0")),
    "left_mask": lambda a, b: len(a) + 3 + len(a[1:]) - len(a[1:].lstrip("0")),
}


def tape(number: int) -> str:
    return "".join(f"|{digit}" for digit in str(number)[::-1])


# ------------------------------------------------------------------------------------------- the whole registry


def text_pairs(found: Machine) -> list[tuple[str, str | None]]:
    """Every expression of a machine with operands below 13 and some others of two digits."""
    few = [*range(13), 20, 49, 50, 90, 98, 99]
    pairs = [(a, b) for a in few for b in ([0] if found.unary else few) if found.domain_error(a, b) is None]
    return [(str(a), None if found.unary else str(b)) for a, b in pairs]


@pytest.fixture(params=tasks())
def found(request: pytest.FixtureRequest) -> Machine:
    return machine(request.param)


def test_names_and_signs_tell_the_machines_apart() -> None:
    assert {
        "add",
        "sub",
        "mul",
        "div",
        "equal",
        "greater_than",
        "less_than",
        "reflection",
        "left_mask",
    } <= set(tasks())
    assert list(tasks()) == sorted(set(tasks()))
    machines = [machine(name) for name in tasks()]
    assert [one.name for one in machines] == list(tasks())
    for values in ([one.title for one in machines], [one.sign for one in machines if one.sign is not None]):
        assert len(set(values)) == len(values)


def test_every_machine_shows_itself_with_an_expression_of_its_own(found: Machine) -> None:
    a, b = found.example
    assert operands(found.name, a, None if found.unary else b)[0] is found
    assert found.name.isascii() and found.name == found.name.lower()
    assert found.has_raw == (found.sign is not None)
    assert not (found.unary and found.has_raw)


def test_every_machine_describes_itself_in_ascii_ended_by_an_empty_line(found: Machine) -> None:
    texts = {view: instruction(found, view) for view in VIEWS if found.has_raw or view not in ("aligner", "raw")}
    for text in texts.values():
        assert text.isascii() and text.endswith("\n\n") and not text.endswith("\n\n\n")
        assert text == text.lstrip() and "\r" not in text and "\t" not in text
    assert len(set(texts.values())) == len(texts)
    assert found.title in texts["one_step"]


def test_every_run_has_its_number_of_steps_begins_in_q0_and_ends_in_qh(found: Machine) -> None:
    for a, b in text_pairs(found):
        x, y = int(a), int(b or 0)
        for dialect in DIALECTS:
            steps = list(transitions(found.name, a, b, dialect=dialect))
            assert len(steps) == found.num_steps(x, y) <= found.max_num_steps(len(a), len(b or ""))
            assert found.name not in LENGTHS or len(steps) == LENGTHS[found.name](a, b)
            assert (steps[0].prompt, steps[-1].completion) == (found.initial(x, y), found.halted(x, y))
            assert steps[0].state == "q0" and steps[-1].next_state == "qH"
            for step in steps:
                assert step.prompt.isascii() and step.completion.isascii()
                assert step.prompt.startswith(f"{found.title}, {step.state}, ") and step.prompt.endswith("\n")
                assert step.completion.startswith(f"{found.title}, {step.next_state}, ")
                assert step.completion.endswith("\n") != found.composer
                assert step.call is None or (found.composer and step.call in tasks())
            for now, then in pairwise(steps):
                assert now.next_state == then.state != "qH"
                if found.composer:
                    assert now.completion.split("\n")[:2] == then.prompt.split("\n")[:2]
                else:
                    assert now.completion == then.prompt


def test_every_answer_stands_in_the_halting_entry_and_in_the_aligned_text(found: Machine) -> None:
    for a, b in text_pairs(found):
        answer = found.answer(int(a), int(b or 0))
        assert type(answer) in (int, bool) and (isinstance(answer, bool) or answer >= 0)
        shown = found.halted(int(a), int(b or 0)).split("\n")[0].split(" ")[-1]
        expected = str(answer) if isinstance(answer, bool) else str(answer)[::-1]
        assert shown.replace("|", "") == expected
        if found.has_raw:
            assert b is not None
            assert align_out(found.name, a, b) == (
                found.halted(int(a), int(b)),
                f"{a}{found.sign}{b}={answer}",
            )
            assert align_in(f"{a}{found.sign}{b}=") == found.initial(int(a), int(b))
    if not found.has_raw:
        with pytest.raises(UserError, match="no raw text"):
            align_out(found.name, found.example[0], None if found.unary else found.example[1])  # type: ignore[arg-type]


def test_classes_counts_and_variants_of_every_machine_are_sane(found: Machine) -> None:
    classes = list(found.classes(1, 12))
    assert len(classes) == len(set(classes)) > 0
    assert {a for a, _ in classes} == set(range(1, 13))
    assert {b for _, b in classes} == ({0} if found.unary else set(range(1, 13)))
    assert set(found.classes(3, 7)) == {(a, b) for a, b in classes if 3 <= a <= 7 and (found.unary or 3 <= b <= 7)}
    for len_a, len_b in classes:
        counts = [found.count(len_a, len_b, num, 12) for num in (1, 2, 20, 1000)]
        assert all(type(count) is int and count >= 0 for count in counts)
        assert counts == sorted(counts)
        parts = list(class_parts(found, len_a, len_b))
        assert len({name for name, _, _ in parts}) == len(parts) > 0
        assert all(type(share) is int and share > 0 for _, share, _ in parts)
        hard = [family.name for family in families(found) if family.applies(len_a, len_b)]
        assert len(set(hard)) == len(hard)


def numbers_of(length: int) -> list[int]:
    return list(range(10)) if length == 1 else list(range(10 ** (length - 1), 10**length))


def column(pairs: list[tuple[int, int]], unary: bool) -> Operands:
    return Operands(Number.of([a for a, _ in pairs]), None if unary else Number.of([b for _, b in pairs]))


def test_variants_of_every_machine_split_its_short_classes_without_rest(found: Machine) -> None:
    for len_a, len_b in found.classes(1, 4 if found.unary else 2):
        everything = [(a, b) for a in numbers_of(len_a) for b in ([0] if found.unary else numbers_of(len_b))]
        expressions = [pair for pair in everything if found.domain_error(*pair) is None]
        held = np.zeros(len(expressions), np.int64)
        for _, _, law in class_parts(found, len_a, len_b):
            mine = law.holds(column(expressions, found.unary))
            held += mine
            drawn = every(law, len_a, len_b)
            b = [0] * len(drawn) if drawn.b is None else drawn.b.integers()
            pairs = list(zip(drawn.a.integers(), b, strict=True))
            assert set(pairs) == {pair for pair, here in zip(expressions, mine.tolist(), strict=True) if here}
            assert len(pairs) == len(set(pairs)) or not law.injective
            assert law.size(len_a, len_b) >= len(set(pairs))
        assert (held == 1).all()


@pytest.mark.parametrize("unknown", ["", "Add", "addition", "max", "add ", "ａｄｄ", "q" * 10_000])
def test_unknown_tasks_are_refused_by_name(unknown: str) -> None:
    with pytest.raises(UserError, match="there is no task"):
        transitions(unknown, 1, 2)


# ---------------------------------------------------------------------------------- steps of runs nobody can walk


def long_pairs(task: str, count: int) -> list[tuple[int, int]]:
    draw = random.Random(f"long {task}")
    numbers = [draw.randrange(10**99, 10**100) for _ in range(2 * count)]
    return [(a, b // 10 ** (60 * (task == "div"))) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]


def test_any_step_of_a_100_by_100_digit_multiplication_follows_from_its_index() -> None:
    for a, b in long_pairs("mul", 20):
        draw = random.Random(b)
        for k in (1, 2, 10**6, draw.randrange(1, b - 1), b - 1):
            line = "MUL, {}, [HEAD1]" + tape(a) + " [HEAD2]" + tape(b) + " [COUNT]{} [OUTPUT]{}\nCMD [CALL] {}\n"
            at_q1 = line.format("q1", tape(k), tape(k * a), "LESS_THAN, q2")
            at_q2 = line.format("q2", tape(k), tape(k * a), "ADD, q3")
            at_q3 = line.format("q3", tape(k), tape((k + 1) * a), "ADD, q1")
            back = line.format("q1", tape(k + 1), tape((k + 1) * a), "LESS_THAN, q2")
            steps = [transition("mul", a, b, 3 * k - 2 + n) for n in range(3)]
            for step, before, after in zip(steps, (at_q1, at_q2, at_q3), (at_q2, at_q3, back), strict=True):
                assert step.prompt.startswith(before) and step.completion.startswith(after)
            assert f"\nADD, q0, [HEAD1] {tape(a)}[HEAD2] {tape(k * a)} [C] [OUTPUT]\n" in steps[0].completion
            carry = int(len(str((k + 1) * a)) > max(len(str(k * a)), len(str(a))))
            assert f"[C]{carry} {tape((k + 1) * a)}\nNo command" in steps[1].prompt
        last = transition("mul", str(a), str(b), 3 * b - 2)
        result = f"MUL, qH, [HEAD1]{tape(a)} [HEAD2]{tape(b)} [COUNT]{tape(b)} {tape(a * b)}"
        assert last.completion == f"{result}\nNo command to execute. Halt state."


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("task", ["mul", "div"])
def test_steps_of_endless_runs_follow_one_another(task: str, dialect: str) -> None:
    for a, b in long_pairs(task, 10):
        found = machine(task)
        total = found.num_steps(a, b)
        draw = random.Random(a)
        for k in (
            0,
            1,
            2,
            3,
            total - 2,
            *(draw.randrange(total - 1) for _ in range(6)),
            *(10**n for n in (9, 19, 39)),
        ):
            now, then = (transition(task, a, b, k + n, dialect=dialect) for n in (0, 1))
            assert now.completion.split("\n")[:2] == then.prompt.split("\n")[:2]
            assert now.next_state == then.state
        assert transition(task, a, b, 0, dialect=dialect).prompt == found.initial(a, b)
        assert transition(task, a, b, total - 1, dialect=dialect).completion == found.halted(a, b)
        walk = list(islice(transitions(task, a, b, dialect=dialect), 7))
        assert walk == [transition(task, a, b, k, dialect=dialect) for k in range(7)]


BAD_INDEX = [-1, -(10**30), True, 1.0, "0", None, 2**63, 10**200, 10**5000]


@pytest.mark.parametrize("k", BAD_INDEX, ids=lambda k: repr(k) if not isinstance(k, int) or abs(k) < 10**40 else "huge")
def test_an_index_out_of_range_is_refused(found: Machine, k: Any) -> None:
    a, b = (int(text) for text in found.example)
    last = found.num_steps(a, 0 if found.unary else b) - 1
    assert transition(found.name, a, None if found.unary else b, last).next_state == "qH"
    for wrong in (k, last + 1):
        with pytest.raises(UserError, match=rf"there is no transition(.|\n)*0 \.\. {last}$"):
            transition(found.name, a, None if found.unary else b, wrong)


# ------------------------------------------------------------------------------------------ operands that are none

HOSTILE = [
    "",
    " ",
    "-1",
    "+1",
    "007",
    "00",
    "1 ",
    " 1",
    "1\n",
    "1_000",
    "1e3",
    "0x10",
    "1.0",
    "٣",
    "１",
    "²",
    "९",
    "a",
    "\x00",
]
HOSTILE_VALUES: list[Any] = [
    *HOSTILE,
    "9" * 2_001,
    "9" * 1_000_000,
    -1,
    10**2_000,
    10**5_000,
    -(10**5_000),
    1.0,
    True,
    b"1",
    [1],
    {},
]


@pytest.mark.parametrize("value", HOSTILE_VALUES, ids=lambda value: ascii(str(type(value).__name__)))
def test_operands_that_are_no_natural_numbers_are_refused(found: Machine, value: Any) -> None:
    calls = [(value, None)] if found.unary else [(value, 1), (9, value)]
    for a, b in calls:
        for call in (
            lambda a=a, b=b: transitions(found.name, a, b),
            lambda a=a, b=b: transition(found.name, a, b, 0),
        ):
            with pytest.raises(UserError, match="operand") as caught:
                call()
            assert len(str(caught.value)) < 1_000


def test_one_operand_too_few_or_too_many_is_refused(found: Machine) -> None:
    with pytest.raises(UserError, match="takes (one operand|two operands)"):
        transitions(found.name, 9, 1 if found.unary else None)


REFUSED = [
    ("sub", 3, 5),
    ("sub", 0, 1),
    ("sub", 10**99, 10**99 + 1),
    ("mul", 5, 0),
    ("mul", 0, 0),
    ("div", 5, 0),
    ("div", 0, 0),
]
REFUSED += [("reflection", 98, 1), ("reflection", 0, 0), ("reflection", 9, 10), ("reflection", 990, 1)]


@pytest.mark.parametrize(("task", "a", "b"), REFUSED)
def test_pairs_that_are_no_expressions_of_a_task_are_refused(task: str, a: int, b: int) -> None:
    for call in (transitions, align_out, lambda *args: transition(*args, 0)):
        with pytest.raises(UserError, match=f"{task} needs"):
            call(task, a, b)


def test_only_such_pairs_are_refused(found: Machine) -> None:
    allowed = {
        "sub": lambda a, b: a >= b,
        "mul": lambda a, b: b > 0,
        "div": lambda a, b: b > 0,
        "reflection": lambda a, b: a in (9, 99) and b <= a,
    }
    for a in range(100):
        for b in [0] if found.unary else range(100):
            assert (found.domain_error(a, b) is None) == allowed.get(found.name, lambda *_: True)(a, b)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "=",
        "1+2",
        "1+2=3",
        " 1+2=",
        "1+2=\n",
        "01+2=",
        "1++2=",
        "1/2=",
        "1=2=",
        "-1+2=",
        "１+2=",
        "1+",
        "1−2=",
        "9" * 10**6,
    ],
)
def test_raw_texts_that_are_none_are_refused(raw: str) -> None:
    with pytest.raises(UserError):
        align_in(raw)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12) | st.text("0123456789+-*/=<> ", max_size=8))
def test_any_text_is_a_raw_expression_or_refused(raw: str) -> None:
    try:
        entry = align_in(raw)
    except UserError:
        return
    sign = raw.strip("0123456789=") or "=="
    assert raw.isascii() and raw.endswith("=") and sign in {machine(task).sign for task in tasks()}
    assert entry.count("\n") == 2


@pytest.mark.parametrize("dialect", ["", "Published", "reference", None, 3])
def test_unknown_dialects_are_refused(dialect: Any) -> None:
    with pytest.raises(UserError, match="no dialect"):
        transitions("sub", 9, 1, dialect=dialect)
