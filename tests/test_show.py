"""What ``show`` prints: the golden records as JSON, and traces that fit 80 columns for people."""

import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from caef_data.errors import UserError
from caef_data.pipelines.show import EDGE, Part, Run, brief, command_words, print_trace, show_json, tape
from caef_data.tm import Machine, Transition, machine, transitions
from caef_data.tm.machine import HALT

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED_TASKS = (
    "add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask"
)  # fmt: skip


def golden(task: str) -> Iterator[dict[str, Any]]:
    with gzip.open(GOLDEN / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def page(task: str, a: str, b: str | None = None, width: int = 80, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    print_trace(console, task, a, b, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def numbers(longest: int) -> st.SearchStrategy[int]:
    return st.integers(1, longest).flatmap(lambda n: st.integers(10 ** (n - 1) - (n == 1), 10**n - 1))


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
def test_json_equals_golden(task: str) -> None:
    for record in golden(task):
        assert show_json(task, record["a"], record["b"], "published", 10**6) == record


def test_json_refuses_long_traces() -> None:
    with pytest.raises(UserError, match="more than 10,000") as caught:
        show_json("mul", "7", "9" * 100)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_fits_80_columns(task: str, data: st.DataObject) -> None:
    a, b = data.draw(numbers(120)), data.draw(numbers(120))
    if task == "reflection":
        a = int("9" * len(str(b)))
    if task in ("mul", "div"):
        b = max(b, 1)
    if task == "sub":
        a, b = max(a, b), min(a, b)
    second = None if machine(task).unary else str(b)
    shown = page(task, str(a), second, nested=data.draw(st.booleans()), max_entries=20)
    assert max(map(len, shown.split("\n"))) <= 80
    assert shown.isascii() and "\x1b" not in shown
    answer = machine(task).answer(a, 0 if second is None else b)
    assert "".join(shown.rpartition("answer")[2].split()) == str(answer)


@pytest.mark.parametrize(("width", "used"), [(60, 60), (100, 100), (20, 60)])
def test_follows_the_width_of_the_terminal(width: int, used: int) -> None:
    shown = page("add", "7" * 90, "8" * 80, width=width)
    assert used - 8 <= max(map(len, shown.split("\n"))) <= used


def test_every_entry_is_shown() -> None:
    shown = page("add", "12", "9")
    assert re.findall(r"^ +(\d+)  (q\w)", shown, re.MULTILINE) == [
        (str(at), state) for at, state in enumerate(("q0", "q1", "q1", "q1", "qH"))
    ]
    assert "9[ ]" in shown and "[2]1" in shown
    assert "12+9=21" in shown


def test_cut_in_the_middle() -> None:
    shown = page("add", "1" * 500, "2" * 500)
    labels = [int(at) for at in re.findall(r"^ +(\d+)  q", shown, re.MULTILINE)]
    assert labels == [*range(EDGE), *range(503 - EDGE, 503)]
    assert f"... {503 - 2 * EDGE} entries in between" in shown


def test_mul_of_a_hundred_digits_shows_both_ends() -> None:
    b = "9" * 100
    shown = page("mul", "7", b)
    assert f"{3 * int(b) - 1:,}" in shown.replace("\n", "")
    assert re.search(r"^ T-1  q1", shown, re.MULTILINE) and re.search(r"^   T  qH", shown, re.MULTILINE)
    assert "call LESS_THAN(1, 99999999...99999999 (100 digits)), then go to q2" in " ".join(shown.split())


@pytest.mark.parametrize("dialect", ["consistent", "published"])
def test_nested_shows_the_called_machines(dialect: Any) -> None:
    plain, nested = (page("sub", "105", "99", nested=nested, dialect=dialect) for nested in (False, True))
    for shown in (plain, nested):
        assert re.findall(r"call (\w+\([\d, ]+\))", shown) == [
            "REFLECTION(999, 99)",
            "ADD(105, 900)",
            "ADD(1005, 1)",
            "LEFT_MASK(1006)",
        ]
    entries = sum(
        1 + len(list(transitions(*call)))
        for call in (
            ("reflection", 999, 99),
            ("add", 105, 900),
            ("add", 1005, 1),
            ("left_mask", 1006),
        )
    )
    count = re.compile(r"^ +\d+  q\w  ", re.MULTILINE)
    assert len(count.findall(nested)) - len(count.findall(plain)) == entries
    assert "transitions: result 6\n" in plain
    quoted = "quoted as LEFT_MASK, qH,  |6|0|0|1[HEAD] |6|0|0\n"
    assert (quoted in plain) == (dialect == "published")


@pytest.mark.parametrize(
    ("task", "a", "b"), [("div", "5", "0"), ("mul", "5", "0"), ("sub", "3", "5"), ("reflection", "12", "3")]
)
def test_refused_operands(task: str, a: str, b: str) -> None:
    for call in (show_json, page):
        with pytest.raises(UserError):
            call(task, a, b)


def test_colours_only_where_wanted() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", no_color=False)
    print_trace(console, "add", "1", "2")
    assert isinstance(console.file, io.StringIO) and "\x1b[" in console.file.getvalue()


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
def test_what_is_shown_is_what_the_text_holds(task: str) -> None:
    """The machine's configuration is shown, not its text: both have the same digits and words, in the same order."""
    for record in list(golden(task))[:40]:
        run = Run(machine(task), int(record["a"]), int(record["b"] or 0), "published")
        total = min(len(record["steps"]), 50)
        for (prompt, _), entry in zip(record["steps"], run.entries(0, total, len(record["steps"])), strict=False):
            line, command = prompt.split("\n")[:2]
            state, held = re.fullmatch(r"\w+, (\w+),(.*)", line).groups()  # type: ignore[union-attr]
            assert entry.state == state
            assert "".join(re.findall(r"\d|True|False", re.sub(r"\[\w+\]", "", held))) == "".join(
                part.value for part in entry.parts if isinstance(part, Part)
            )
            assert entry.command == ("" if "[CALL]" in command else command_words(command))
            assert "[" not in entry.command
            assert (entry.called is not None) == ("[CALL]" in command)
            if entry.called is not None:
                assert entry.called.machine.title in command and entry.quoted == prompt.split("\n", 2)[2]


@given(numbers(120).map(str), st.integers(0, 120), st.integers(24, 70))
def test_tape_keeps_its_head_in_sight(digits: str, at: int, room: int) -> None:
    head = min(at, len(digits))
    text = tape(Part("tape", digits, head), room).plain
    assert len(text) <= room
    assert f"[{digits[head : head + 1] or ' '}]" in text


def test_unknown_commands_are_left_as_they_are() -> None:
    assert command_words("CMD [X] jump, q1") == "x := jump; go to q1"
    assert brief("1" * 24) == "1" * 24 and brief("12345678" * 4) == "12345678...12345678 (32 digits)"


class Stated(Machine):
    """A machine that says its transitions as texts, and nothing else."""

    def answer(self, a: int, b: int) -> int:
        return a

    def num_steps(self, a: int, b: int) -> int:
        return 1

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 1

    def transition(self, a: int, b: int, t: int, dialect: Any) -> Transition:
        return Transition(f"STATED, q0, {a}\nCMD qH\n", f"STATED, qH, {a}\n{HALT}\n", "q0", "qH")

    def initial(self, a: int, b: int) -> str:
        return self.transition(a, b, 0, "").prompt

    def halted(self, a: int, b: int) -> str:
        return self.transition(a, b, 0, "").completion


def test_a_machine_without_tapes_is_shown_as_its_text() -> None:
    entries = list(Run(Stated(), 5, 0, "consistent").entries(0, 2, 1))
    assert [entry.parts for entry in entries] == ["STATED, q0, 5\nCMD qH\n", f"STATED, qH, 5\n{HALT}\n"]
