"""Rules that a task's settings obey, and the messages for settings that do not.

The rules say what is wrong; a ``Spelling`` says how the reader wrote it (a field, an option, a line of TOML).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Any, Literal, NoReturn

from ..errors import UserError, clip, nearest

ALIASES = {"addition": "add", "subtraction": "sub", "multiplication": "mul", "division": "div"}
MAX_LEN = 1_000  # ceiling of operand lengths, in digits, unless a declaration raises `max_len`
RAISED_MAX_LEN = 10_000  # one transition of 10,000 digits is some 80 kB of text; more is a typing error
OPTIONS = {"splits": "--split", "views": "--view"}  # the others are spelled as their field


@dataclass(frozen=True)
class Rule:
    """What one field may hold, and what it does to the data.

    Args:
        effect: ``data``: part of a task's identity; ``selection``: chooses among views or splits, part of the
            identity of a config; ``none``: leaves every row and byte as it is.
        kind: ``integer``, ``boolean``, ``word`` or ``words`` (a list of words without repetition).
        low: smallest integer allowed.
        high: largest integer allowed.
        choices: the words allowed, in canonical order; empty for a task's name, which the registry decides.
        optional: None is allowed and stands for the default.
    """

    effect: Literal["data", "selection", "none"]
    kind: Literal["integer", "boolean", "word", "words"]
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False


class Spelling:
    """How messages name settings; as Python fields unless a subclass knows better."""

    def name(self, key: str) -> str:
        """Return the name of the field ``key``."""
        return key

    def setting(self, key: str, value: object) -> str:
        """Return ``key`` set to ``value``, as one would write it."""
        return f"{key} = {shown(value)}"

    def where(self, *keys: str) -> str | None:
        """Return the place where ``keys``, or those of them that were given, stand."""
        return None

    def raise_ceiling(self, length: int) -> str:
        """Return the advice for operands of ``length`` digits, longer than ``max_len``."""
        return f"set max_len = {length} if operands that long are meant"


class FlagSpelling(Spelling):
    """Settings as options of the command line.

    Args:
        given: the options that the user gave, by field; defaults stay out.
    """

    def __init__(self, given: Mapping[str, object]) -> None:
        self.given = given

    def name(self, key: str) -> str:
        """Return the option of the field ``key``."""
        return OPTIONS.get(key, "--" + key.replace("_", "-"))

    def setting(self, key: str, value: object) -> str:
        """Return the option with its value; lists repeat the option."""
        if isinstance(value, bool):
            return f"--{key}" if value else f"--no-{key}"
        if isinstance(value, list | tuple):
            return " ".join(self.setting(key, word) for word in value)
        plain = isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum()
        return f"{self.name(key)} {value if plain else shown(value)}"

    def where(self, *keys: str) -> str | None:
        """Return the options as they were given."""
        return " ".join(self.setting(key, self.given[key]) for key in keys if key in self.given) or None

    def raise_ceiling(self, length: int) -> str:
        """Return the advice to write a declaration: only a file may raise the ceiling."""
        return f"write max_len = {length} into a declaration and run: caef-data build my.toml"


PLAIN = Spelling()


def shown(value: object) -> str:
    """Return ``value`` as one would write it in TOML, short and safe to print whatever it holds."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        # str() of an int refuses more than 4,300 digits, so large ones are described
        return str(value) if abs(value) < 10**20 else f"about 10^{int(value.bit_length() * 0.30103)}"
    if isinstance(value, str):
        return f'"{value}"' if value.isidentifier() and value.isascii() and len(value) < 40 else clip(value)
    if isinstance(value, list | tuple):
        short = len(value) <= 9 and all(isinstance(item, str | int) for item in value)
        return "[" + ", ".join(shown(item) for item in value) + "]" if short else f"a list of {len(value)}"
    if isinstance(value, date | time):
        return value.isoformat()
    return "a table" if isinstance(value, dict) else "nothing" if value is None else clip(value)


def count(number: int) -> str:
    """Return ``number`` with thousands separators, or its order of magnitude."""
    return f"{number:,}" if number < 10**12 else f"about 10^{int(number.bit_length() * 0.30103)}"


def task_names() -> tuple[str, ...]:
    """Return the names of the registered tasks."""
    from .. import tm  # inside: reading a declaration's source needs no machines

    return tuple(tm.tasks())


def check_task(value: object, spelling: Spelling, where: str | None = None) -> str:
    """Return the registered short name of a task; a long name of the paper is accepted.

    Raises:
        UserError: it is no text or no task.
    """
    names = task_names()
    short = ALIASES.get(value, value) if isinstance(value, str) else None
    if short in names:
        return str(short)
    hint = nearest(value[:60], (*names, *ALIASES, "all")) if isinstance(value, str) else ""
    raise UserError(
        f"{spelling.name('task')} is {shown(value)}, which is no task{hint}",
        where=where or spelling.where("task"),
        allowed=", ".join(names) + ", or all",
    )


