"""Runs composers: machines whose steps call other machines, whose registers at any turn are known in closed form.

A composer says once, over ``+ - *``, what its registers hold and what it calls at turn k. With Python integers that
gives one transition; with ``Column`` the same lines give the texts of thousands of rows at once. Nobody walks the
10**99 turns of a loop.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa

from . import columns
from .batch import Batch, Rows, Texts, texts
from .columns import I64, Bool, Number, Operands
from .draws import log_uniform, uniform
from .interpreter import tape_text, units_first
from .machine import HALT, Dialect, Machine, Transition, machine
from .random import U64, below, words
from .render import Block, Part, decimal, render, tape
from .tape_engine import NEWLINE, Content, TapeBatch
from .template import Template

RANDOM = 3  # rows kept of a long run beside the first and the last: one uniform, the others log-uniform
KEEP_ALL = 10  # runs of at most this many transitions keep all of them

NINES = "nines of "  # a factor's name begins so: as many nines as the operand named behind has digits

Value = TypeVar("Value", int, "Column")


@dataclass(frozen=True)
class Call:
    """A state that calls a machine.

    Args:
        state: the state.
        task: the machine's task.
        operands: names of the registers that it is given; ``1`` is the number.
        into: the register that takes the result; empty where a truth value says whether to go on.
        then: the state that the command names.
    """

    state: str
    task: str
    operands: tuple[str, ...]
    into: str
    then: str

    @cached_property
    def line(self) -> str:
        """The command line."""
        return f"CMD [CALL] {self.task.upper()}, {self.then}"


class Composer(Machine):
    """A machine whose steps call basic machines by name.

    A prompt quotes the halting entry of the machine that was called, a completion the initial entry of the one to call;
    neither entry ends in an empty line, and only prompts end in a newline.

    Class attributes:
        line: the state line, over title, state, a, b and the registers.
        halted_line: that of qH.
        begin: the command of q0, over a and b.
        calls: the calls of a turn, in order.
        leaves: which of them is the last one of the last turn.
        goes_on: the result, True or False, that leads to another turn.
    """

    composer = True
    line: ClassVar[str]
    halted_line: ClassVar[str]
    begin: ClassVar[str]
    calls: ClassVar[tuple[Call, ...]]
    leaves: ClassVar[int] = 0
    goes_on: ClassVar[str] = ""

    def turns(self, a: int, b: int) -> int:
        """Return the number of turns."""
        return 1

    @abstractmethod
    def registers(self, a: Value, b: Value, k: Value, state: str) -> Mapping[str, Value]:
        """Return what the registers hold in a state of turn k, by the names of ``line`` and of calls' operands."""

    def operands(self, a: Value, b: Value, k: Value, call: Call) -> tuple[Value | int, ...]:
        """Return the operands of a call of turn k."""
        held: dict[str, Value | int] = {"a": a, "b": b, "1": 1, **self.registers(a, b, k, call.state)}
        return tuple(held[name] for name in call.operands)

    def published(self, quoted: str, a: int, b: int, k: int, state: str) -> str:
        """Return a quoted halting entry as the published rows have it."""
        return quoted

    def published_parts(self, group: Group, here: I64, state: str) -> Mapping[str, Part]:
        """Return the parts of a quoted halting entry that differ in the published rows."""
        return {}

    # One expression

    def num_steps(self, a: int, b: int) -> int:
        return len(self.calls) * (self.turns(a, b) - 1) + self.leaves + 2

    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        turn, at = (t + len(self.calls) - 1) // len(self.calls), (t - 1) % len(self.calls)
        state = self.calls[at].state if t else "q0"
        prompt = self._waiting(a, b, turn, at, dialect) if t else self.initial(a, b)
        if t == self.num_steps(a, b) - 1:
            return Transition(prompt, self.halted(a, b), state, "qH")
        turn, at = (turn, at + 1) if t and at + 1 < len(self.calls) else (turn + 1, 0)
        call = self.calls[at]
        quoted = machine(call.task).initial(*_two(self.operands(a, b, turn, call)))
        completion = f"{self._shown(call.state, a, b, turn)}\n{call.line}\n{quoted}".removesuffix("\n")
        return Transition(prompt, completion, state, call.state, call.task)

    def _waiting(self, a: int, b: int, turn: int, at: int, dialect: Dialect) -> str:
        call = self.calls[at]
        quoted = machine(call.task).halted(*_two(self.operands(a, b, turn, call)))
        if dialect == "published":
            quoted = self.published(quoted, a, b, turn, call.state)
        return f"{self._shown(call.state, a, b, turn)}\n{call.line}\n{quoted}"

    def _shown(self, state: str, a: int, b: int, turn: int) -> str:
        values = {"a": a, "b": b, **self.registers(a, b, turn, state)}
        line = self.halted_line if state == "qH" else self.line
        shown = {name: tape_text(units_first(value)) for name, value in values.items() if f"{{{name}}}" in line}
        return called(line, self.title, state, shown)

    def initial(self, a: int, b: int) -> str:
        tapes = {"a": tape_text(units_first(a)), "b": tape_text(units_first(b))}
        return f"{called(self.line, self.title, 'q0', tapes)}\n{self.begin.format_map(tapes)}\n"

    def halted(self, a: int, b: int) -> str:
        return f"{self._shown('qH', a, b, self.turns(a, b))}\n{HALT}"

    # Columns

    def count_turns(self, operands: Operands) -> Number:
        """Return the number of turns of each expression."""
        return Number(np.ones((1, len(operands)), np.uint8))

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return CallBatch(self, operands, dialect)


