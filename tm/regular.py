"""Regular expressions over a machine's symbols, and the finite automata of their words.

Expressions are those of Python's ``re``, as far as they go: a symbol, ``.``, ``[abc]``, ``(...)``, ``|``, and
``* + ? {m} {m,} {m,n}`` behind one of these. A symbol of several characters, or one with a meaning of its own, stands
between quotes: ``'10'+ '*'``. Blanks outside quotes are skipped.
"""

import re
from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from ..errors import UserError, quoted
from .columns import I64, Bool

MOST_STATES, MOST_CHARACTERS, MOST_DEPTH = 1_000, 2_000, 50
COUNT = re.compile(r"[*+?]|\{[0-9]{1,6}(?:,[0-9]{0,6})?\}")
COUNTS = {"*": (0, inf), "+": (1, inf), "?": (0, 1)}
SYMBOL = re.compile(r"'[^']+'|\"[^\"]+\"|\S")
LISTED = r"\[(?:'[^']+'|\"[^\"]+\"|[^\]])++\]"
TOKEN = re.compile(rf"{COUNT.pattern}|{LISTED}|{SYMBOL.pattern}")
PARTS = "symbols, . | ( ) [ ], and * + ? {m} {m,} {m,n} behind one; a symbol like these in quotes"
# Parts that follow each other: what is repeated, how often at least and at most. That is the codes of which one is
# read, or the options of a group: a tuple of such parts again.
Parts = tuple[tuple[Any, int, float], ...]


def automaton(expression: str, symbols: Sequence[str], where: str) -> tuple[I64, Bool]:
    """Return the automaton of an expression's words: next states, shape (states, symbols), and which states accept.

    A state is the set of what may follow (Antimirov's partial derivatives). Raises UserError where the expression is
    none, or too large, and says at which column (from 1) it goes wrong.
    """
    states, rows = {frozenset(_Reader(expression, symbols, where).options()): 0}, list[list[int]]()
    while len(rows) < len(states):
        state = list(states)[len(rows)]
        if len(states) > MOST_STATES or sum(map(len, state)) > 10 * MOST_STATES:
            what, allowed = f"the expression {quoted(expression)} is too large", f"{MOST_STATES:,} states"
            raise UserError(what, where=where, allowed=f"{allowed}: a shorter expression, smaller counts")
        following = ((_after(parts, code) for parts in state) for code in range(1, len(symbols) + 1))
        rows.append([states.setdefault(frozenset[Parts]().union(*found), len(states)) for found in following])
    table = np.array(rows, np.int64).reshape(len(rows), len(symbols))
    return table, np.array([any(map(_may_end, state)) for state in states], np.bool_)


def shown(symbols: Sequence[str]) -> str:
    """Return an alphabet for a message."""
    return " ".join(map(quoted, symbols[:40])) + (f" and {len(symbols) - 40} others" if len(symbols) > 40 else "")


def _after(parts: Parts, code: int) -> set[Parts]:
    """Return what may follow where a symbol is read at the beginning of some parts."""
    found = set[Parts]()
    for place, (body, least, most) in enumerate(parts):
        rest = ((body, max(least - 1, 0), most - 1),) * (most > 1) + parts[place + 1 :]
        if isinstance(body, tuple):
            found.update(inner + rest for option in body for inner in _after(option, code))
        elif code in body:
            found.add(rest)
        if not _may_end(parts[place : place + 1]):
            break
    return found


def _may_end(parts: Parts) -> bool:
    return all(least == 0 or (isinstance(body, tuple) and any(map(_may_end, body))) for body, least, _ in parts)


class _Reader:
    """Reads an expression; places count from 0."""

    def __init__(self, text: str, symbols: Sequence[str], where: str) -> None:
        self.text, self.symbols, self.where = text, symbols, where
        self.known = {symbol: code for code, symbol in enumerate(symbols, 1)}

    def require(self, holds: object, what: str, place: int, allowed: str = PARTS) -> None:
        if not holds:
            raise UserError(what, where=f"{self.where}, column {place + 1} of {quoted(self.text)}", allowed=allowed)

    def options(self) -> list[Parts]:
        """Return what stands between the outer |."""
        groups: list[tuple[int, list[Parts]]] = [(0, [()])]  # those that are open: where, and their options
        self.require(len(self.text) <= MOST_CHARACTERS, "the expression goes on here", MOST_CHARACTERS, "a shorter one")
        for found in TOKEN.finditer(self.text):
            token, place, options = found[0], found.start(), groups[-1][1]
            if token == "(":
                self.require(len(groups) <= MOST_DEPTH, f"parentheses in more than {MOST_DEPTH} others", place)
                groups.append((place, [()]))
            elif token == ")":
                self.require(len(groups) > 1, "this ) closes nothing", place)
                groups.pop()
                groups[-1][1][-1] += ((tuple(options), 1, 1),)
            elif token == "|":
                options.append(())
            elif COUNT.fullmatch(token):
                options[-1] = self.repeated(options[-1], token, place)
            else:
                options[-1] += ((self.codes(token, place), 1, 1),)
        self.require(len(groups) == 1, "this ( is not closed", groups[-1][0])
        return groups[0][1]

    def repeated(self, parts: Parts, count: str, place: int) -> Parts:
        """Return parts of which the last one is repeated."""
        *before, (body, *once) = parts or [((), 0, 0)]
        self.require(once == [1, 1], f"{quoted(count)} repeats nothing, or what is repeated already", place)
        first, *last = count.strip("{}").split(",")
        least, most = COUNTS.get(count) or (int(first), float([first, *last][-1] or inf))
        self.require(least <= most, f"{quoted(count)} is no count", place, "{m,n} with m <= n")
        return (*before, (body if most else frozenset(), least, most))

    def codes(self, token: str, place: int) -> frozenset[int]:
        """Return the codes of a symbol, of a list of some or of a point."""
        if token == ".":
            self.require(self.symbols, "there is no input symbol", place)
            return frozenset(self.known.values())
        listed, codes = token[0] == "[", set[int]()
        for found in SYMBOL.finditer(token[1:-1] if listed else token):
            symbol, at = found[0], place + listed + found.start()
            self.require(symbol not in ("-^" if listed else "{}]'\""), f"{quoted(symbol)} has no place here", at)
            symbol = symbol[1:-1] if len(symbol) > 1 else symbol
            what = f"there is no input symbol {quoted(symbol)}"
            self.require(symbol in self.known, what, at, shown(self.symbols))
            codes.add(self.known[symbol])
        self.require(codes, "this [ is not closed, or holds nothing", place)
        return frozenset(codes)
