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
from caef_data.pipelines.show import EDGE, print_trace, show_json
from caef_data.pipelines.trace_view import Part, brief, command_words, parse_state, tape
from caef_data.tm import machine, tasks, transitions

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
    assert ("transitions: result 6\n" in plain) == (dialect == "consistent")
    assert ("transitions: result 006\n" in plain) == (dialect == "published")


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


def test_parts_of_every_entry_are_understood() -> None:
    for task in tasks():
        if task in PUBLISHED_TASKS:
            for record in list(golden(task))[:40]:
                for prompt, completion in record["steps"][:50]:
                    for text in (prompt, completion):
                        lines = text.rstrip("\n").split("\n")
                        assert all(parse_state(line) is not None for line in lines[::2])
                        assert "[" not in "".join(command_words(line) for line in lines[1:2] if "CALL" not in line)


@given(numbers(120).map(str), st.integers(0, 120), st.integers(24, 70))
def test_tape_keeps_its_head_in_sight(digits: str, at: int, room: int) -> None:
    head = min(at, len(digits))
    text = tape(Part("tape", digits, head), room).plain
    assert len(text) <= room
    assert f"[{digits[head : head + 1] or ' '}]" in text


def test_unknown_shapes_are_left_as_they_are() -> None:
    assert parse_state("MAX, q1, something else [here]") is None
    assert parse_state("") is None
    assert command_words("CMD [X] jump, q1") == "x := jump; go to q1"
    assert brief("1" * 24) == "1" * 24 and brief("12345678" * 4) == "12345678...12345678 (32 digits)"
