"""A dataset card that a person edits too: which part of README.md is ours, and how a new one of it is put there.

Ours are the keys ``OURS`` of the YAML at the top and one block between two marks, which holds facts of the manifest.
Everything else is written once, when there is no card yet, and belongs to whoever edits it from then on. A push merges
the card here and the one there three ways: the base is what an earlier push took from here, of which the manifest there
holds a digest, or else the card that nobody has edited.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import UserError
from .manifest import CARD
from .settings import digest

BEGIN, END_MARK = "<!-- caef-data: begin -->", "<!-- caef-data: end -->"
OURS = ("size_categories", "configs")
_FRONT = re.compile(r"\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"^#", re.MULTILINE)
_LAST = "caef-data: last"  # a key and its value, put behind a part of the YAML to see whether others can follow it
_EXAMPLE = re.compile(
    r"^(?:A row of|From) `[a-z0-9_]+-[a-z_]+`, split \w+ \([^\n]*\):\n\n"
    r"```text\nprompt:\n.*?\ncompletion:\n.*?\n```\n+",
    re.MULTILINE | re.DOTALL,
)
_LOAD = re.compile(r"^rows = load_dataset\(.*\)$", re.MULTILINE)


class UnmarkedError(ValueError):
    """A card has no block of ours, or more than one, or YAML that cannot be merged; the text says so."""

    def __init__(self, why: str, next_step: str | None = None) -> None:
        super().__init__(why)
        self.next_step = next_step


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
            UnmarkedError: it has no block of ours, or its YAML cannot be read, or not be cut.
        """
        body = text.removeprefix("\ufeff").replace("\r\n", "\n")
        match = _FRONT.match(body)
        front, body = (match[1], body[match.end() :]) if match else ("", body)
        chunks, values = _cut(front, text.count("\n", 0, text.find("---")) + 2)
        if body.count(BEGIN) != 1 or body.count(END_MARK) != 1 or body.index(BEGIN) > body.index(END_MARK):
            raise UnmarkedError(f"it has no part between one {BEGIN} and one {END_MARK}")
        before, _, rest = body.partition(BEGIN)
        block, _, after = rest.partition(END_MARK)
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


def _cut(front: str, line: int) -> tuple[tuple[tuple[str, str], ...], dict[str, Any]]:
    """Cut YAML into its keys, whole lines each, and return these texts and the values.

    Args:
        front: the YAML.
        line: the number of its first line in the card.

    Raises:
        UnmarkedError: it cannot be read, or a key cannot be changed without touching another one.
    """
    import yaml

    mend = "mend the YAML between the two lines --- at its top, or move the file away"
    try:
        root = yaml.compose(front, yaml.SafeLoader)
        values = {} if root is None else yaml.safe_load(front)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        at = "" if mark is None else f": line {line + mark.line}, {problem}"
        raise UnmarkedError(f"the YAML at its top cannot be read{at}", mend) from None
    if not isinstance(values, dict):
        raise UnmarkedError("the YAML at its top is no mapping", mend)
    keys = {} if root is None else {key.start_mark.index - key.start_mark.column: key.value for key, _ in root.value}
    cuts = sorted({0, *keys, *(found.start() for found in _COMMENT.finditer(front)), len(front)})
    pieces = ((start, front[start:end]) for start, end in pairwise(cuts))
    chunks = tuple((str(keys.get(start, text.partition(":")[0].rstrip())), text) for start, text in pieces)
    if not _apart(chunks, values):
        what = f"in the YAML at its top {' and '.join(OURS)} cannot be renewed without touching other keys"
        advice = "write that YAML as plain lines, such as license: mit: none in {...}, none indented, no &anchor"
        raise UnmarkedError(what, f"{advice} and no # line inside of {OURS[-1]}; or move the file away")
    return chunks, values


def _apart(chunks: Sequence[tuple[str, str]], values: dict[Any, Any]) -> bool:
    """Tell whether a person's keys alone, and each of ours, say what they say together, whatever follows them."""
    import yaml

    theirs, read = "".join(text for key, text in chunks if key not in OURS), dict[Any, Any]()
    try:
        for text in (theirs, *(text for key, text in chunks if key in OURS)):
            own = yaml.safe_load(f"{text}{_LAST}\n")
            read |= own if own.popitem() == tuple(_LAST.split(": ")) else {}
    except (yaml.YAMLError, AttributeError, KeyError):
        return False
    return {key: repr(value) for key, value in read.items()} == {key: repr(value) for key, value in values.items()}


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
