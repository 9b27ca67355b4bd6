"""A dataset card that a person edits too: which part of README.md is ours, and how a new one of it is put there.

Ours are the keys ``OURS`` of the YAML at the top and one block between two marks, which holds facts of the manifest.
Everything else is written once, when there is no card yet, and belongs to whoever edits it from then on. A push merges
the card here and the one there three ways: the base is what an earlier push took from here, of which the manifest there
holds a digest, or else the card that nobody has edited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .manifest import CARD
from .settings import digest

BEGIN, END_MARK = "<!-- caef-data: begin -->", "<!-- caef-data: end -->"
OURS = ("size_categories", "configs")
_FRONT = re.compile(r"---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"^(?=[A-Za-z_][\w-]*[ \t]*:(?:[ \t]|$)|#)", re.MULTILINE)
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
    """A card, cut into what is ours and what is a person's."""

    front: tuple[tuple[str, str], ...]  # the YAML at the top, as it stands, by key; a comment is a key of its own
    values: dict[str, Any]  # of the YAML
    before: str  # the text before our block
    block: str  # without its marks
    after: str  # the text that follows it

    @classmethod
    def of(cls, text: str) -> Card:
        """Cut a card.

        Raises:
            UnmarkedError: it has no block of ours, or its YAML cannot be read.
        """
        import yaml

        body = text.removeprefix("\ufeff").replace("\r\n", "\n")
        match = _FRONT.match(body)
        front, body = (match[1], body[match.end() :]) if match else ("", body)
        try:
            values = yaml.safe_load(front) or {}
        except (yaml.YAMLError, RecursionError, ValueError):
            raise UnmarkedError("the YAML at its top cannot be read") from None
        if not isinstance(values, dict):
            raise UnmarkedError("the YAML at its top is no mapping")
        if body.count(BEGIN) != 1 or body.count(END_MARK) != 1 or body.index(BEGIN) > body.index(END_MARK):
            raise UnmarkedError(f"it has no part between one {BEGIN} and one {END_MARK}")
        before, _, rest = body.partition(BEGIN)
        block, _, after = rest.partition(END_MARK)
        chunks = tuple((chunk.partition(":")[0].rstrip(), chunk) for chunk in _KEY.split(front) if chunk)
        return cls(chunks, values, before, block, after)

    @property
    def _own(self) -> list[tuple[str, str]]:
        """The YAML that is a person's."""
        return [(key, text) for key, text in self.front if key not in OURS]

    @property
    def person(self) -> str:
        """A digest of what is a person's."""
        return digest([sorted(self._own), self.before.strip(), self.after.strip()])

    def renewed(self, ours: Card) -> str:
        """Return the text of this card with our part of another; keys whose values are the same stay as they stand."""
        same = [key for key in OURS if key in ours.values and ours.values[key] == self.values.get(key)]
        new = {key: text for key, text in ours.front if key in OURS and key not in same}
        front = [text if key in same or key not in OURS else new.pop(key, "") for key, text in self.front]
        return "".join(["---\n", *front, *new.values(), f"---\n{self.before}{BEGIN}{ours.block}{END_MARK}{self.after}"])


def newer(mine: Card, theirs: Card, base: Card, taken: str | None) -> Card | None:
    """Return the card of whoever changed it last; None where both did.

    Args:
        mine: the card of the folder.
        theirs: the card at the target of the push.
        base: the card that nobody has edited.
        taken: the digest that an earlier push noted of what it took from a folder; its text is gone.
    """
    if theirs.person == mine.person:
        return mine
    if mine.person in (base.person, taken):
        return theirs
    return mine if theirs.person == (taken or base.person) else None


def text_of(content: bytes | None, where: str) -> str | None:
    """Return the text of a card; raises ``UserError`` where it is none."""
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        raise conflict("it is no UTF-8 text", where, "save it as UTF-8, or move it away") from None


def without_place(text: str) -> str:
    """Return a card without the place that its rows are loaded from: a push writes another one."""
    return _LOAD.sub("rows = ...", text)


def without_examples(text: str) -> str:
    """Return a card without the rows that it shows, and without that place."""
    return re.sub(r"\n{2,}", "\n\n", _EXAMPLE.sub("", without_place(text)))


def conflict(why: str, where: str, next_step: str | None = None) -> UserError:
    """Return the error for a card that cannot be renewed without losing what a person wrote."""
    marks = f"write the lines {BEGIN} and {END_MARK} where the part of caef-data is to stand, or move the file away"
    return UserError(
        f"{CARD} cannot be renewed without losing what is written in it: {why}",
        where=where,
        next_step=f"{next_step or marks}; then run the same command again",
    )
