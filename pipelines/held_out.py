r"""Finds expressions of a dataset's test and stress splits in text, a block of bytes at once.

An expression is two whole numbers with the sign of a task between them, on one line: ``12+9``, ``12 + 9 = 21``.

- The sign may be spelled as in ``SPELLINGS``. Up to ``BLANKS`` blanks (spaces, tabs, no-break spaces) may stand on
  either side of it. Nothing else is a sign: not ``/``, ``=``, ``x`` or ``**``.
- Numbers are ASCII digits; leading zeros do not count. A number is part of a longer one where a letter or ``_``
  touches it (``x12``, ``1e5``), at a decimal point (``3.5``, ``.5``), and at a comma before three digits (``1,234``):
  these make no expression. The letter of an escape (``\n12``) touches nothing, nor do letters beyond ASCII.
- What else stands around does not matter: ``1+2+3`` holds 1+2 and 2+3, ``-12+9`` holds 12+9.

An entry is a state line of a machine, as rows have it, with its operands.

polars looks at every line, and at what is between its numbers; Python looks at lines that may hold a hit alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from ..tm import machine
from ..tm.columns import I64, Bool
from ..tm.expression import LOOKS_LIKE

BLANKS = 16  # bytes of them
LONG = 512  # bytes: lines of more are looked at in parts
SPELLINGS = LOOKS_LIKE | {"\\times": "*", "\\div": "//", "&lt;": "<", "&gt;": ">"}
SLASHES = r"\/\/"  # JSON allows it
BLANK = "(?:[ \t]|\u00a0)"
TITLE = re.compile(rb"[A-Z][A-Z0-9_]*\Z")
ENTRY = re.compile(  # at first a blank follows a head; later heads stand in their tapes
    rb", q\w, ++(?:\[HEAD1?\] TAPE|TAPE\[HEAD1?\]TAPE)(?:\[HEAD2\] TAPE| TAPE\[HEAD2\]TAPE|)".replace(
        b"TAPE", rb"((?:\|[0-9])*+)"
    )
)
BEGUN = r"""(?:(?<![A-Za-z_0-9])|(?<=\\[nrtbf]))(?<![0-9 \t\r\n(\[{"'$=+\-*/<>]\.)(?<!\A\.)"""  # here a number begins
ENDED = r"(?![A-Za-z_]|\.[0-9])"
GROUP_BEFORE, GROUP_BEHIND = re.compile(rb"(?<![0-9])[0-9]{1,3},\Z"), re.compile(rb",[0-9]{3}(?![0-9])")
BETWEEN_WORDS = re.compile(rb"[a-z] [a-z]")


class Hit(NamedTuple):
    """What was found in a block: its place, the task, and whether it is an entry and of stress."""

    start: int
    stop: int
    task: str
    entry: bool
    stress: bool = False


Candidate = tuple[Hit, str, str]  # a hit if its expression, a and b, is held out


class HeldOut:
    """The expressions of test and stress, as hashes of 128 bits, and what finds them.

    Args:
        expressions: by task the columns a, b (null for one operand) and stress.
    """

    def __init__(self, expressions: Mapping[str, pl.DataFrame]) -> None:
        machines = {task: machine(task) for task in expressions}
        self.titles = {one.title.encode(): task for task, one in machines.items()}
        self.unordered = [task for task, one in machines.items() if one.commutative]
        frames = [frame.select(pl.lit(task).alias("task"), "a", "b", "stress") for task, frame in expressions.items()]
        rows = pl.concat(frames).select("stress", key=self._keys())
        rows = rows.select("stress", first=pl.col("key").hash(1), second=pl.col("key").hash(2)).sort("first")
        self.first, self.second, self.stress = (rows[name].to_numpy() for name in ("first", "second", "stress"))
        spelled = {one.sign: one.sign for one in machines.values() if one.sign} | SPELLINGS
        spelled |= {json.dumps(text, ensure_ascii=False)[1:-1]: sign for text, sign in spelled.items()}
        spelled[SLASHES] = "//"
        tasks = {one.sign: task for task, one in machines.items()}
        self.signs = {text: tasks[sign] for text, sign in spelled.items() if sign in tasks}
        sign, gap = "|".join(map(re.escape, self.signs)) or "(?:a^)", f"{BLANK}{{0,{BLANKS}}}"
        self.token, self.chain = f"[0-9]+|{sign}", f"[0-9]+(?:{gap}(?:{sign}){gap}[0-9]+)+"
        pair = f"{BEGUN}([0-9]++)({BLANK}*+)({sign})({BLANK}*+)(?=([0-9]++){ENDED})"
        self.pair = re.compile(pair.encode())
        codes = "|".join(sorted({f"{ord(char):04x}" for text in spelled for char in text if not char.isalpha()}))
        self.escapes = re.compile(rf"(?:\\u(?i:{codes}))+".encode())

    def find(self, data: bytes, quotes: I64 | None = None) -> list[Hit]:
        """Return the expressions and entries in a block that are held out, in order.

        Args:
            data: its bytes.
            quotes: of a CSV file the places of quotes; between an even one and the next a comma ends a cell.
        """
        found = [*self._expressions(data, quotes), *(self._entries(data) if b"[HEAD" in data else ())]
        columns = {"task": pl.String, "a": pl.String, "b": pl.String}
        rows = pl.DataFrame([(hit.task, a, b) for hit, a, b in found], columns, orient="row")
        held, stress = self._look_up(rows.select(key=self._keys())["key"])
        hits = [hit for (hit, _, _), is_held in zip(found, held.tolist(), strict=True) if is_held]
        hits = [hit._replace(stress=own) for hit, own in zip(hits, stress.tolist(), strict=True)]
        return sorted(hits, key=lambda hit: hit.start)

    def _expressions(self, data: bytes, quotes: I64 | None) -> Iterator[Candidate]:
        """Yield the pairs of numbers of the lines that hold one that is held out."""
        text = self.escapes.sub(_decoded, data) if rb"\u" in data else data
        parts = _cut(text)
        lines = pl.Series("chain", [parts.decode("utf-8", "replace")]).str.split("\n").explode().to_frame()
        chains = lines.with_row_index("line").with_columns(pl.col("chain").str.extract_all(self.chain))
        chains = chains.filter(pl.col("chain").list.len() > 0).explode("chain")
        tokens = chains.select("line", token=pl.col("chain").str.extract_all(self.token)).explode("token")
        # A chain begins and ends with a number: on either side of a sign stand its own.
        pairs = tokens.with_columns(a=pl.col("token").shift(1), b=pl.col("token").shift(-1))
        pairs = pairs.filter(~pl.col("token").str.contains("^[0-9]"))
        pairs = pairs.with_columns(task=pl.col("token").replace_strict(self.signs, return_dtype=pl.String))
        pairs = pairs.select("line", key=self._keys())
        lines_held = pairs["line"].filter(self._look_up(pairs["key"])[0]).unique().sort()
        ends = np.append(np.flatnonzero(np.frombuffer(parts, np.uint8) == ord("\n")), len(parts))
        for line in lines_held.to_list():
            begin, end = int(ends[line - 1]) + 1 if line else 0, int(ends[line])
            for match in self.pair.finditer(text, begin, end + BLANKS):
                if match.start() < end and _whole(text, match, quotes):
                    task = self.signs[match[3].decode()]
                    yield Hit(match.start(), match.end(5), task, False), match[1].decode(), match[5].decode()

    def _entries(self, data: bytes) -> Iterator[Candidate]:
        """Yield the state lines of machines."""
        for match in ENTRY.finditer(data):
            title = TITLE.search(data, max(0, match.start() - 99), match.start())
            if title and (task := self.titles.get(title[0])):
                a, b = (b"".join(match.groups(b"")[at : at + 3]).replace(b"|", b"")[::-1].decode() for at in (0, 3))
                yield Hit(title.start(), match.end(), task, True), a, b

    def _keys(self) -> pl.Expr:
        a, b = (pl.col(name).fill_null("").str.strip_chars_start("0") for name in ("a", "b"))
        swapped = pl.col("task").is_in(self.unordered) & (a > b)
        first, second = pl.when(swapped).then(b).otherwise(a), pl.when(swapped).then(a).otherwise(b)
        return pl.concat_str("task", first, second, separator=" ")

    def _look_up(self, keys: pl.Series) -> tuple[Bool, Bool]:
        """Tell which expressions are held out; and which of these are of stress."""
        hashes = keys.hash(1).to_numpy()
        where = np.minimum(np.searchsorted(self.first, hashes), len(self.first) - 1)
        held = self.first[where] == hashes
        held[held] = self.second[where[held]] == keys.filter(held).hash(2).to_numpy()
        return held, self.stress[where[held]]


def _decoded(match: re.Match[bytes]) -> bytes:
    r"""Return signs that are written as ``\u2212`` as they are, and blanks behind, so that nothing moves."""
    text = "".join(chr(int(code, 16)) for code in match[0].decode().split(r"\u")[1:])
    return text.encode().ljust(len(match[0]))


def _cut(text: bytes) -> bytes:
    """Return a text with line breaks between words of its long lines: of these a part alone has to be looked at."""
    ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")), len(text))
    sizes, parts = np.diff(ends, prepend=-1), bytearray(text)
    for line in np.flatnonzero(sizes > 2 * LONG).tolist():
        at, end = int(ends[line] - sizes[line]) + 1 + LONG, int(ends[line])
        while between := BETWEEN_WORDS.search(text, at, end):
            parts[between.start() + 1] = ord("\n")
            at = between.end() + LONG
    return bytes(parts)


def _whole(text: bytes, match: re.Match[bytes], quotes: I64 | None) -> bool:
    """Tell whether few enough blanks stand in a pair of numbers, and none is a group of a longer one, as in 1,234."""

    def joins(comma: int) -> bool:
        return quotes is None or int(np.searchsorted(quotes, comma)) % 2 == 1

    start, stop = match.start(), match.end(5)
    before = len(match[1]) == 3 and GROUP_BEFORE.search(text[max(0, start - 5) : start]) and joins(start - 1)
    behind = len(match[5]) <= 3 and GROUP_BEHIND.match(text, stop) and joins(stop)
    return max(len(match[2]), len(match[4])) <= BLANKS and not before and not behind
