"""A dataset card that a person edits too: which part of README.md is ours, and how a new one of it is put there.

Ours are the keys ``OURS`` of the YAML at the top and one block between two marks, which holds facts of the manifest.
Everything else is written once, when there is no card yet, and belongs to whoever edits it from then on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from .manifest import CARD
from .settings import digest

BEGIN, END = "<!-- caef-data: begin -->", "<!-- caef-data: end -->"
OURS = ("size_categories", "configs")
NO_TEXT, SAVE = "it is no UTF-8 text", "save it as UTF-8, or move it away"
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:(?:[ \t]|$)")
_EXAMPLE = re.compile(
    r"^(?:A row of|From) `[a-z0-9_]+-[a-z_]+`, split \w+ \([^\n]*\):\n\n"
    r"```text\nprompt:\n.*?\ncompletion:\n.*?\n```\n+",
    re.MULTILINE | re.DOTALL,
)
_LOAD = re.compile(r"^rows = load_dataset\(.*\)$", re.MULTILINE)


class UnmarkedError(ValueError):
    """A card has no block of ours, or more than one, or its YAML cannot be read; the text says so."""


@dataclass(frozen=True)
class Card:
    """A card, cut into what is ours and what is a person's.

    Args:
        front: the YAML at the top by key, as it stands; other lines in it under a key of their own. None without YAML.
        values: the same as values.
        before: the text before our block.
        block: our block without its marks.
        after: the text that follows it.
    """

    front: tuple[tuple[str, str], ...] | None
    values: dict[str, Any]
    before: str
    block: str
    after: str

    @classmethod
    def of(cls, text: str) -> Card:
        """Cut a card.

        Raises:
            UnmarkedError: it has no block of ours, or its YAML cannot be read.
        """
        front, values, body = _front(text.removeprefix("\ufeff").replace("\r\n", "\n"))
        if body.count(BEGIN) != 1 or body.count(END) != 1 or body.index(BEGIN) > body.index(END):
            raise UnmarkedError(f"it has no part between one {BEGIN} and one {END}")
        before, rest = body.split(BEGIN)
        block, after = rest.split(END)
        return cls(front, values, before, block, after)

    @property
    def text(self) -> str:
        """The whole card."""
        front = "" if self.front is None else "".join(["---\n", *(text for _, text in self.front), "---\n"])
        return f"{front}{self.before}{BEGIN}{self.block}{END}{self.after}"

    @property
    def person(self) -> str:
        """A digest of what is a person's."""
        front = sorted((key, text) for key, text in self.front or () if key not in OURS)
        return digest([front, self.before.strip(), self.after.strip()])

    @property
    def lines(self) -> list[str]:
        """The lines that are a person's."""
        front = "".join(text for key, text in self.front or () if key not in OURS)
        return [line for line in f"{front}{self.before}{self.after}".splitlines() if line.strip()]

    def holds(self, other: Card, first: Card) -> bool:
        """Tell whether all that a person wrote in another card stands here too, and nothing that was removed there.

        Args:
            other: the other card.
            first: the card that nobody has edited.
        """
        rest, kept = iter(self.lines), set(other.lines)
        removed = set(first.lines) - kept
        return removed.isdisjoint(self.lines) and all(line in rest for line in other.lines)

    def renewed(self, ours: Card) -> Card:
        """Return this card with our part of another; keys whose values are the same stay as they stand."""
        wanted = dict(ours.front or ())
        front = []
        for key, text in self.front or ():
            if key not in OURS or (key in ours.values and ours.values[key] == self.values.get(key)):
                front.append((key, text))
            elif key in wanted:
                front.append((key, wanted[key]))
        there = {key for key, _ in front}
        front += [(key, text) for key, text in ours.front or () if key in OURS and key not in there]
        values = {**self.values, **{key: ours.values.get(key) for key in OURS}}
        return replace(self, front=tuple(front), values=values, block=ours.block)


def _front(text: str) -> tuple[tuple[tuple[str, str], ...] | None, dict[str, Any], str]:
    """Return the YAML at the top by key, its values, and the text below."""
    import yaml

    found = _FRONT.match(text)
    if found is None:
        return None, {}, text
    try:
        values = yaml.safe_load(found[1]) or {}
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UnmarkedError("the YAML at its top cannot be read") from None
    if not isinstance(values, dict):
        raise UnmarkedError("the YAML at its top is no mapping")
    chunks: list[tuple[str, str]] = []
    for line in found[1].splitlines(keepends=True):
        key = _KEY.match(line)
        if key is not None:
            chunks.append((key[1], line))
        elif line.startswith("#") or not chunks:
            chunks.append((f"line {len(chunks)}", line))
        else:
            chunks[-1] = chunks[-1][0], chunks[-1][1] + line
    return tuple(chunks), values, text[found.end() :]


def renewed(text: str, ours: str) -> str:
    """Return a card with our part of another.

    Raises:
        UnmarkedError: it has no part of ours.
    """
    return Card.of(text).renewed(Card.of(ours)).text


def appended(text: str, ours: str) -> str:
    """Return a text without marks, a person's alone, with our part added at its end.

    Raises:
        UnmarkedError: its YAML cannot be read.
    """
    front, values, body = _front(text.replace("\r\n", "\n"))
    card = Card.of(ours)
    base = Card(front, values, body.rstrip("\n") + "\n\n" if body.strip() else "\n", "", "\n")
    return base.renewed(card).text


def without_place(text: str) -> str:
    """Return a card without the place that its rows are loaded from: a push writes another one."""
    return _LOAD.sub("rows = ...", text)


def without_examples(text: str) -> str:
    """Return a card without the rows that it shows, and without that place."""
    return re.sub(r"\n{2,}", "\n\n", _EXAMPLE.sub("", without_place(text)))


def conflict(why: str, where: str, next_step: str | None = None) -> UserError:
    """Return the error for a card that cannot be renewed without losing what a person wrote."""
    marks = f"write the lines {BEGIN} and {END} where the part of caef-data is to stand, or move the file away"
    return UserError(
        f"{CARD} was edited, and cannot be renewed without losing that: {why}",
        where=where,
        next_step=f"{next_step or marks}; then run the same command again",
    )
