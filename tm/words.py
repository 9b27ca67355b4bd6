"""Input words of a machine: the words of a language by rank, and words as operands in columns.

A word is held in a ``Number``: plane k is its k-th symbol from the left, by its code 1, 2, ... (0 beyond the word).
Nothing else of ``Number`` means anything for words.
"""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, quoted
from .classes import Coordinates, OperandDistribution
from .columns import I64, U8, U64, Bool, Number, Operands
from .regular import automaton, shown

MOST_GROUPED = 4_096  # states times groups of symbols that are drawn at once
LIMIT = 2**63  # larger numbers are Python's
INDEXED = 10**17  # words of a length: up to so many the selector is the rank
_MIX = 0x9E3779B97F4A7C15  # odd: 2**64 over the golden ratio


class Language(OperandDistribution):
    """The words that a machine is given, a class for each length: a finite automaton over the codes of its symbols.

    ``next_state`` has the shape (states, symbols), ``accepting`` (states,); the first state is 0. All words over the
    symbols where there is no expression. Raises UserError where the expression is none.

    Where a length has at most 10**17 words, the selector is a word's rank. Where it has more, D decimal digits are
    drawn, 10**D the largest power of ten that is not above their number. Digits d stand for a share of all ranks, from
    d * count / 10**D to the next: one to ten ranks, of which they choose one. So different digits give different words.
    Always the first rank of a share would not do: of 2 * 10**D words each would end in the same symbol, say.
    """

    padded_a = True

    def __init__(self, symbols: Sequence[str], expression: str | None = None, where: str = "input") -> None:
        self.symbols = tuple(symbols)
        self.next_state, self.accepting = np.zeros((1, len(symbols)), np.int64), np.ones(1, np.bool_)
        if expression is not None:
            self.next_state, self.accepting = automaton(expression, symbols, where)
        self._targets = [list(Counter(row).items()) for row in self.next_state.tolist()]
        self._counts = [[int(accepts) for accepts in self.accepting]]  # by length and state

    def count(self, length: int) -> int:
        """Return how many words have this length."""
        while len(counts := self._counts) <= length:
            counts.append([sum(counts[-1][to] * n for to, n in edges) for edges in self._targets])
        return counts[length][0]

    def unrank(self, ranks: U64 | Sequence[int], length: I64) -> U8:
        """Return words by their rank among those of their length, in the order of their codes.

        Ranks and lengths have the shape (n,), the codes (longest, n): plane k is the k-th symbol from the left, 0
        beyond the word. Raises ValueError where a rank is too large.
        """
        longest, num, most = int(length.max(initial=0)), len(length), len(self._groups)
        counts = [self.count(size) for size in range(longest + 1)]
        exact = object if max(counts) > LIMIT else np.uint64
        rank, state = np.array(ranks, exact), np.zeros(num, np.int64)
        if (rank >= np.array(counts, exact)[length]).any():
            raise ValueError("a rank is not below the number of words of its length")
        planes = np.zeros((max(longest, 1), num), np.uint8)
        for rest in range(longest, 0, -1):  # a word of 29 is drawn as 7, 11 and 11 symbols
            size = rest % most or most
            rows = np.flatnonzero(length == rest if rest % most else length >= rest)
            if len(rows):
                next_state, codes = self._groups[size - 1]
                before, keys = self._before(rest, size), rank[rows]
                first = state[rows] * len(codes)
                keys = keys.astype(before.dtype, copy=False) + before[first]
                at = before.searchsorted(keys, "right") - 1  # the last group whose words begin at or below the rank
                rank[rows], state[rows] = keys - before[at], next_state.take(at)
                place = (length[rows] - rest) * num + rows
                planes.reshape(-1)[place + np.arange(0, size * num, num)[:, None]] = codes.take(at - first, axis=0).T
        return planes

    @cached_property
    def _groups(self) -> list[tuple[I64, U8]]:
        """The state after each 1, 2, ... symbols, shape (states, groups), and their codes, (groups, symbols)."""
        codes = single = np.arange(1, len(self.symbols) + 1, dtype=np.uint8)[:, None]
        groups = [(self.next_state, codes)]
        while groups[-1][0].size * len(single) <= MOST_GROUPED and len(groups) < 16:
            codes = np.hstack([codes.repeat(len(single), axis=0), np.tile(single, (len(codes), 1))])
            groups.append((self.next_state[groups[-1][0]].reshape(len(self.next_state), -1), codes))
        return groups

    def _before(self, rest: int, size: int) -> NDArray[Any]:
        """Return how many words of ``rest`` symbols come before those of each state and group of ``size`` symbols."""
        exact = object if sum(self._counts[rest]) > LIMIT else np.uint64
        each = np.array(self._counts[rest - size], exact)[self._groups[size - 1][0]].reshape(-1)
        before: NDArray[Any] = np.cumsum(each) - each
        return before

    def _drawn(self, length: int) -> tuple[int, int, int]:
        """Return how many digits are drawn for a length, how many values the selector has, and the words' number."""
        count = self.count(length)
        digits = 0 if count <= INDEXED else Decimal(count).adjusted()  # of any size, and exact
        return digits, 1 if digits else count, count

    def _column(self, lengths: Any, which: int) -> Any:
        """Return one of what is drawn for each of a column of lengths."""
        known, place = np.unique(lengths, return_inverse=True)
        return np.array([self._drawn(length)[which] for length in known.tolist()], np.int64)[place]

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return self._column(len_a, 0), 0

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, self._column(len_a, 1)

    def size(self, len_a: int, len_b: int) -> int:
        return self.count(len_a)

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        ranks: U64 | list[int] = draw.selector.astype(np.uint64)
        if draw.a is not None and len(rows := np.flatnonzero(draw.a.length)):
            ranks, lengths = draw.selector.tolist(), draw.len_a[rows].tolist()
            drawn = {length: self._drawn(length) for length in {*lengths}}
            for row, text, length in zip(rows.tolist(), draw.a.take(rows).decimals(), lengths, strict=True):
                ranks[row] = _rank(int(Decimal(text)), *drawn[length])  # int() itself stops at 4,300 digits
        words = Number(self.unrank(ranks, draw.len_a), draw.len_a.copy())
        return Operands(words, None), np.ones(len(words), np.bool_)