def _two(operands: tuple[int, ...]) -> tuple[int, int]:
    return (*operands, 0)[:2]  # type: ignore[return-value]


def called(line: str, title: str, state: str, parts: Mapping[str, str]) -> str:
    """Fill a state line; registers that hold nothing yet are left empty."""
    return re.sub(r"\{(\w+)\}", lambda found: {"title": title, "state": state, **parts}.get(found[1], ""), line)


# ----------------------------------------------------------------------------------------------------------- columns

Terms = frozenset[tuple[tuple[str, ...], int]]  # factors of each product, and how often it is added


class Column:
    """A column of numbers as a sum of products of columns; equal sums are worked out once.

    Args:
        group: the rows.
        terms: what is added up: products of columns of the group by name, each with its factor.
    """

    def __init__(self, group: Group, terms: Mapping[tuple[str, ...], int]) -> None:
        self.group, self.terms = group, {product: times for product, times in terms.items() if times}

    def _other(self, other: Column | int) -> Mapping[tuple[str, ...], int]:
        return other.terms if isinstance(other, Column) else {(): other}

    def __add__(self, other: Column | int) -> Column:
        """Return the sum."""
        terms = dict(self.terms)
        for product, times in self._other(other).items():
            terms[product] = terms.get(product, 0) + times
        return Column(self.group, terms)

    __radd__ = __add__

    def __neg__(self) -> Column:
        return Column(self.group, {product: -times for product, times in self.terms.items()})

    def __sub__(self, other: Column | int) -> Column:
        """Return the difference, which must not be negative where it is worked out."""
        return self + -other

    def __rsub__(self, other: int) -> Column:
        return -self + other

    def __mul__(self, other: Column | int) -> Column:
        """Return the product."""
        terms: dict[tuple[str, ...], int] = {}
        for one, times in self.terms.items():
            for two, factor in self._other(other).items():
                product = tuple(sorted(one + two))
                terms[product] = terms.get(product, 0) + times * factor
        return Column(self.group, terms)

    __rmul__ = __mul__

    @property
    def key(self) -> Terms:
        """What tells equal sums."""
        return frozenset(self.terms.items())

    @property
    def fixed(self) -> bool:
        """Whether the numbers are the same at every turn."""
        return fixed(self.key)

    @property
    def number(self) -> Number:
        """The numbers."""
        return self.group.number(self.key)


def fixed(terms: Terms) -> bool:
    """Tell whether a sum of products is the same at every turn."""
    return not any("k" in product for product, _ in terms)


def nines(value: Value) -> Value:
    """Return as many nines as an operand has digits.

    Raises:
        ValueError: the column is not an operand, but worked out.
    """
    if isinstance(value, int):
        return 10 ** len(str(value)) - 1
    ((name,),) = value.terms
    return Column(value.group, {(NINES + name,): 1})


