"""What ``show`` prints: the golden records as JSON, and runs that fit 80 columns for people."""

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
from caef_data.pipelines.show import EDGE, Problem, Run, brief, print_run
from caef_data.tests.sizes import examples
from caef_data.tm import Machine, Transition, machine, transitions
from caef_data.tm.machine import HALT

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED_TASKS = (
    "add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask"
)  # fmt: skip


def golden(task: str) -> Iterator[dict[str, Any]]:
    with gzip.open(GOLDEN / f"{task}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def page(task: str, a: str, b: str | None = None, width: int = 80, dialect: str = "consistent", **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, no_color=True)
    print_run(Run.of(Problem(task, a, b), dialect), console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def show_json(task: str, a: str, b: str | None, dialect: str = "consistent", most: int = 10_000) -> dict[str, Any]:
    return Run.of(Problem(task, a, b), dialect).to_json(most)


def numbers(longest: int) -> st.SearchStrategy[int]:
    return st.integers(1, longest).flatmap(lambda n: st.integers(10 ** (n - 1) - (n == 1), 10**n - 1))


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
def test_json_equals_golden(task: str) -> None:
    for record in golden(task):
        assert show_json(task, record["a"], record["b"], "published", 10**6) == record


def test_json_refuses_long_runs() -> None:
    with pytest.raises(UserError, match="within 10,000 steps") as caught:
        show_json("mul", "7", "9" * 100)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
@settings(max_examples=examples(6, 15), deadline=None)
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
    shown = page(task, str(a), second, nested=data.draw(st.booleans()), most=20)
    assert max(map(len, shown.split("\n"))) <= 80
    assert shown.isascii() and "\x1b" not in shown
    answer = machine(task).answer(a, 0 if second is None else b)
    assert "".join(shown.rpartition("\n\n")[2].split()).endswith(f"={answer}")


@pytest.mark.parametrize("width", [40, 100])
def test_follows_the_width_of_the_terminal(width: int) -> None:
    shown = page("add", "7" * 90, "8" * 80, width=width)
    assert width - 20 <= max(map(len, shown.split("\n"))) <= width


@pytest.mark.parametrize("task", PUBLISHED_TASKS)
def test_every_entry_of_a_short_run_is_shown_as_it_is(task: str) -> None:
    for record in [record for record in golden(task) if len(record["a"] + (record["b"] or "")) < 10][:10]:
        shown = page(task, record["a"], record["b"], width=200, dialect="published")
        entries = [prompt for prompt, _ in record["steps"]][:EDGE] + [record["steps"][-1][1]]
        lines = [line.rstrip() for entry in entries for line in entry.rstrip("\n").split("\n")]
        told = iter([line[6:].strip() for line in shown.split("\n")])
        assert all(line.strip() in told for line in lines)


def test_cut_in_the_middle() -> None:
    shown = page("add", "1" * 500, "2" * 500)
    labels = [int(at) for at in re.findall(r"^ +(\d+)  ADD", shown, re.MULTILINE)]
    assert labels == [*range(EDGE), *range(503 - EDGE, 503)]
    assert f"... {503 - 2 * EDGE} entries in between" in shown
    assert "[HEAD1]|1|1|1|1|1|1|1|1...(492)" in shown
    assert "(491)...|2|2|2|2|2|2|2|2[HEAD2]" in shown


def test_mul_of_a_hundred_digits_shows_both_ends() -> None:
    b = "9" * 100
    shown = page("mul", "7", b)
    assert brief(f"{3 * int(b) - 1:,}") in shown.replace("\n", "")
    assert re.search(r"^ T-1  MUL, q1", shown, re.MULTILINE) and re.search(r"^   T  MUL, qH", shown, re.MULTILINE)


@pytest.mark.parametrize("dialect", ["consistent", "published"])
def test_nested_shows_the_called_machines(dialect: Any) -> None:
    plain, nested = (page("sub", "105", "99", nested=nested, dialect=dialect) for nested in (False, True))
    entries = sum(
        len(list(transitions(*call)))
        for call in (
            ("reflection", 999, 99),
            ("add", 105, 900),
            ("add", 1005, 1),
            ("left_mask", 1006),
        )
    )
    count = re.compile(r"^ +[A-Z_]+, q\w,|^ +\d+  [A-Z_]+, q\w,", re.MULTILINE)
    assert len(count.findall(nested)) - len(count.findall(plain)) == entries
    for shown in (plain, nested):
        assert ("LEFT_MASK, qH,  |6|0|0|1[HEAD] |6|0|0\n" in shown) == (dialect == "published")


@pytest.mark.parametrize(
    ("task", "a", "b"), [("div", "5", "0"), ("mul", "5", "0"), ("sub", "3", "5"), ("reflection", "12", "3")]
)
def test_refused_operands(task: str, a: str, b: str) -> None:
    for call in (show_json, page):
        with pytest.raises(UserError):
            call(task, a, b)


def test_colours_only_where_wanted() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", no_color=False)
    print_run(Run.of(Problem("add", "1", "2"), "consistent"), console)
    assert isinstance(console.file, io.StringIO) and "\x1b[" in console.file.getvalue()


class Stated(Machine):
    """A machine that says its transitions as texts, and nothing else."""

    sign = None

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


def test_a_machine_without_tapes_is_shown_too() -> None:
    assert [entry for _, entry in Run(Stated(), 5, 0, "consistent").entries(9)] == [
        "STATED, q0, 5\nCMD qH\n",
        f"STATED, qH, 5\n{HALT}\n",
    ]
