"""Regular expressions over a machine's symbols, and the finite automata of their words.

Expressions are those of Python's ``re``, as far as they go: a symbol, ``.``, ``[abc]``, ``(...)``, ``|``, and
``* + ? {m} {m,} {m,n}`` behind one of these. A symbol of several characters, or one with a meaning of its own, stands
between quotes: ``'10'+ '*'``. Blanks outside quotes are skipped.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from math import inf

import numpy as np

from ..errors import UserError, quoted
from .columns import I64, Bool

MOST_STATES, MOST_PLACES, MOST_COPIES, MOST_DEPTH = 1_000, 2_000, 1_000, 50
REPEAT = re.compile(r"[*+?]|\{(\d{1,6})(,?)(\d{0,6})\}")
QUOTED = re.compile(r"'[^']+'|\"[^\"]+\"")
COPIES = {"*": (0, inf), "+": (1, inf), "?": (0, 1)}
PARTS = "symbols, . | ( ) [ ], and * + ? {m} {m,} {m,n} behind one; a symbol like these in quotes"


def automaton(expression: str, symbols: Sequence[str], where: str) -> tuple[I64, Bool]:
    """Return the automaton of an expression's words: next states, shape (states, symbols), and which states accept.

    Raises UserError where it is no expression, or too large, and says at which column (from 1) it goes wrong.
    """
    parser = _Parser(expression, symbols, where)
    reached = cache(parser.reached)
    states, rows = {reached(frozenset([0])): 0}, list[list[int]]()  # a state: the nodes that may come next
    while len(rows) < len(states):
        after: list[set[int]] = [set() for _ in symbols]
        for node in list(states)[len(rows)]:
            for code in parser.codes[node]:
                after[code - 1].update(parser.after[node])
        rows.append([states.setdefault(reached(frozenset(nodes)), len(states)) for nodes in after])
        if len(states) > MOST_STATES:
            what = f"the expression {quoted(expression)} has more than {MOST_STATES:,} states"
            raise UserError(what, where=where, allowed="a shorter expression, smaller counts")
    table = np.array(rows, np.int64).reshape(len(rows), len(symbols))
    return table, np.array([parser.end in state for state in states], np.bool_)


def shown(symbols: Sequence[str]) -> str:
    """Return an alphabet for a message."""
    return " ".join(map(quoted, symbols[:40])) + (f" and {len(symbols) - 40} others" if len(symbols) > 40 else "")


class _Parser:
    """Reads an expression from left to right, and makes its automaton (Thompson's) on the way.

    A node has the codes of which one is read on it, or is passed where it has none; ``after`` are those that follow.
    Methods that take a node read a part of the text behind it, and return the node where that part ends.
    """

    def __init__(self, text: str, symbols: Sequence[str], where: str) -> None:
        self.text, self.symbols, self.where, self.depth, self.num_places = text, symbols, where, 0, 0
        self.known = {symbol: code for code, symbol in enumerate(symbols, 1)}
        self.codes, self.after = [frozenset[int]()], [list[int]()]
        self.go(0)
        self.end = self.choice(0)
        self.require(not self.here, "this ) closes nothing")

    def go(self, place: int) -> None:
        self.place = len(self.text) - len(self.text[place:].lstrip())
        self.here = self.text[self.place : self.place + 1]

    def takes(self, sign: str) -> bool:
        """Tell whether a sign stands here, and go past it."""
        if found := self.here == sign:
            self.go(self.place + 1)
        return found

    def require(self, holds: object, what: str, allowed: str = PARTS, place: int | None = None) -> None:
        """Raise UserError, which says ``what`` is wrong at a place, by default here, unless something holds."""
        if not holds:
            where = f"{self.where}, column {(self.place if place is None else place) + 1} of {quoted(self.text)}"
            raise UserError(what, where=where, allowed=allowed)

    def node(self, before: Iterable[int], codes: Iterable[int] = ()) -> int:
        self.codes.append(frozenset(codes))
        self.after.append([])
        for node in before:
            self.after[node].append(len(self.after) - 1)
        return len(self.after) - 1

    def reached(self, nodes: Iterable[int]) -> frozenset[int]:
        """Return where a symbol is read, or nothing follows, from some nodes on."""
        found, ahead = set[int](), list(nodes)
        while ahead:
            if (node := ahead.pop()) not in found:
                found.add(node)
                ahead += [] if self.codes[node] else self.after[node]
        return frozenset(node for node in found if self.codes[node] or node == self.end)

    def choice(self, start: int) -> int:
        ends = list[int]()
        while not ends or self.takes("|"):
            end = start
            while self.here not in ("", "|", ")"):
                end = self.repeated(end)
            ends.append(end)
        return self.node(ends)

    def repeated(self, start: int) -> int:
        """Read X{m,n} as X X (X (X)?)?, and X{m,} with a last X that follows itself."""
        place, num_places, first = self.place, self.num_places, self.node([start])
        end = self.part(first)
        if not (found := REPEAT.match(self.text, self.place)):
            return end
        least, most = COPIES.get(found[0], (0, inf))
        if found[1]:
            least, most = int(found[1]), float(found[3] or (inf if found[2] else found[1]))
            counts = least <= most and max(least, most if most < inf else 0) <= MOST_COPIES
            self.require(counts, f"{quoted(found[0])} is no count", f"{{m,n}} with m <= n <= {MOST_COPIES:,}")
        self.go(found.end())
        once, behind = not REPEAT.match(self.text, self.place), self.place
        self.require(once, "a part is repeated twice", "one of * + ? {m} {m,} {m,n} behind a part; ( ) around both")
        if num_places == self.num_places:  # copies of the empty word are one
            return end
        if most == 0:
            self.after[start].pop()
            return start
        ends = [start] if least == 0 else []
        for copy in range(1, max(least, 1) if most == inf else int(most)):
            ends += [end] if copy >= least else []
            self.go(place)
            first = self.node([end])
            end = self.part(first)
        self.go(behind)
        if most == inf:
            self.after[end].append(first)
        return self.node([*ends, end])

    def part(self, start: int) -> int:
        opened = self.place
        if self.takes("("):
            self.require(self.depth < MOST_DEPTH, f"parentheses in more than {MOST_DEPTH} others", place=opened)
            self.depth += 1
            end = self.choice(start)
            self.require(self.takes(")"), "this ( is not closed", place=opened)
            self.depth -= 1
            return end
        what = f"more than {MOST_PLACES:,} symbols, copies written out"
        self.require(self.num_places < MOST_PLACES, what, "a shorter expression", len(self.text))
        self.num_places += 1
        return self.node([start], self.symbols_here())

    def symbols_here(self) -> Iterable[int]:
        """Read a symbol, a list of some or a point; return their codes."""
        opened = self.place
        self.require(self.here != "." or self.symbols, "there is no input symbol")
        if self.takes("."):
            return self.known.values()
        listed, codes = self.takes("["), set[int]()
        while not codes or (listed and not self.takes("]")):
            self.require(self.here, "this [ is not closed", place=opened)
            found = QUOTED.match(self.text, self.place)
            allowed = "one or more symbols between [ and ]; - and ^ in quotes" if listed else PARTS
            odd = self.here in ("-^]" if listed else "*+?{}]'\"") and not found
            self.require(not odd, f"{quoted(self.here)} has no place here", allowed)
            symbol = found[0][1:-1] if found else self.here
            self.require(symbol in self.known, f"there is no input symbol {quoted(symbol)}", shown(self.symbols))
            self.go(found.end() if found else self.place + 1)
            codes.add(self.known[symbol])
        return codes
