"""Regular expressions over a machine's symbols, and the finite automata of their words.

Expressions are those of Python's ``re``, as far as they go: a symbol, ``.``, ``[abc]``, ``(...)``, ``|``, and
``* + ? {m} {m,} {m,n}`` behind one of these. A symbol of several characters, or one with a meaning of its own, stands
between quotes: ``'10'+ '*'``. Blanks outside quotes are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import UserError, quoted
from .columns import I64, Bool

MOST_STATES, MOST_PLACES, MOST_COPIES, MOST_DEPTH = 1_000, 2_000, 1_000, 50
_TOKEN = re.compile(r"\s*('[^']+'|\"[^\"]+\"|\{(\d{1,6})(,?)(\d{0,6})\}|\S|$)")
_COPIES = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_PARTS = "symbols, . | ( ) [ ], and * + ? {m} {m,} {m,n} behind one; a symbol like these in quotes"


def automaton(expression: str, symbols: Sequence[str], where: str) -> tuple[I64, Bool]:
    """Return the automaton of an expression's words: next states, shape (states, symbols), and which states accept.

    Raises:
        UserError: it is no expression, or too large; says at which column (from 1) it goes wrong.
    """
    parser = _Parser(expression, symbols, where)
    places = _Places(parser)
    empty, first, last = places.part(parser.whole())
    at = [places.of(code) for code in range(1, len(symbols) + 1)]
    states = {(first, empty): 0}  # what may come next, and whether the word may end here
    reached, rows = list(states), list[list[int]]()
    for ahead, _ in reached:
        row = []
        for bits in at:
            here = ahead & bits
            then = _union(places.follow[place] for place in _places(here)), bool(here & last)
            if then not in states:
                states[then] = len(states)
                reached.append(then)
            row.append(states[then])
        rows.append(row)
        if len(states) > MOST_STATES:
            what = f"the expression {quoted(expression)} has more than {MOST_STATES:,} states"
            raise UserError(what, where=where, allowed="a shorter expression, smaller counts")
    table = np.array(rows, np.int64).reshape(len(rows), len(symbols))
    return table, np.array([ends for _, ends in states], np.bool_)


def shown(symbols: Sequence[str]) -> str:
    """Return an alphabet for a message."""
    return " ".join(map(quoted, symbols[:40])) + (f" and {len(symbols) - 40} others" if len(symbols) > 40 else "")


class _Node(NamedTuple):
    """A part of an expression: one of some symbols, parts in a row, one of some parts, or copies of a part."""

    kind: str
    parts: tuple[_Node, ...] = ()
    codes: frozenset[int] = frozenset()
    copies: tuple[int, int | None] = (1, 1)


class _Parser:
    """Reads an expression from left to right. ``place`` is where the token begins that is read next."""

    def __init__(self, text: str, symbols: Sequence[str], where: str) -> None:
        self.text, self.symbols, self.where = text, symbols, where
        self.codes, self.place, self.depth = {symbol: k for k, symbol in enumerate(symbols, 1)}, 0, 0
        self._step(0)

    def error(self, what: str, allowed: str = _PARTS) -> UserError:
        return UserError(what, where=f"{self.where}, column {self.place + 1} of {quoted(self.text)}", allowed=allowed)

    def _step(self, end: int) -> None:
        found = _TOKEN.match(self.text, end)
        assert found is not None  # the pattern matches at the end of every text, and any character before
        self.found, self.token, self.place, self.end = found, found[1], found.start(1), found.end()

    def whole(self) -> _Node:
        node = self.choice()
        if self.token:
            raise self.error("this ) closes nothing")
        return node

    def choice(self) -> _Node:
        choices = [self.row()]
        while self.token == "|":
            self._step(self.end)
            choices.append(self.row())
        return choices[0] if len(choices) == 1 else _Node("choice", tuple(choices))

    def row(self) -> _Node:
        parts = []
        while self.token not in ("", "|", ")"):
            parts.append(self.repeated(self.one()))
        return _Node("row", tuple(parts))

    def repeated(self, node: _Node) -> _Node:
        if (copies := self.copies()) is None:
            return node
        self._step(self.end)
        if self.copies() is not None:
            raise self.error("a part is repeated twice", "one of * + ? {m} {m,} {m,n} behind a part; ( ) around both")
        return _Node("copies", (node,), copies=copies)

    def copies(self) -> tuple[int, int | None] | None:
        """Return how often the token repeats what stands before it; None where it is no such token."""
        least = self.found[2]
        if least is None or self.token in _COPIES:
            return _COPIES.get(self.token)
        most = int(self.found[4]) if self.found[4] else None if self.found[3] else int(least)
        if int(least) > MOST_COPIES or (most is not None and not int(least) <= most <= MOST_COPIES):
            raise self.error(f"{quoted(self.token)} is no count", f"{{m,n}} with m <= n <= {MOST_COPIES:,}")
        return int(least), most

    def one(self) -> _Node:
        token = self.token
        if self.copies() is not None or token in ("{", "}", "]", "'", '"'):
            raise self.error(f"{quoted(token)} has no place here")
        if token == "(":
            opened = self.place
            self.depth += 1
            if self.depth > MOST_DEPTH:
                raise self.error(f"parentheses in more than {MOST_DEPTH} others")
            self._step(self.end)
            node = self.choice()
            if self.token != ")":
                self.place = opened
                raise self.error("this ( is not closed")
            self.depth -= 1
        elif token == "[":
            node = _Node("symbol", codes=frozenset(self.listed()))
        elif token == ".":
            if not self.symbols:
                raise self.error("there is no input symbol")
            node = _Node("symbol", codes=frozenset(self.codes.values()))
        else:
            node = _Node("symbol", codes=frozenset([self.code()]))
        self._step(self.end)
        return node

    def listed(self) -> Iterator[int]:
        opened = self.place
        self._step(self.end)
        if self.token == "]":
            raise self.error("no symbol between [ and ]")
        while self.token != "]":
            if not self.token:
                self.place = opened
                raise self.error("this [ is not closed")
            if self.token in ("-", "^"):
                raise self.error(f"{self.token} means nothing between [ and ]", "the symbols; - and ^ in quotes")
            if self.found[2] is not None:  # no count here: each of its characters is a symbol
                self.token, self.end = "{", self.place + 1
            yield self.code()
            self._step(self.end)

    def code(self) -> int:
        symbol = self.token[1:-1] if len(self.token) > 1 else self.token
        if symbol not in self.codes:
            raise self.error(f"there is no input symbol {quoted(symbol)}", shown(self.symbols))
        return self.codes[symbol]


class _Part(NamedTuple):
    """What may come first and last in the words of a part, as bits of places; whether the empty word is one."""

    empty: bool
    first: int
    last: int


class _Places:
    """The places of symbols in an expression, and which may follow which (Glushkov's automaton), sets as bits."""

    def __init__(self, parser: _Parser) -> None:
        self.parser, self.codes, self.follow = parser, list[frozenset[int]](), list[int]()

    def part(self, node: _Node) -> _Part:
        if node.kind == "symbol":
            if len(self.codes) >= MOST_PLACES:
                raise self.parser.error(
                    f"more than {MOST_PLACES:,} symbols, copies written out", "a shorter expression"
                )
            self.codes.append(node.codes)
            self.follow.append(0)
            bit = 1 << len(self.codes) - 1
            return _Part(False, bit, bit)
        if node.kind == "choice":
            parts = [self.part(own) for own in node.parts]
            first, last = _union(own.first for own in parts), _union(own.last for own in parts)
            return _Part(any(own.empty for own in parts), first, last)
        whole = _Part(True, 0, 0)
        if node.kind == "row":
            for own in node.parts:
                whole = self.joined(whole, self.part(own))
            return whole
        return self.copied(node.parts[0], *node.copies)

    def of(self, code: int) -> int:
        return _union(1 << place for place, codes in enumerate(self.codes) if code in codes)

    def joined(self, left: _Part, right: _Part) -> _Part:
        for place in _places(left.last):
            self.follow[place] |= right.first
        first = left.first | (right.first if left.empty else 0)
        return _Part(left.empty and right.empty, first, right.last | (left.last if right.empty else 0))

    def copied(self, node: _Node, least: int, most: int | None) -> _Part:
        """Return X{m,n} as X X (X (X)?)?, and X{m,} with a last X that follows itself: no place is more than needed."""
        whole, before = _Part(True, 0, 0), len(self.codes)
        for copy in reversed(range(max(least, 1) if most is None else most)):
            own = self.part(node)
            if len(self.codes) == before:  # only the empty word
                return own
            if most is None and copy == max(least, 1) - 1:
                self.joined(own, own)
            whole = self.joined(own, whole)
            if copy >= least:
                whole = whole._replace(empty=True)
        return whole


def _places(bits: int) -> Iterator[int]:
    while bits:
        yield (bits & -bits).bit_length() - 1
        bits &= bits - 1


def _union(sets: Iterable[int]) -> int:
    whole = 0
    for bits in sets:
        whole |= bits
    return whole
