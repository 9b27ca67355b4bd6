"""Patterns of an adapter's configuration: how long one may be looked for in a name, told before anything looks for it.

Python's regular expressions go back and try again; what a hostile one tries grows with every repeat and every choice.
Only a part of their language is let through, of which that number can be told; it takes what trainers write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import comb

from ..errors import clip

ALLOWED = r"names, dots, \d, [0-9], alternatives (a|b), repeats of one character; such as .*\.(q_proj|v_proj)"
MAX_LENGTH = 100_000
MAX_REPEATS = 8  # whatever the names' length, more are too many
PART = re.compile(
    r"(?P<open>\((?:\?[:=!])?)|(?P<close>\)(?P<maybe>\?{0,2}))|(?P<bar>\|)|(?P<edge>[\^$]|\\b)"
    r"|(?P<one>[\w-]|\.|\\[dDwWsS]|\\[^\w]|\[\^?(?:[\w.-]|\\[dw.-])+\])"
    r"(?:(?P<repeat>[*+?]|\{\d{1,3}\}|\{\d{0,3},\d{0,3}\})\??)?"
)


@dataclass
class _Sequence:
    """What is known of one alternative.

    Args:
        repeats: how many of its parts may take any number of characters.
        aside: the same up to the end of a look ahead, into which nothing goes back.
        ways: in how many ways the others may match.
        text: what it is, where it is nothing but text.
        opening: of the group that it stands in.
        rest: it ends with what takes all that is left, and so is never tried again.
        widest: the largest number of alternatives in it.
    """

    repeats: int = 0
    aside: int = 0
    ways: int = 1
    text: str | None = ""
    opening: str = ""
    rest: bool = False
    widest: int = 1

    def add(self, one: str, repeat: str | None) -> None:
        """Add a character, or a repeated one."""
        self.rest = one == "." and repeat in ("*", "+")
        fixed = one[-1] if one != "." and (len(one) == 1 or re.fullmatch(r"\\\W", one)) else None
        if repeat is None:
            self.text = None if fixed is None or self.text is None else self.text + fixed
            return
        self.text = None
        low, comma, high = repeat.strip("{}").partition(",")
        if repeat == "?":
            self.ways *= 2
        elif high:
            self.ways *= int(high) - int(low or 0) + 1
        elif comma or repeat in ("*", "+"):
            self.repeats += 1

    def join(self, group: list[_Sequence], *, optional: bool) -> None:
        """Add a group with its alternatives."""
        plain = group[0].opening in ("(", "(?:")
        aside = max(max(one.aside, 0 if plain else one.repeats) for one in group)
        self.aside = max(self.aside, self.repeats + aside if aside else 0)
        self.repeats += max(one.repeats for one in group) if plain else 0
        self.ways *= _ways(group) + (optional or not plain)
        self.text = None
        self.rest = plain and len(group) == 1 and group[0].rest and not optional
        self.widest = max(self.widest, len(group), *(one.widest for one in group))

    def cost(self, length: int) -> int:
        """Return about how many steps it takes in a text of some length."""
        repeats = max(self.repeats - self.rest, self.aside)
        if repeats > MAX_REPEATS:
            raise ValueError(f"there are {repeats:,} repeats in it")
        return comb(length + repeats, repeats) * self.ways * self.widest


def cost(pattern: str, length: int) -> int:
    """Return about how many steps it takes, at most, to look for a pattern in a name.

    Args:
        pattern: must be a regular expression.
        length: of the name, in characters.

    Raises:
        ValueError: the pattern is of a kind that is not let through.
    """
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"there are {len(pattern):,} characters in it")
    groups, at = [[_Sequence()]], 0
    while at < len(pattern):
        part = PART.match(pattern, at)
        if part is None:
            raise ValueError(f"there is {clip(pattern[at : at + 8])} in it")
        at = part.end()
        last = groups[-1][-1]
        if part["open"]:
            groups.append([_Sequence(opening=part["open"])])
        elif part["close"]:
            group = groups.pop()
            groups[-1][-1].join(group, optional=bool(part["maybe"]))
        elif part["bar"]:
            groups[-1].append(_Sequence(opening=last.opening))
        elif part["edge"]:
            last.text, last.rest = None, last.rest and part["edge"] == "$"
        else:
            last.add(part["one"], part["repeat"])
    [whole] = groups
    return len(whole) + sum(one.cost(length) for one in whole)


def _ways(group: Iterable[_Sequence]) -> int:
    """Return in how many ways the alternatives of a group may match at one place."""
    group = list(group)
    texts = [one.text for one in group if one.text is not None]
    if len(texts) < len(group):
        return sum(one.ways for one in group)
    deepest, above = 0, list[str]()
    for text in sorted(texts):  # of texts that begin alike several may match
        while above and not text.startswith(above[-1]):
            above.pop()
        above.append(text)
        deepest = max(deepest, len(above))
    return deepest