def _rank(share: int, digits: int, _: int, count: int) -> int:
    """Return the rank of the digits ``share``, of their share's by the digits themselves."""
    first, following = (-(-own * count // 10**digits) for own in (share, share + 1))
    return first + ((share * _MIX & (1 << 64) - 1) >> 32) % (following - first)


def is_spaced(symbols: Sequence[str]) -> bool:
    """Tell whether the symbols of a word's text have blanks between them: one has several characters."""
    return any(len(symbol) > 1 for symbol in symbols)


def split_word(text: str, symbols: Sequence[str]) -> list[str]:
    """Return the symbols of a word's text."""
    return (text.split(" ") if text else []) if is_spaced(symbols) else list(text)


def read_words(texts: Sequence[str], symbols: Sequence[str]) -> Number:
    """Return the words of some texts; raises UserError where one holds what is no input symbol."""
    known = {symbol: code for code, symbol in enumerate(symbols, 1)}
    words = [bytes([known.get(symbol, 0) for symbol in split_word(text, symbols)]) for text in texts]
    for text, word in zip(texts, words, strict=True):
        if (place := word.find(0)) >= 0:
            what = f"{quoted(split_word(text, symbols)[place])} is no input symbol"
            raise UserError(what, where=f"symbol {place + 1} of {quoted(text)}", allowed=shown(symbols))
    length = np.array([len(word) for word in words], np.int64)
    rows = np.zeros((len(texts), int(length.max(initial=1))), np.uint8)
    rows[np.arange(rows.shape[1]) < length[:, None]] = np.frombuffer(b"".join(words), np.uint8)
    return Number(np.ascontiguousarray(rows.T), length)