def check_field(key: str, value: object, rule: Rule, spelling: Spelling) -> object:
    """Return the normalised value of one field: words in canonical order, tasks by their short name.

    Raises:
        UserError: wrong type, out of range, not one of the choices, or a word given twice.
    """
    if value is None and rule.optional:
        return None
    if key == "task":
        return check_task(value, spelling)

    def refuse(what: str, allowed: str) -> NoReturn:
        raise UserError(f"{spelling.name(key)} {what}", where=spelling.where(key), allowed=allowed)

    if rule.kind == "integer":
        return _check_integer(value, rule, refuse)
    if rule.kind == "boolean":
        if not isinstance(value, bool):
            refuse(f"is {shown(value)}, which is neither true nor false", "true, false")
        return value
    choices = ", ".join(rule.choices)
    if rule.kind == "word":
        if value not in rule.choices:
            hint = nearest(value[:60], rule.choices) if isinstance(value, str) else ""
            refuse(f"is {shown(value)}{hint}", choices)
        return next(word for word in rule.choices if word == value)  # a plain str, also from an Enum
    return _check_words(value, rule, refuse)


def _check_integer(value: object, rule: Rule, refuse: Callable[[str, str], NoReturn]) -> int:
    low, high = rule.low, rule.high
    allowed = f"a whole number, {low:,} to {high:,}" if high is not None else f"a whole number from {low:,}"
    if not isinstance(value, int) or isinstance(value, bool):  # true is an int in Python, "20" is none
        refuse(f"is {shown(value)}, which is no whole number", allowed)
    if (low is not None and value < low) or (high is not None and value > high):
        refuse(f"is {shown(value)}, out of range", allowed)
    return value


def _check_words(value: object, rule: Rule, refuse: Callable[[str, str], NoReturn]) -> tuple[str, ...]:
    choices = ", ".join(rule.choices)
    if not isinstance(value, list | tuple):
        refuse(f"is {shown(value)}, which is no list", f'a list of words, such as ["{rule.choices[0]}"]')
    if not value:
        refuse("is empty", f"one or more of {choices}")
    for position, word in enumerate(value):
        if word not in rule.choices:
            hint = nearest(word[:60], rule.choices) if isinstance(word, str) else ""
            refuse(f"holds {shown(word)}{hint}", choices)
        if word in value[:position]:
            refuse(f"holds {shown(word)} twice", f"each of {choices} at most once")
    return tuple(word for word in rule.choices if word in value)


def check_settings(values: Mapping[str, object], rules: Mapping[str, Rule], spelling: Spelling) -> dict[str, Any]:
    """Return the settings of one task, normalised and with ``num_test`` resolved.

    Args:
        values: every field of the settings.
        rules: the rule of every field.
        spelling: how the reader wrote them.

    Raises:
        UserError: a field breaks its rule, or fields contradict each other.
    """
    checked: dict[str, Any] = {key: check_field(key, values[key], rule, spelling) for key, rule in rules.items()}
    if checked["num_test"] is None:
        checked["num_test"] = max(1, checked["num"] // 10)
    _check_lengths(checked, spelling)
    _check_num_test(checked, spelling)
    _check_all_steps(checked, spelling)
    return checked


def _check_lengths(values: Mapping[str, Any], spelling: Spelling) -> None:
    low, high, ceiling = values["min"], values["max"], values["max_len"]
    if high > ceiling:
        raise UserError(
            f"{spelling.name('max')} is {shown(high)} digits, above the ceiling of {ceiling:,}",
            where=spelling.where("max"),
            allowed=f"1 to {ceiling:,}",
            next_step=spelling.raise_ceiling(high) if ceiling < high <= RAISED_MAX_LEN else None,
        )
    if low > high:
        raise UserError(
            f"{spelling.name('min')} is {shown(low)}, larger than {spelling.setting('max', high)}",
            where=spelling.where("min", "max"),
            allowed=f"{spelling.name('min')} from 1 to {high}",
            next_step=f"lower {spelling.name('min')} or raise {spelling.name('max')}",
        )


def _check_num_test(values: Mapping[str, Any], spelling: Spelling) -> None:
    asked = [split for split in values["splits"] if split != "train"]
    if values["num_test"] == 0 and asked:
        raise UserError(
            f"{spelling.name('num_test')} is 0, but the {' and '.join(asked)} split"
            f"{'s are' if len(asked) > 1 else ' is'} asked for",
            where=spelling.where("num_test", "splits"),
            allowed=f"{spelling.name('num_test')} from 1, or no other split than train",
            next_step=f"use {spelling.setting('splits', ('train',))}",
        )


def _check_all_steps(values: Mapping[str, Any], spelling: Spelling) -> None:
    """Refuse whole traces that are longer than ``max_steps``, instead of quietly leaving them out."""
    if values["steps"] != "all":
        return
    from .. import tm

    machine = tm.machine(values["task"])
    low, limit = values["min"], values["max_steps"]

    def longest(top: int) -> int:  # a corner of the lengths: mul's b or add's n is long, or div's b is short
        return max(machine.max_num_steps(top, top), machine.max_num_steps(top, low))

    needed = longest(values["max"])
    if needed <= limit:
        return
    fits, fails = low - 1, values["max"]  # bisect: longest() grows with the length
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if longest(middle) <= limit else (fits, middle)
    lengths = f"{spelling.name('max')} up to {fits}" if fits >= low else f"no length from {low} digits on"
    raise UserError(
        f"{values['task']} with {spelling.setting('steps', 'all')} has runs of {count(needed)} transitions, "
        f"more than {spelling.setting('max_steps', limit)}",
        where=spelling.where("steps", "max", "max_steps"),
        allowed=f"{lengths} with {spelling.setting('min', low)} and these steps",
        next_step=(f"use {spelling.setting('max', fits)}, or " if fits >= low else "use ")
        + spelling.setting("steps", "sampled")
        + (f", or {spelling.setting('max_steps', needed)}" if needed <= 10**6 else ""),
    )
