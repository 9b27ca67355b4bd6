"""Hostile declarations and flags: a UserError or a valid declaration, nothing else."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data.errors import UserError
from caef_data.pipelines.declaration import from_flags, parse_declaration
from caef_data.pipelines.settings import KEYS, VIEWS, TaskSettings
from caef_data.tests.sizes import examples

NINE = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask")

SCRAPS = [
    "0", "1", "-1", "007", "+5", "1e3", "0x10", "9" * 4_400, "0b1", "1_000", "nan", "-0", "true", "٣",
    "３", "", " ", "\n", "\r", "\t", "\0", '"', "'", '"""', "'''", "[", "]", "[[", "]]", "{", "}", "=",
    ",", ".", "..", "#", "\\", '"\\u0000"', '"../../etc/passwd"', "'add'", '"sub"', "'all'",
    "['add', 'sub']", "['train']", "['raw']", "[[task]]\n", "[task]\n", "task = ", "min = ", "max = ",
    "num = ", "num_test = ", "splits = ", "views = ", "steps = 'all'\n", "seed = ", "name = ",
    "repo = ", "description = ", "balance = ", "max_len = ", "\n", "\n", "task = 'mul'\n",
    "task = 'div'\n", "\ufeff", "1979-05-27", "07:32:00", "é", "x.y = ", "\u2028",
]  # fmt: skip
WORDS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**30, 10**31), st.just(10**5_000), st.floats(),
    st.text(max_size=9), st.binary(max_size=3),
    st.sampled_from([*VIEWS, *NINE, "train", "test", "all", "١", "..", ""]),
)  # fmt: skip
VALUES = st.one_of(WORDS, st.lists(WORDS, max_size=4), st.dictionaries(st.text(max_size=3), WORDS, max_size=2))


@settings(max_examples=examples(120, 400), deadline=None)
@given(st.lists(st.sampled_from(SCRAPS), max_size=14).map("".join))
def test_hostile_toml_scraps(text: str) -> None:
    try:
        assert parse_declaration(text, "my.toml").tasks
    except UserError as error:
        assert len(str(error)) < 2_000
        assert str(error).isascii()


def toml(value: object) -> str:
    """Write a value as TOML, so that hostile values get past the parser."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value) if value >= 0 else str(max(value, -(2**62)))
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    escaped = "".join(f"\\U{ord(c) if not 0xD800 <= ord(c) < 0xE000 else 63:08X}" for c in str(value))
    return str(value) if isinstance(value, float) else f'"{escaped}"'


NAMES = st.sampled_from([*KEYS, "name", "repo", "description"]) | st.text(max_size=4)
TABLES = st.dictionaries(NAMES, VALUES, max_size=4)


@settings(max_examples=examples(120, 400), deadline=None)
@given(TABLES, st.lists(TABLES, max_size=3), st.sampled_from(["\n", "\r\n", "\n# [[task]]\n"]))
def test_hostile_toml_values(top: dict[str, object], tables: list[dict[str, object]], end: str) -> None:
    lines = [f"{toml(key)} = {toml(value)}" for key, value in top.items() if key != "task" or not tables]
    for table in tables:
        lines += ["[[task]]", *(f"{toml(key)} = {toml(value)}" for key, value in table.items())]
    text = end.join(lines)
    try:
        assert parse_declaration(text, "my.toml").tasks
    except UserError as error:
        assert "my.toml" in str(error) or "nothing to build" in str(error)
        assert len(str(error)) < 2_000
        assert str(error).isascii()


@settings(max_examples=examples(120, 400), deadline=None)
@given(st.lists(st.sampled_from([*NINE, "all", "", "\n", "..", "sub "]) | st.text(), max_size=3), TABLES)
def test_hostile_flags(tasks: list[str], given: dict[str, object]) -> None:
    given.pop("task", None)
    try:
        for made in from_flags(tasks, **given).tasks:
            assert TaskSettings.of(made.to_dict()) == made
    except UserError as error:
        assert len(str(error)) < 2_000
        assert str(error).isascii()


def test_large_files_are_read_in_time() -> None:
    texts = ["a=1\n" * 9, "\n".join(f"k{n} = {n}" for n in range(60_000)), "x = [" + "1," * 400_000 + "]"]
    texts += [
        "# '\"[\n" * 100_000,
        (".".join("a" * 400) + " = 1\n") * 1_000,
        "x = '''" + "\n" * 900_000 + "'''",
    ]
    start = time.perf_counter()
    for text in texts:
        with pytest.raises(UserError):
            parse_declaration(text)
    assert time.perf_counter() - start < 20
