r"""Finds expressions of a dataset's test and stress splits in text, a block of bytes at once.

An expression is two whole numbers with the sign of a task between them, on one line: ``12+9``, ``12 + 9 = 21``.

- The sign may be spelled as in ``SPELLINGS``. Up to ``BLANKS`` blanks (spaces, tabs, no-break spaces) may stand on
  either side of it. Nothing else is a sign: not ``/``, ``=``, ``x`` or ``**``.
- Numbers are ASCII digits; leading zeros do not count. A number is part of a longer one where a letter or ``_``
  touches it (``x12``, ``1e5``), at a decimal point (``3.5``, ``.5``), and at a comma before three digits (``1,234``):
  these make no expression. The letter of an escape (``\n12``) touches nothing, nor do letters beyond ASCII.
- What else stands around does not matter: ``1+2+3`` holds 1+2 and 2+3, ``-12+9`` holds 12+9.

An entry is a state line of a machine, as rows have it, with its operands.

Digits, gaps and hashes are columns: Python looks at what was found alone, and at entries one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..tm import machine
from ..tm.columns import I64, U8, U64, Bool
from ..tm.expression import LOOKS_LIKE
from .sampling.random import splitmix64, text_key

BLANKS = 16  # bytes of them
MOST_ZEROS = 1_000  # in front of a number
SPELLINGS = LOOKS_LIKE | {"\\times": "*", "\\div": "//", "&lt;": "<", "&gt;": ">"}
SLASHES = r"\/\/"  # JSON allows it
PAD = 16  # bytes before and behind a text, so that whoever looks around a number stays inside
TITLE = re.compile(rb"[A-Z][A-Z0-9_]*\Z")
ENTRY = re.compile(  # at first a blank follows a head; later heads stand in their tapes
    rb", q\w, ++(?:\[HEAD1?\] TAPE|TAPE\[HEAD1?\]TAPE)(?:\[HEAD2\] TAPE| TAPE\[HEAD2\]TAPE|)".replace(
        b"TAPE", rb"((?:\|[0-9])*+)"
    )
)


def _those(some: bytes) -> Bool:
    table = np.zeros(256, np.bool_)
    table[list(some)] = True
    return table


DIGITS = b"0123456789"
DIGIT, BLANK = _those(DIGITS), _those(" \t\u00a0".encode())
LETTER, ESCAPED = _those(b"_" + bytes(code for code in range(128) if chr(code).isalpha())), _those(b"nrtbf")
BEFORE_POINT = _those(DIGITS + b" \t\r\n([{\"'$=+-*/<>")  # of a decimal fraction


# What was found in a block: its place, an index into ``HeldOut.tasks``, the split, entry or expression.
HIT = np.dtype([("start", "i8"), ("stop", "i8"), ("task", "i8"), ("stress", "?"), ("entry", "?")])
Hits = NDArray[np.void]


class HeldOut:
    """The expressions of test and stress, as hashes of 128 bits, and what finds them.

    Args:
        expressions: by task the columns a, b (null for one operand) and stress.
    """

    def __init__(self, expressions: Mapping[str, pl.DataFrame]) -> None:
        self.tasks, frames = tuple(expressions), list(expressions.values())
        self.machines = [machine(task) for task in self.tasks]
        self.keys = np.array([text_key(f"held out {task}") for task in self.tasks], np.uint64)
        self.unordered = np.array([one.commutative for one in self.machines], np.bool_)
        task = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
        a, b = ([text for frame in frames for text in frame[name].fill_null("").to_list()] for name in "ab")
        stress = np.concatenate([np.zeros(0, np.bool_), *(frame["stress"].to_numpy() for frame in frames)])
        self.longest = max(map(len, (*a, *b)), default=0)
        first, second = (self._hashes(task, _Digits.of(a), _Digits.of(b), seed) for seed in (1, 2))
        order = np.argsort(first, kind="stable")
        self.first, self.second, self.stress = first[order], second[order], stress[order]
        bits = min(max(12, len(first).bit_length() + 4), 26)
        self.shift, self.sieve = np.uint64(64 - bits), np.zeros(1 << bits, np.bool_)
        self.sieve[first >> self.shift] = True
        self.titles = {one.title.encode(): number for number, one in enumerate(self.machines)}
        self.signs = _Signs({one.sign: number for number, one in enumerate(self.machines) if one.sign})

    def find(self, data: bytes, quotes: I64 | None = None) -> Hits:
        """Return the expressions and entries in a block that are held out, in order, as rows of ``HIT``.

        Args:
            data: its bytes.
            quotes: of a CSV file the places of quotes; between an even one and the next a comma ends a cell.
        """
        found = [self._expressions(data, quotes), *([self._entries(data)] if b"[HEAD" in data else [])]
        return np.sort(np.concatenate(found), order="start", kind="stable")

    def _expressions(self, data: bytes, quotes: I64 | None) -> Hits:
        text = _padded(self.signs.plain(data))
        digit = (text - np.uint8(ord("0"))) < 10
        edges = np.flatnonzero(digit[1:] != digit[:-1]) + 1
        runs = _Runs(text, edges[::2], edges[1::2], None if quotes is None else quotes + PAD)
        pairs, task = self.signs.between(runs)
        short = np.maximum(runs.length[pairs], runs.length[pairs + 1]) <= self.longest + MOST_ZEROS
        pairs, task = pairs[short], task[short]
        whole = ~(runs.begun(pairs) | runs.unended(pairs + 1))
        pairs, task = pairs[whole], task[whole]
        hits = self._look_up(task, runs.digits(pairs), runs.digits(pairs + 1))
        rows = pairs[hits["start"]]
        hits["start"], hits["stop"] = runs.start[rows] - PAD, runs.stop[rows + 1] - PAD
        return hits

    def _entries(self, data: bytes) -> Hits:
        found = [
            (title, match)
            for match in ENTRY.finditer(data)
            if (title := TITLE.search(data, max(0, match.start() - 99), match.start())) and title[0] in self.titles
        ]
        tapes = [[b"".join(match.groups(b"")[at : at + 3]) for _, match in found] for at in (0, 3)]
        a, b = (_Digits.of([tape.replace(b"|", b"")[::-1].decode() for tape in own]) for own in tapes)
        hits = self._look_up(np.array([self.titles[title[0]] for title, _ in found], np.int64), a, b)
        spans = np.array([(title.start(), match.end()) for title, match in found], np.int64).reshape(-1, 2)
        hits["start"], hits["stop"] = spans[hits["start"]].T
        hits["entry"] = True
        return hits

    def _hashes(self, task: I64, a: _Digits, b: _Digits, seed: int) -> U64:
        first, second, unordered = a.hashes(seed), b.hashes(seed), self.unordered[task]
        low, high = np.minimum(first, second), np.maximum(first, second)
        first, second = np.where(unordered, low, first), np.where(unordered, high, second)
        return splitmix64(first + splitmix64(second + self.keys[task]))

    def _look_up(self, task: I64, a: _Digits, b: _Digits) -> Hits:
        """Return those of some expressions that are held out; ``start`` holds their numbers for now."""
        hashes = self._hashes(task, a, b, 1)
        rows = np.flatnonzero(self.sieve[hashes >> self.shift])
        where = np.minimum(np.searchsorted(self.first, hashes[rows]), len(self.first) - 1)
        held = self.first[where] == hashes[rows]
        where, rows = where[held], rows[held]
        held = self.second[where] == self._hashes(task[rows], a.take(rows), b.take(rows), 2)
        hits = np.zeros(int(held.sum()), HIT)
        hits["start"], hits["task"], hits["stress"] = rows[held], task[rows[held]], self.stress[where[held]]
        return hits


def _padded(data: bytes) -> U8:
    """Return bytes with newlines around them, in all a number of whole words."""
    text = np.full(-(-(len(data) + 2 * PAD) // 8) * 8, ord("\n"), np.uint8)
    text[PAD : PAD + len(data)] = np.frombuffer(data, np.uint8)
    return text


def _word(text: U8, place: I64) -> U64:
    """Return the eight bytes from each place on; the first is the lowest."""
    words, odd = text.view("<u8"), ((place & 7) << 3).astype(np.uint64)
    at = place >> 3
    word: U64 = words[at] >> odd | words[at + 1] << (np.uint64(64) - odd)  # nothing is left of a word moved by 64
    return word


@dataclass(frozen=True, eq=False)
class _Digits:
    """Numbers in a padded text: where each ends, and how many digits it has."""

    text: U8
    stop: I64
    length: I64

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Digits:
        length = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(_padded("".join(texts).encode()), PAD + np.cumsum(length), length)

    def take(self, rows: I64) -> _Digits:
        return _Digits(self.text, self.stop[rows], self.length[rows])

    def hashes(self, seed: int) -> U64:
        """Return a hash of each number's digits, eight at a time from the last ones on."""
        found = splitmix64(self.length.astype(np.uint64) + np.uint64(seed << 32))
        rows = np.flatnonzero(self.length)
        stop, left = self.stop[rows], self.length[rows]
        while len(rows):
            word = _word(self.text, stop - 8) >> (np.maximum(8 - left, 0) << 3).astype(np.uint64)
            found[rows] = splitmix64(found[rows] ^ word)
            more = left > 8
            rows, stop, left = rows[more], stop[more] - 8, left[more] - 8
        return found


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of digits in a padded text, from ``start`` to ``stop``; ``quotes`` as in ``HeldOut.find``."""

    text: U8
    start: I64
    stop: I64
    quotes: I64 | None

    @cached_property
    def length(self) -> I64:
        return self.stop - self.start

    def digits(self, runs: I64) -> _Digits:
        """Return runs as numbers: without leading zeros."""
        start, stop = self.start[runs], self.stop[runs]
        rows = np.arange(len(runs))
        while len(rows := rows[(self.text[start[rows]] == ord("0")) & (stop[rows] - start[rows] > 1)]):
            start[rows] += 1
        return _Digits(self.text, stop, stop - start)

    def begun(self, runs: I64) -> Bool:
        """Tell which runs are no whole number because of what stands before them."""
        before, second = self.text[self.start[runs] - 1], self.text[self.start[runs] - 2]
        letter = LETTER[before] & ~(ESCAPED[before] & (second == ord("\\")))
        return letter | ((before == ord(".")) & BEFORE_POINT[second]) | self._grouped(runs - 1)

    def unended(self, runs: I64) -> Bool:
        """Tell which runs are no whole number because of what stands behind them."""
        after, second = self.text[self.stop[runs]], self.text[self.stop[runs] + 1]
        return LETTER[after] | ((after == ord(".")) & DIGIT[second]) | self._grouped(runs)

    def _grouped(self, runs: I64) -> Bool:
        """Tell after which runs a comma and three digits follow, as in 1,234."""
        inside = (runs >= 0) & (runs < len(self.start) - 1)
        runs = np.where(inside, runs, 0)
        stop, following = self.stop[runs], np.where(inside, runs + 1, 0)
        joined = inside & (self.start[following] == stop + 1) & (self.text[stop] == ord(","))
        joined &= (self.length[following] == 3) & (self.length[runs] <= 3)
        if self.quotes is not None:
            joined &= np.searchsorted(self.quotes, stop) % 2 == 1
        return joined


class _Signs:
    """The signs of tasks, and what finds them between numbers.

    Args:
        tasks: the number of the task of each sign.
    """

    def __init__(self, tasks: Mapping[str, int]) -> None:
        spelled = {sign: sign for sign in tasks} | SPELLINGS
        escaped = {json.dumps(text, ensure_ascii=False)[1:-1]: sign for text, sign in spelled.items()} | {SLASHES: "//"}
        known = {text.encode(): tasks[sign] for text, sign in (spelled | escaped).items() if sign in tasks}
        codes = "|".join(sorted({f"{ord(char):04x}" for text in spelled for char in text if not char.isalpha()}))
        self.escapes = re.compile(rf"(?:\\u(?i:{codes}))+".encode())
        pairs = sorted((int.from_bytes(text, "little"), task) for text, task in known.items())
        self.words = np.array([word for word, _ in pairs], np.uint64)
        self.tasks = np.array([task for _, task in pairs], np.int64)
        self.most = max(map(len, known), default=0)
        self.first, self.last = BLANK.copy(), BLANK.copy()
        self.first[[text[0] for text in known]] = self.last[[text[-1] for text in known]] = True

    def plain(self, data: bytes) -> bytes:
        r"""Return a text of the same length with its signs as they are, and blanks behind, where it has ``\u2212``."""

        def decoded(match: re.Match[bytes]) -> bytes:
            text = "".join(chr(int(code, 16)) for code in match[0].decode().split(r"\u")[1:])
            return text.encode().ljust(len(match[0]))

        return self.escapes.sub(decoded, data) if rb"\u" in data else data

    def between(self, runs: _Runs) -> tuple[I64, I64]:
        """Return the runs of digits that a sign and another run follow, and the tasks of the signs."""
        text = runs.text
        pairs = np.flatnonzero(runs.start[1:] - runs.stop[:-1] <= self.most + 2 * BLANKS)
        pairs = pairs[self.first[text[runs.stop[pairs]]] & self.last[text[runs.start[pairs + 1] - 1]]]
        left, right = runs.stop[pairs], runs.start[pairs + 1]
        for _ in range(BLANKS):
            more = BLANK[text[left]] & (left < right)
            fewer = BLANK[text[right - 1]] & (left + more < right)
            if not (more.any() or fewer.any()):
                break
            left, right = left + more, right - fewer
        size = right - left
        fits = (size > 0) & (size <= self.most)
        pairs, left, size = pairs[fits], left[fits], size[fits]
        word = _word(text, left) & (~np.uint64(0) >> ((8 - size) << 3).astype(np.uint64))
        place = np.minimum(np.searchsorted(self.words, word), len(self.words) - 1)
        known = self.words[place] == word
        return pairs[known], self.tasks[place[known]]
