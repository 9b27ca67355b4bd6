"""Budgets of train rows or of tokens: how they are asked for, and what is kept of what they came to."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from .spelling import Spelling

BUDGET = ("rows", "tokens", "tokenizer")  # the keys of a declaration that ask for one
MILLION = 1_000_000
Amount = Annotated[int, Meta(ge=1, le=10**15)]
TokenizerName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._/-]{0,200}\Z")]
Tokenizer = Annotated[str, Meta(min_length=1, description="a folder, or a name on the Hub")]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a budget came to for one task, beside ``num``: see ``resolve_budget``."""

    asked: Amount
    """Rows of all tasks of the declaration together; tokens where there is a tokenizer."""
    rows: Annotated[int, Meta(ge=0, le=10**15)]
    """Train rows of this task, all views together."""
    extra: Annotated[int, Meta(ge=0, lt=MILLION, description="a whole number from 0 to 999,999")] = 0
    """Millionths of what one expression more of each class would add: some classes get theirs, others do not."""
    tokenizer: TokenizerName | None = None
    """Name of the tokenizer that counted the tokens; no part of an identity."""
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")] | None = None
    """Of that tokenizer's file."""

    @property
    def unit(self) -> str:
        """What was asked for, as a declaration's key."""
        return "rows" if self.sha256 is None else "tokens"

    def to_dict(self) -> dict[str, object]:
        """Return what is known, as JSON has it."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def tokenizer_name(tokenizer: str) -> str:
    """Return how a dataset's files call a tokenizer: the place where a folder lies is nobody else's concern."""
    on_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", tokenizer) and not Path(tokenizer).is_dir()
    name = tokenizer if on_hub else Path(tokenizer).resolve().name
    return re.sub(r"[^A-Za-z0-9._/-]+", "-", name).strip("-._/")[-200:].strip("-._/") or "tokenizer"


def check_budget(
    given: Mapping[str, Any], tables: Iterable[Mapping[str, Any]], trained: bool, spelling: Spelling
) -> None:
    """Refuse a budget beside what it decides, without a train split, or of tokens that nothing counts.

    ``given`` are the settings of all tasks, ``tables`` those of each; ``trained``: there is a train split.
    """
    name, asked = spelling.name, [key for key in BUDGET[:2] if given.get(key) is not None]
    if not asked:
        return
    other = [*asked[1:], *(key for key in ("num", "budget") if any(key in table for table in [given, *tables]))]
    if other:
        what = f"{name(other[0])} is given beside {name(asked[0])}"
        raise spelling.refusal(what, other[0], asked[0], allowed="one of the two: a budget decides the rest")
    if asked == ["tokens"] and given.get("tokenizer") is None:
        allowed = f"{name('tokens')} with {name('tokenizer')}, the folder or Hub name of what counts them"
        raise spelling.refusal(f"{name('tokens')} is given without {name('tokenizer')}", "tokens", allowed=allowed)
    if not trained:
        what = f"{name(asked[0])} is a budget of the train split, of which nothing is asked for"
        raise spelling.refusal(what, *asked, "splits", allowed=f"{name('splits')} with train in it, and a view of it")
