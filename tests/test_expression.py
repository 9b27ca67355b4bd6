"""Expressions and operands that people type: read exactly, or refused with one printable message."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caef_data.errors import UserError
from caef_data.pipelines.show import problems_of
from caef_data.tm.expression import parse_expression, parse_operand, parse_raw, signs
from caef_data.tm.machine import MAX_DIGITS

SIGNS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "//": "div",
    "==": "equal",
    ">": "greater_than",
    "<": "less_than",
}
NUMBERS = st.one_of(st.integers(0, 10**6), st.integers(0, 10**120)).map(str)


def test_signs_of_the_seven_operators() -> None:
    assert {sign: task for sign, task in signs().items() if task in SIGNS.values()} == SIGNS


@given(NUMBERS, st.sampled_from(sorted(SIGNS)), NUMBERS)
def test_reads_what_is_right(a: str, sign: str, b: str) -> None:
    assert parse_raw(f"{a}{sign}{b}=") == (SIGNS[sign], a, b)
    assert parse_expression(f"{a}{sign}{b}=") == parse_expression(f"{a}{sign}{b}") == (SIGNS[sign], a, b)
    assert parse_operand(a, "a") == a


@pytest.mark.parametrize(
    ("text", "column", "word"),
    [
        ("", 1, "operand a is missing"),
        ("=", 1, "operand a is missing"),
        ("12", 3, "the sign is missing"),
        ("12=", 3, "the sign is missing"),
        ("+12=", 1, "operand a is missing"),
        ("-3+4=", 1, "operand a is negative"),
        ("3+-4=", 2, "unknown sign"),
        ("12+=", 3, "unknown sign"),
        ("12+", 4, "operand b is missing"),
        ("12===12=", 3, "unknown sign"),
        ("1/2=", 2, "unknown sign"),
        ("1+2=3", 5, "should end"),
        ("1+2==", 5, "should end"),
        ("1+2+3=", 4, "should end"),
        ("1 +2=", 2, "blank ' '"),
        ("1+2=\n", 5, r"blank '\n'"),
        ("\t1+2=", 1, r"blank '\t'"),
        ("007+5=", 1, "leading zero"),
        ("7+05=", 3, "leading zero"),
        ("00+0=", 1, "leading zero"),
        ("1.5+2=", 2, "character '.'"),
        ("1e5+2=", 2, "character 'e'"),
        ("1_000+2=", 2, "character '_'"),
        ("\u0661+2=", 1, "digit of another script"),
        ("1+\uff12=", 3, "digit of another script"),
        ("1+\u00b2=", 3, r"character '\xb2'"),
        ("1\u22122=", 2, r"character '\u2212' (did you mean '-'?)"),
        ("1+2\x1b[31m=", 4, r"character '\x1b'"),
        ("1+2\x00=", 4, r"character '\x00'"),
        ("1+\ud800=", 3, r"character '\ud800'"),
        ("9" * (MAX_DIGITS + 1) + "+1=", 1, f"{MAX_DIGITS + 1:,} digits"),
        ("9" * 1_000_000 + "+1=", 1, "1,000,000 digits"),
        ("+" * 100_000, 1, "operand a is missing"),
        ("1" + "+" * 100_000 + "2=", 2, "unknown sign"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, column: int, word: str) -> None:
    for parse in (parse_raw, parse_expression):
        with pytest.raises(UserError) as caught:
            parse(text)
        assert word in caught.value.what
        assert caught.value.where is not None and caught.value.where.startswith(f"column {column} of ")
        assert caught.value.allowed and caught.value.next_step
        assert_printable(caught.value)


def test_only_people_may_leave_the_end_out() -> None:
    assert parse_expression("1+2") == ("add", "1", "2")
    with pytest.raises(UserError, match="'=' is missing at the end"):
        parse_raw("1+2")


@given(st.text(alphabet=st.one_of(st.sampled_from("0123456789+-*/<>= \n"), st.characters()), max_size=40))
@example("\u0967+\u0968=")
@example("0+0=\n")
def test_other_text_gives_one_user_error(text: str) -> None:
    for parse in (parse_raw, parse_expression):
        try:
            task, a, b = parse(text)
        except UserError as error:
            assert_printable(error)
        else:
            sign = next(sign for sign, name in signs().items() if name == task)
            assert text.removesuffix("=") == f"{a}{sign}{b}"
            assert all(number.isascii() and str(int(number)) == number for number in (a, b))


@given(st.text(max_size=20))
@example("")
@example("01")
@example("-1")
@example("\u0661")
@example("5\n")
def test_operand(text: str) -> None:
    right = text.isascii() and text.isdigit() and str(int(text)) == text
    try:
        assert parse_operand(text, "a") == text and right
    except UserError as error:
        assert not right and error.what.startswith("operand a")
        assert_printable(error)


def test_problems_of_the_command_line() -> None:
    def found(*given: Any) -> list[tuple[Any, ...]]:
        return [problem[:3] for problem in problems_of(*given)]

    assert found(["12+9=", "3*4="], None, []) == [("add", "12", "9"), ("mul", "3", "4")]
    assert found(["45321"], "left_mask", []) == [("left_mask", "45321", None)]
    assert found(["99", "7"], "reflection", []) == [("reflection", "99", "7")]
    assert found(["-"], "add", ["1 2\n", "\n", "3 4"]) == [("add", "1", "2"), ("add", "3", "4")]
    assert found(["-"], None, ["1+2=\n", "\n"]) == [("add", "1", "2")]


@pytest.mark.parametrize(
    ("words", "task", "what"),
    [
        ([], None, "there is no expression"),
        (["-"], None, "there is no expression"),
        ([], "add", "there is no expression"),
        (["1", "2"], "left_mask", "takes 1 operand, found 2"),
        (["1"], "add", "takes 2 operands, found 1"),
        (["1", "x"], "add", "operand b holds"),
        (["1"], "ad", "no task"),
        (["1"], "\x1b[2J", "no task"),
    ],
)
def test_wrong_problems(words: list[str], task: str | None, what: str) -> None:
    with pytest.raises(UserError) as caught:
        problems_of(words, task, ["\n"])
    assert what in caught.value.what
    assert_printable(caught.value)


def assert_printable(error: UserError) -> None:
    """Nothing hostile is repeated raw, and nothing long."""
    text = str(error)
    assert text.isascii() and text.replace("\n", "").isprintable() and len(text) < 1_000
