r"""Finds expressions of a dataset's test and stress splits in texts, a column of them at once.

An expression is two whole numbers with the sign of a task between them, on one line: ``12+9``, ``12 + 9 = 21``.

- The sign, and up to ``BLANKS`` blanks on either side of it, may be spelled as ``sign_spellings`` knows them. Nothing
  else is a sign: not ``/``, ``=``, ``x`` or ``**``.
- Numbers are ASCII digits; leading zeros do not count. A number is part of a longer one where a letter or ``_``
  touches it (``x12``, ``1e5``), at a decimal point (``3.5``, ``.5``), and at the comma of a group of three digits
  (``1,234``, not ``1234,567``): these make no expression. The letter of an escape (``\n12``) touches nothing, nor do
  letters beyond ASCII.
- What else stands around does not matter: ``1+2+3`` holds 1+2 and 2+3, ``-12+9`` holds 12+9.

An entry is a state line of a machine, as rows have it, with its operands.

polars looks at every text, and at what is between its numbers; Python looks at texts that may hold a hit alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl

from ..tm import machine
from ..tm.columns import Bool
from .sign_spellings import Plain, Spellings

BLANKS = 16
ENTRY = re.compile(  # at first a blank follows a head; later heads stand in their tapes
    r"(?<![A-Z0-9_])([A-Z][A-Z0-9_]*+), q\w, ++(?:\[HEAD1?\] TAPE|TAPE\[HEAD1?\]TAPE)"
    r"(?:\[HEAD2\] TAPE| TAPE\[HEAD2\]TAPE|)".replace("TAPE", r"((?:\|[0-9])*+)")
)
QUOTED = re.compile(r'(?:\A|(?<=[,;\t]))"(?:[^"]++|"")*+"')  # cells of a CSV file
BEGUN = r"""(?:(?<![A-Za-z_0-9])|(?<=\\[nrtbf]))(?<![0-9 \t\r\n(\[{"'$=+\-*/<>]\.)(?<!\A\.)"""  # here a number begins
ENDED = r"(?![A-Za-z_]|\.[0-9])"
GROUP_BEFORE, GROUP_BEHIND = re.compile(r"(?<![0-9])[0-9]{1,3},\Z"), re.compile(r",[0-9]{3}(?![0-9])")


class Hit(NamedTuple):
    """What was found: the row, its text there, the task, and whether it is an entry and of stress."""

    row: int
    text: str
    task: str
    entry: bool
    stress: bool = False


class HeldOut:
    """The expressions of test and stress, as hashes of 64 bits, and what finds them.

    Args:
        expressions: the columns task, a, b (null for one operand) and stress.
    """

    def __init__(self, expressions: pl.DataFrame) -> None:
        machines = {task: machine(task) for task in expressions["task"].unique()}
        self.titles = {one.title: task for task, one in machines.items()}
        self.signs = {one.sign: task for task, one in machines.items() if one.sign}
        self.unordered = [task for task, one in machines.items() if one.commutative]
        held = expressions.select("stress", key=self._keys()).sort("key")
        self.held, self.stress = held["key"].to_numpy(), held["stress"].to_numpy()
        self.spellings = Spellings(self.signs)
        sign, gap = "|".join(map(re.escape, self.signs)) or "(?:a^)", f"[ \t]{{0,{BLANKS}}}"
        self.token, self.chain = f"[0-9]+|{sign}", f"[0-9]+(?:{gap}(?:{sign}){gap}[0-9]+)+"
        self.pair = re.compile(f"{BEGUN}([0-9]++){gap}+({sign}){gap}+(?=([0-9]++){ENDED})")

    def find(self, texts: pl.Series, cells: bool = False) -> list[Hit]:
        """Return the expressions and entries in texts that are held out, by rows; ``cells``: rows of a CSV file."""
        rows = pl.DataFrame({"text": self.spellings.column(texts)}).with_row_index("row")
        candidates = [*chain(self._expressions(rows, texts, cells), self._entries(rows))]
        operands = pl.DataFrame([(hit.task, a, b) for hit, a, b in candidates], ["task", "a", "b"], orient="row")
        held, stress = self._look_up(operands.cast(pl.String).select(self._keys()).to_series())
        found = zip(candidates, held.tolist(), stress.tolist(), strict=True)
        hits = [hit._replace(stress=of_stress) for (hit, _, _), is_held, of_stress in found if is_held]
        return sorted(hits, key=lambda hit: hit.row)

    def _expressions(self, rows: pl.DataFrame, texts: pl.Series, cells: bool) -> Iterator[tuple[Hit, str, str]]:
        """Yield the pairs of numbers, with their operands, of the texts that hold one that is held out."""
        chains = rows.select("row", chain=pl.col("text").str.extract_all(self.chain))
        chains = chains.filter(pl.col("chain").list.len() > 0).explode("chain")
        tokens = chains.select("row", token=pl.col("chain").str.extract_all(self.token)).explode("token")
        # A chain begins and ends with a number: on either side of a sign stand its own.
        pairs = tokens.with_columns(a=pl.col("token").shift(1), b=pl.col("token").shift(-1))
        pairs = pairs.filter(pl.col("token").is_in([*self.signs]))
        pairs = pairs.with_columns(task=pl.col("token").replace_strict(self.signs, return_dtype=pl.String))
        pairs = pairs.select("row", key=self._keys())
        held = pairs["row"].filter(pl.Series(self._look_up(pairs["key"])[0])).unique().sort()
        for row in held:
            plain = self.spellings.plain(texts[row])
            for match in self.pair.finditer(plain.text):
                if _is_whole(plain, match, cells):
                    a, sign, b = match.groups()
                    shown = _around(plain.raw, plain.place(match.start()), plain.place(match.end(3) - 1) + 1)
                    yield Hit(row, shown, self.signs[sign], False), a, b

    def _entries(self, rows: pl.DataFrame) -> Iterator[tuple[Hit, str, str]]:
        """Yield the state lines of machines, with their operands."""
        for row, text in rows.filter(pl.col("text").str.contains("[HEAD", literal=True)).iter_rows():
            for match in ENTRY.finditer(text):
                if task := self.titles.get(match[1]):
                    tapes = match.groups("")[1:]
                    a, b = ("".join(tapes[at : at + 3]).replace("|", "")[::-1] for at in (0, 3))
                    yield Hit(row, _around(text, match.start(), match.end()), task, True), a, b

    def _keys(self) -> pl.Expr:
        a, b = (pl.col(name).fill_null("").str.strip_chars_start("0") for name in ("a", "b"))
        swapped = pl.col("task").is_in(self.unordered) & (a > b)
        first, second = pl.when(swapped).then(b).otherwise(a), pl.when(swapped).then(a).otherwise(b)
        return pl.concat_str("task", first, second, separator=" ").hash(1)

    def _look_up(self, keys: pl.Series) -> tuple[Bool, Bool]:
        """Tell which expressions are held out; and which of these are of stress."""
        where = np.minimum(np.searchsorted(self.held, keys.to_numpy()), len(self.held) - 1)
        return self.held[where] == keys.to_numpy(), self.stress[where]


def _around(text: str, start: int, stop: int) -> str:
    return " ".join(text[max(0, start - 30) : min(max(stop + 20, start + 70), start + 200)].split())


def _is_whole(plain: Plain, match: re.Match[str], cells: bool) -> bool:
    """Tell whether no number is a group of a longer one, as in 1,234; outside of quotes a comma ends a cell."""

    def joins(comma: int) -> bool:
        return not cells or any(cell.start() < plain.place(comma) < cell.end() for cell in QUOTED.finditer(plain.raw))

    text, start, stop = plain.text, match.start(), match.end(3)
    before = len(match[1]) == 3 and GROUP_BEFORE.search(text[max(0, start - 5) : start]) and joins(start - 1)
    behind = len(match[3]) <= 3 and GROUP_BEHIND.match(text, stop) and joins(stop)
    return not before and not behind
