r"""Writes signs and blanks plainly that JSON, HTML, LaTeX, Markdown or typography spell otherwise.

Three tables are applied one after the other: escapes of JSON (and ``&amp;``, which hides an entity), entities of HTML,
then commands of LaTeX, escapes of Markdown and typography. Nothing that tells the cells of a CSV file apart, quotes,
commas and semicolons, comes out of one. docs/contamination.md lists what is found.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from html.entities import html5

import polars as pl

from ..tm.expression import LOOKS_LIKE

BLANKS = "\t \u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
BLANKS += "\u200b\u2060\ufeff"  # of no width
LATEX = {r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "//", r"\lt": "<", r"\gt": ">"}
LATEX |= {f"${command}$": sign for command, sign in LATEX.items()}  # in a sentence: 12 $\times$ 9
LATEX |= dict.fromkeys((r"\,", r"\;", r"\:", r"\!", r"\ ", r"\quad", r"\qquad", r"\enspace", r"\thinspace"), " ")
CELLS = '",;\t'
# What JSON escapes; letters beyond ASCII stay, and touch nothing.
JSON = {form % code: chr(code) for code in range(128) if chr(code) not in CELLS for form in (r"\u%04x", r"\u%04X")}
JSON |= {r"\\": "\\", r"\/": "/", r"\t": " ", r"\u0009": " ", "&amp;": "&", r"\u0026amp;": "&"}
JSON |= {text: plain for text, plain in LATEX.items() if text.startswith(r"\t")}  # which is no tab then
BROKEN = "\ufffd"  # stands behind an escape that is left, so that its digits touch no number
REST = re.compile(r"\\u[0-9a-fA-F]{4}")


class Spellings:
    """What signs and blanks may look like, and what they are.

    Args:
        signs: the signs that are looked for.
    """

    def __init__(self, signs: Iterable[str]) -> None:
        plain = {char: char for sign in signs for char in sign if char not in CELLS}
        typography = {char: sign for char, sign in LOOKS_LIKE.items() if sign[0] in plain}
        known = plain | typography | dict.fromkeys(BLANKS, " ")
        codes = {form % ord(char): text for char, text in known.items() for form in (r"\u%04x", r"\u%04X")}
        html = {f"&{name}": known[char] for name, char in html5.items() if char in known}
        html |= {entity: text for char, text in known.items() for entity in _numeric(ord(char))}
        last = {char: text for char, text in known.items() if not char.isascii()}
        last |= LATEX | {f"\\{char}": char for char in plain if not char.isalnum()}  # of Markdown, as \*
        self.steps = [(marks, _longest_first(table)) for marks, table in (
            (("\\", "&amp;"), JSON | codes), (("&",), html), (("\\", ""), last),
        )]  # fmt: skip
        self.patterns = [re.compile("|".join(map(re.escape, table))) for _, table in self.steps]

    def column(self, texts: pl.Series) -> pl.Series:
        """Return texts with all signs and blanks written plainly."""
        for number, (marks, table) in enumerate(self.steps):
            if texts.str.contains("|".join(re.escape(mark) or r"\P{ascii}" for mark in marks)).any():
                texts = texts.str.replace_many(table, leftmost=True)
                if number == 0:
                    texts = texts.str.replace_all(REST.pattern, "${0}" + BROKEN)
        return texts

    def plain(self, text: str) -> Plain:
        """Return one text as ``column`` does, with the way back from its places."""
        found = Plain(text)
        for number, (pattern, (_, table)) in enumerate(zip(self.patterns, self.steps, strict=True)):
            found.replace(pattern, table)
            if number == 0:
                found.replace(REST, {})
        return found


class Plain:
    """A text that is written plainly, and the text as it stands.

    Attributes:
        text: written plainly.
        raw: as it stands.
    """

    def __init__(self, raw: str) -> None:
        self.text = self.raw = raw
        self._moved: list[tuple[list[int], list[int]]] = []  # of each table: places behind what changed, and their old

    def replace(self, pattern: re.Pattern[str], table: Mapping[str, str]) -> None:
        """Replace what a pattern finds by what a table says; what it does not hold is kept apart from what follows."""
        parts, places, old, size, end = [], [0], [0], 0, 0
        for match in pattern.finditer(self.text):
            parts += [self.text[end : match.start()], table.get(match[0], match[0] + BROKEN)]
            size += match.start() - end + len(parts[-1])
            end = match.end()
            places.append(size)
            old.append(end)
        if parts:
            self.text = "".join([*parts, self.text[end:]])
            self._moved.append((places, old))

    def place(self, at: int) -> int:
        """Return where a character of the plain text, one that was not replaced, stands in the raw one."""
        for places, old in reversed(self._moved):
            last = bisect_right(places, at) - 1
            at += old[last] - places[last]
        return at


def _numeric(code: int) -> list[str]:
    """Return the entities of a character by its number, with leading zeros up to six digits."""
    numbers = {f"{code:0{width}d}" for width in range(7)}
    numbers |= {x + f"{code:0{width}{form}}" for width in range(7) for x in "xX" for form in "xX"}
    return [f"&#{number};" for number in numbers]


def _longest_first(table: Mapping[str, str]) -> dict[str, str]:
    """Return a table in the order in which it is looked through: of texts that begin alike the first one counts."""
    return dict(sorted(table.items(), key=lambda pair: (-len(pair[0]), pair[0])))