@dataclass(eq=False)
class Group:
    """Rows of one call of a turn, and the numbers that their texts need.

    Nothing that a group holds refers to it: cycles would keep block after block of rows in memory.

    Args:
        machine: the composer.
        operands: all expressions.
        turns: their numbers of turns.
        rows: positions of the rows in what is rendered.
        e: their expressions.
        turn: their turns.
        whole: the group of all expressions, where what does not depend on the turn is worked out once.
    """

    machine: Composer
    operands: Operands
    turns: Number
    rows: I64
    e: I64
    turn: Number
    whole: Group | None = None
    _numbers: dict[Any, Number] = field(default_factory=dict)
    _calls: dict[Any, TapeBatch] = field(default_factory=dict)

    @property
    def a(self) -> Column:
        """The first operands."""
        return Column(self, {("a",): 1})

    @property
    def b(self) -> Column:
        """The second operands."""
        return Column(self, {("b",): 1})

    @property
    def k(self) -> Column:
        """The turns."""
        return Column(self, {("k",): 1})

    @cached_property
    def last(self) -> Bool:
        """Which rows belong to the last turn, shape (n,)."""
        return columns.equal(self.turn, self.turns.take(self.e))

    def number(self, terms: Terms) -> Number:
        """Return a sum of products, worked out at the first time it is asked for."""
        if terms not in self._numbers:
            if self.whole is not None and fixed(terms):
                found = self.whole.number(terms).take(self.e)
            elif len(terms) < 2:
                found = self._product(*next(iter(terms), ((), 0)))
            else:
                found = self._sum(terms)
            self._numbers[terms] = found
        return self._numbers[terms]

    def _sum(self, terms: Terms) -> Number:
        """Add a term to the others, or take it away: one that leaves a known sum, else one to be taken away."""
        term = min(terms, key=lambda term: (terms - {term} not in self._numbers, term[1] > 0, term))
        product, times = term
        rest, size = self.number(terms - {term}), self.number(frozenset({(product, abs(times))}))
        return columns.add(rest, size)[0] if times > 0 else columns.subtract(rest, size)

    def _product(self, product: tuple[str, ...], times: int) -> Number:
        if times != 1 or not product:
            constant = self._constant(times)
            return columns.multiply(self.number(frozenset({(product, 1)})), constant) if product else constant
        if len(product) > 1:
            first, rest = (self.number(frozenset({(part, 1)})) for part in (product[:1], product[1:]))
            return columns.multiply(first, rest)
        name = product[0]
        if name.startswith(NINES):
            return columns.nines(self.number(frozenset({((name.removeprefix(NINES),), 1)})).length)
        return self.turn if name == "k" else self.operands.a if name == "a" else self.operands.second

    def _constant(self, value: int) -> Number:
        digits = np.array([int(digit) for digit in units_first(value)], np.uint8)
        return Number(np.repeat(digits[:, None], len(self.e), axis=1))

    def tape(self, value: Column, here: I64) -> Part:
        """Return the tapes of a column at rows of the group."""
        if self.whole is not None and value.fixed:
            return tape(self.whole.number(value.key), self.e[here])
        return tape(value.number, here)

    def call(self, call: Call, turn: Column) -> tuple[TapeBatch, I64]:
        """Return the columns of the machine called in a state, and which of them belong to the group's rows."""
        operands = self.machine.operands(self.a, self.b, turn, call)
        if self.whole is not None and all(value.fixed for value in operands if isinstance(value, Column)):
            return self.whole.call(call, self.whole.k)[0], self.e
        key = (call.task, *(value.key if isinstance(value, Column) else value for value in operands))
        if key not in self._calls:
            numbers = [value.number if isinstance(value, Column) else self._constant(value) for value in operands]
            found = machine(call.task).batch(Operands(numbers[0], (*numbers[1:], None)[0]), "consistent")
            if not isinstance(found, TapeBatch):
                raise TypeError(f"a composer calls basic machines that can be tabulated, {call.task} is none")
            self._calls[key] = found
        return self._calls[key], np.arange(len(self.e))


@dataclass(frozen=True, eq=False)
class Places:
    """The index of a composer's rows: which call of which turn each waits for; turn 0 is the initial entry."""

    at: I64
    turn: Number
    groups: list[tuple[Call, Group]] = field(default_factory=list)


