"""The numbers that the texts of a composer's rows need, worked out for whole columns.

A composer says over ``+ - *`` what its registers hold at turn k. With ``Column`` for its operands and the turn, the
same lines give sums of products; a ``Group`` works each one out once for all its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, TypeVar

import numpy as np

from . import columns
from .columns import I64, Bool, Number, Operands
from .interpreter import units_first
from .registry import machine
from .render import Field, tape
from .tape_engine import TapeBatch

NINES = "nines of "  # a factor's name begins so: as many nines as the operand named behind has digits

Value = TypeVar("Value", int, "Column")
Term = tuple[tuple[str, ...], int]  # factors of a product, and how often it is added
Terms = frozenset[Term]


class Column:
    """A column of numbers as a sum of products of columns; equal sums are worked out once.

    Args:
        group: the rows.
        terms: what is added up: products of columns of the group by name, each with its factor; equal ones are joined.
    """

    def __init__(self, group: Group, terms: Iterable[Term]) -> None:
        total: dict[tuple[str, ...], int] = {}
        for factors, times in terms:
            total[factors] = total.get(factors, 0) + times
        self.group = group
        self.terms = frozenset((factors, times) for factors, times in total.items() if times)

    def __add__(self, other: Column | int) -> Column:
        return Column(self.group, (*self.terms, *_terms(other)))

    __radd__ = __add__

    def __sub__(self, other: Column | int) -> Column:
        """Return the difference, which must not be negative where it is worked out."""
        return self + other * -1

    def __rsub__(self, other: int) -> Column:
        return self * -1 + other

    def __mul__(self, other: Column | int) -> Column:
        pairs = product(self.terms, _terms(other))
        return Column(self.group, ((tuple(sorted(one + two)), n * m) for (one, n), (two, m) in pairs))

    __rmul__ = __mul__

    @property
    def fixed(self) -> bool:
        """Whether the numbers are the same at every turn."""
        return _fixed(self.terms)

    @property
    def number(self) -> Number:
        return self.group.number(self.terms)


def _terms(value: Column | int) -> Iterable[Term]:
    return value.terms if isinstance(value, Column) else (((), value),)


def _in(group: Group, value: Column | int) -> Column | int:
    return Column(group, value.terms) if isinstance(value, Column) else value


def _fixed(terms: Terms) -> bool:
    return not any(factor in ("k", NINES + "k") for factors, _ in terms for factor in factors)


def nines(value: Value) -> Value:
    """Return as many nines as an operand has digits.

    Raises:
        ValueError: the column is not an operand, but worked out.
    """
    if isinstance(value, int):
        return 10 ** len(str(value)) - 1
    (((name,), _),) = value.terms
    return Column(value.group, [((NINES + name,), 1)])


@dataclass(eq=False)
class Group:
    """Rows of one call of a turn, and the numbers that their texts need.

    Nothing that a group holds refers to it: cycles would keep block after block of rows in memory.

    Args:
        operands: all expressions.
        turns: their numbers of turns.
        rows: positions of the rows in what is rendered.
        e: their expressions.
        turn: their turns.
        whole: the group of all expressions, where what does not depend on the turn is worked out once.
    """

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
        return Column(self, [(("a",), 1)])

    @property
    def b(self) -> Column:
        return Column(self, [(("b",), 1)])

    @property
    def k(self) -> Column:
        return Column(self, [(("k",), 1)])

    @cached_property
    def last(self) -> Bool:
        """Which rows belong to the last turn, shape (n,)."""
        return columns.equal(self.turn, self.turns.take(self.e))

    def number(self, terms: Terms) -> Number:
        """Return a sum of products, worked out at the first time it is asked for."""
        if terms not in self._numbers:
            if self.whole is not None and _fixed(terms):
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
        factors, times = term
        rest, size = self.number(terms - {term}), self.number(frozenset({(factors, abs(times))}))
        return columns.add(rest, size)[0] if times > 0 else columns.subtract(rest, size)

    def _product(self, factors: tuple[str, ...], times: int) -> Number:
        if times != 1 or not factors:
            constant = self._constant(times)
            return columns.multiply(self.number(frozenset({(factors, 1)})), constant) if factors else constant
        if len(factors) > 1:
            return columns.multiply(*(self.number(frozenset({(part, 1)})) for part in (factors[:1], factors[1:])))
        (name,) = factors
        if name.startswith(NINES):
            return columns.nines(self.number(frozenset({((name.removeprefix(NINES),), 1)})).length)
        return self.turn if name == "k" else self.operands.a if name == "a" else self.operands.second

    def _constant(self, value: int) -> Number:
        digits = np.array([int(digit) for digit in units_first(value)], np.uint8)
        return Number(np.repeat(digits[:, None], len(self.e), axis=1))

    def tape(self, value: Column, here: I64) -> Field:
        """Return the tapes of a column at rows of the group."""
        if self.whole is not None and value.fixed:
            return tape(self.whole.number(value.terms), self.e[here])
        return tape(value.number, here)

    def call(self, task: str, operands: Sequence[Column | int]) -> tuple[TapeBatch, I64]:
        """Return the columns of a machine called on these, and which of them belong to the group's rows."""
        if self.whole is not None and all(value.fixed for value in operands if isinstance(value, Column)):
            return self.whole.call(task, [_in(self.whole, value) for value in operands])[0], self.e
        key = (task, *(value.terms if isinstance(value, Column) else value for value in operands))
        if key not in self._calls:
            numbers = [value.number if isinstance(value, Column) else self._constant(value) for value in operands]
            found = machine(task).batch(Operands(numbers[0], (*numbers[1:], None)[0]), "consistent")
            if not isinstance(found, TapeBatch):
                raise TypeError(f"a composer calls basic machines that can be tabulated, {task} is none")
            self._calls[key] = found
        return self._calls[key], np.arange(len(self.e))