class CallBatch(Batch):
    """Expressions of a composer in columns."""

    machine: Composer

    def __init__(self, machine: Composer, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.turns = machine.count_turns(operands)

    @property
    def num_steps(self) -> I64:
        calls = len(self.machine.calls)
        return _transitions(self.turns, calls, self.machine.leaves + 2 - calls)

    def steps(self, rows: Rows) -> I64:
        calls = len(self.machine.calls)
        return np.where(rows.index.turn.is_zero(), 0, _transitions(rows.index.turn, calls, rows.index.at + 1 - calls))

    def take(self, rows: Rows, order: I64) -> Rows:
        return Rows(rows.expression[order], Places(rows.index.at[order], rows.index.turn.take(order)))

    def every(self) -> Rows:
        return self._walked(self.all)

    def _walked(self, expressions: I64) -> Rows:
        """Return every transition of some expressions, in order."""
        steps, calls = self.num_steps[expressions], len(self.machine.calls)
        expression = np.repeat(expressions, steps)
        t = np.arange(len(expression)) - np.repeat(np.cumsum(steps) - steps, steps) + calls - 1
        return Rows(expression, Places(t % calls, _number(t // calls)))

    def sampled(self, key: U64) -> Rows:
        num_steps = self.num_steps
        whole = (num_steps >= 0) & (num_steps <= KEEP_ALL)
        kept, rest = self._walked(np.flatnonzero(whole)), np.flatnonzero(~whole)
        limit = self.turns.take(rest)
        nothing = Number(np.zeros((1, len(rest)), np.uint8))
        parts = [
            (kept.expression, kept.index.at, kept.index.turn),
            (rest, np.full(len(rest), len(self.machine.calls) - 1), nothing),
            (rest, np.full(len(rest), self.machine.leaves), limit),
            *((rest, at, turn) for at, turn in self._random(key[rest], limit)),
        ]
        index = Places(np.concatenate([at for _, at, _ in parts]), _stacked([turn for *_, turn in parts]))
        return Rows(np.concatenate([part[0] for part in parts]), index)

    def _random(self, key: U64, limit: Number) -> list[tuple[I64, Number]]:
        """Draw distinct places before the last turn: one uniform, the others uniform in the turn's logarithm."""
        drawn: list[tuple[I64, Number]] = []
        calls = len(self.machine.calls)
        for j in range(RANDOM):
            at, length = np.zeros(len(key), np.int64), np.ones(len(key), np.int64)
            planes = np.zeros((limit.width, len(key)), np.uint8)
            again, attempt = np.arange(len(key)), 0
            while len(again):
                salt = words(key[again], 1000 * j + attempt)
                low = limit.take(again)
                found = uniform(low, salt) if j == 0 else log_uniform(low, salt)
                planes[:, again] = columns.widen(found.planes, limit.width)
                length[again] = found.length
                at[again] = below(words(salt, 1), np.full(len(again), calls)).astype(np.int64)
                repeats = np.zeros(len(again), np.bool_)
                for earlier_at, earlier in drawn:
                    same = (earlier.planes[:, again] == planes[: earlier.width, again]).all(axis=0)
                    repeats |= same & (at[again] == earlier_at[again])
                again, attempt = again[repeats], attempt + 1
            drawn.append((at, Number(planes, length)))
        return drawn

    def _groups(self, rows: Rows) -> list[tuple[int, Group]]:
        index = rows.index
        if not index.groups:
            for at in range(len(self.machine.calls)):
                here = np.flatnonzero(index.at == at)
                if len(here):
                    index.groups.append((at, self._group(here, rows.expression[here], index.turn.take(here))))
        return index.groups

    def _group(self, rows: I64, e: I64, turn: Number) -> Group:
        whole = None if e is self.all else self._whole
        return Group(self.machine, self.operands, self.turns, rows, e, turn, whole)

    def prompts(self, rows: Rows) -> Texts:
        blocks = []
        for at, group in self._groups(rows):
            call, initial = self.machine.calls[at], group.turn.is_zero()
            first, later = np.flatnonzero(initial), np.flatnonzero(~initial)
            if len(first):
                blocks.append(Block(group.rows[first], *_ended(self._initial(group, first)), state="q0"))
            if len(later):
                found, its_rows = group.call(call, group.k)
                template, parts = found.last(its_rows[later])
                if self.dialect == "published":
                    parts = {**parts, **self.machine.published_parts(group, later, call.state)}
                content = _lines(self._shown(call.state, group, group.k, later), call.line, (template, parts))
                blocks.append(Block(group.rows[later], *_ended(content), state=call.state))
        return texts(blocks, len(rows))

    def completions(self, rows: Rows) -> Texts:
        blocks, calls = [], self.machine.calls
        for at, group in self._groups(rows):
            ends = group.last if at == self.machine.leaves else np.zeros(len(group.rows), np.bool_)
            now, later = np.flatnonzero(ends), np.flatnonzero(~ends)
            if len(now):
                blocks.append(Block(group.rows[now], *self._halted(group, now), state="qH"))
            if len(later):
                call, turn = (calls[at + 1], group.k) if at + 1 < len(calls) else (calls[0], group.k + 1)
                found, its_rows = group.call(call, turn)
                quoted = found.first(its_rows[later])
                content = _lines(self._shown(call.state, group, turn, later), call.line, quoted)
                blocks.append(Block(group.rows[later], *content, state=call.state, call=call.task))
        return texts(blocks, len(rows))

    def _shown(self, state: str, group: Group, turn: Column, here: I64) -> Content:
        """Return the state line of a state."""
        line = self.machine.halted_line if state == "qH" else self.machine.line
        values = {"a": group.a, "b": group.b, **self.machine.registers(group.a, group.b, turn, state)}
        fields = {name: f"{{{name}}}" for name in values}
        template = Template(called(line, self.machine.title, state, fields))
        return template, {name: group.tape(values[name], here) for _, name in template.pieces if name}

    def _initial(self, group: Group, here: I64) -> Content:
        fields = {"a": "{a}", "b": "{b}"}
        line = called(self.machine.line, self.machine.title, "q0", fields)
        return Template(f"{line}\n{self.machine.begin}"), {
            name: group.tape(getattr(group, name), here) for name in fields
        }

    def _halted(self, group: Group, here: I64) -> Content:
        return _lines(self._shown("qH", group, group.k, here), HALT)

    @cached_property
    def _whole(self) -> Group:
        """Every expression at its last turn."""
        return self._group(self.all, self.all, self.turns)

    def initial(self) -> pa.Array:
        return render([Block(self.all, *_ended(self._initial(self._whole, self.all)))], len(self.all))

    def halted(self) -> pa.Array:
        return render([Block(self.all, *self._halted(self._whole, self.all))], len(self.all))

    def answer(self) -> Part:
        group = self._whole
        found = self.machine.registers(group.a, group.b, group.k, "qH")["out"]
        return decimal(found.number, self.all)


def _lines(*contents: Content | str) -> Content:
    """Join contents line by line; fields of the same name stay apart."""
    sources, parts = [], dict[str, Part]()
    for at, content in enumerate(contents):
        template, own = (Template(content), {}) if isinstance(content, str) else content
        sources.append(_numbered(template.source, at))
        parts.update({f"{name}{at}": part for name, part in own.items()})
    return Template("\n".join(sources)), parts


@lru_cache(maxsize=1024)
def _numbered(source: str, at: int) -> str:
    return re.sub(r"\{(\w+)\}", rf"{{\g<1>{at}}}", source)


def _ended(content: Content) -> Content:
    return content[0] + NEWLINE, content[1]


def _transitions(turn: Number, calls: int, more: I64 | int) -> I64:
    """Return turn * calls + more, -1 where it does not fit int64; ``more`` is small."""
    value = np.zeros(len(turn), np.uint64)
    for plane in reversed(turn.planes[:19]):
        value = value * np.uint64(10) + plane
    certain = (turn.length <= 19) & (value <= np.uint64(4 * 10**18))
    # Around the signed minimum nothing is lost: the sum is taken modulo 2**64, and read as unsigned.
    count = np.where(certain, value, np.uint64(1)) * np.uint64(calls) + np.asarray(more, np.int64).astype(np.uint64)
    return np.where(certain & (count <= np.uint64(2**63 - 1)), count, np.uint64(2**64 - 1)).view(np.int64)


def _number(values: I64) -> Number:
    """Return int64 values as a column."""
    width = len(str(int(values.max(initial=0))))
    return Number(np.stack([values // 10**k % 10 for k in range(width)]).astype(np.uint8))


def _stacked(numbers: list[Number]) -> Number:
    """Return columns one after the other."""
    width = max(number.width for number in numbers)
    planes = np.concatenate([columns.widen(number.planes, width) for number in numbers], axis=1)
    return Number(planes, np.concatenate([number.length for number in numbers]))
