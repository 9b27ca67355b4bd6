"""Expressions of one's own: told their splits, and recorded in the dataset that is built of them.

Every build imports this file; ``expression_file`` reads them, and needs polars for it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..errors import UserError
from ..tm import machine
from ..tm.classes import Coordinates, OperandDistribution
from ..tm.columns import I64, Bool, Operands
from ..tm.machine import MAX_DIGITS
from .sampling.laws import class_parts
from .sampling.split import PAIR, SIDES, side_codes
from .spelling import Spelling, literal

if TYPE_CHECKING:
    import polars as pl

    from .settings import TaskSettings

TOGETHER = 20_000  # expressions whose splits are asked for together


@dataclass(frozen=True, eq=False)
class Own:
    """The expressions of one task in a file.

    Args:
        task: the task.
        file: the file's name.
        sha256: of the file.
        rows: the columns line, a and b (null for one operand), each expression once, in the file's order.
        repeated: how many lines were left out for that.
        path: the file as it was given, which no dataset records.
    """

    task: str
    file: str
    sha256: str
    rows: pl.DataFrame
    repeated: int = 0
    path: str = ""

    @cached_property
    def text(self) -> str:
        """The expressions, a line each."""
        return "".join(f"{a}\n" if b is None else f"{a} {b}\n" for _, a, b in self.rows.iter_rows())

    @cached_property
    def key(self) -> tuple[str, str]:
        """What settings hold of them: the file's sha256, and that of the task's expressions in it."""
        return self.sha256, hashlib.sha256(f"{self.task}\n{self.text}".encode()).hexdigest()

    @cached_property
    def operands(self) -> Operands:
        """The expressions in columns."""
        own = machine(self.task)
        second = None if own.unary else own.column(self.rows["b"].to_list())
        return Operands(own.column(self.rows["a"].to_list()), second)

    @cached_property
    def sides(self) -> I64:
        """The split of each expression, as an index into ``SIDES``."""
        parts = [self.operands.rows(slice(at, at + TOGETHER)) for at in range(0, len(self.rows), TOGETHER)]
        return np.concatenate([side_codes(machine(self.task), part) for part in parts])

    @property
    def lengths(self) -> tuple[int, int]:
        """The digits of the shortest and of the longest operand."""
        found = [number.length for number in self.operands.numbers]
        return int(min(one.min() for one in found)), int(max(one.max() for one in found))

    def counts(self) -> dict[str, int]:
        """Return how many expressions each split has."""
        return dict(zip(SIDES, np.bincount(self.sides, minlength=len(SIDES)).tolist(), strict=True))

    def parts(self, any_side: bool) -> Iterator[tuple[int, int, str, OperandDistribution, int]]:
        """Yield the cells of the expressions, as ``sampling.classes.Wanted`` has them."""
        own, given = machine(self.task), self.operands
        pairs = given.a.length * PAIR + (0 if given.b is None else given.b.length)
        named: dict[str, list[I64]] = {}
        for pair in np.unique(pairs).tolist():
            rows = np.flatnonzero(pairs == pair)
            for name, _, part in class_parts(own, *divmod(pair, PAIR)):
                named.setdefault(name, []).append(rows[part.holds(given.take(rows))])
        for name, found in named.items():
            rows = np.concatenate(found)
            listed = Given(given.take(rows), pairs[rows], any_side)
            for pair, count in zip(listed.pairs.tolist(), listed.count.tolist(), strict=True):
                yield *divmod(pair, PAIR), name, listed, count

    def record(self) -> dict[str, Any]:
        """Return what a manifest holds of them; ``expression_file.define`` reads it."""
        packed = pa.Codec("zstd").compress(self.text.encode(), asbytes=True)
        return {"file": self.file, "bytes": len(self.text), "text": base64.b64encode(packed).decode()}


class Given(OperandDistribution):
    """Expressions that are given, by their number in their class.

    Args:
        operands: the expressions, those of a class behind one another.
        pairs: the lengths of each.
        any_side: every split may hold each of them.
    """

    def __init__(self, operands: Operands, pairs: I64, any_side: bool) -> None:
        self.operands, self.any_side = operands, any_side
        self.pairs, self.first, self.count = np.unique(pairs, return_index=True, return_counts=True)

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 0

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        counts: Any = self.count[np.searchsorted(self.pairs, len_a * PAIR + len_b)]
        return 0, counts

    def size(self, len_a: int, len_b: int) -> int:
        return int(self.selector(len_a, len_b)[1])

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        first = self.first[np.searchsorted(self.pairs, draw.len_a * PAIR + draw.len_b)]
        found = self.operands.take(first + draw.selector)
        return found, np.ones(len(found), np.bool_)


_KNOWN: dict[str, Own] = {}  # by the second half of their keys


def remember(own: Own) -> None:
    """Have expressions at hand for settings that name them."""
    _KNOWN[own.key[1]] = own


def own_expressions(key: tuple[str, str]) -> Own:
    """Return the expressions that settings name; raises UserError where they were neither read nor recorded."""
    if key[1] not in _KNOWN or _KNOWN[key[1]].sha256 != key[0]:
        raise UserError("the expressions that these settings name are not at hand", allowed="the file's name")
    return _KNOWN[key[1]]


def check_own(settings: TaskSettings, spelling: Spelling) -> None:
    """Refuse settings that name no expressions that are at hand, or not those of the task."""
    given: Any = settings.expressions
    name, train = spelling.name("allow_test"), spelling.setting("splits", ("train",))
    if given is None:
        what = f"{name} is for {spelling.name('expressions')}"
        raise spelling.refusal(what, "allow_test", allowed="both, or neither")
    if not isinstance(given, tuple | list) or [type(one) for one in given] != [str, str]:
        raise spelling.refusal(f"expressions is {literal(given)}", "expressions", allowed="the name of a file")
    object.__setattr__(settings, "expressions", tuple(given))
    own = own_expressions((given[0], given[1]))
    if own.task != settings.task or (settings.min, settings.max) != own.lengths:
        what = f"these expressions are not those of {settings.task}"
        raise spelling.refusal(what, "expressions", allowed="those of the task, with their lengths")
    if settings.max > settings.max_len:
        line = next(line for line, a, b in own.rows.iter_rows() if max(len(a), len(b or "")) > settings.max_len)
        what, advice = f"an operand has more than {settings.max_len:,} digits", f"write max_len = {settings.max} there"
        where = f"{own.file}, line {line:,}"
        allowed = f"up to {settings.max_len:,} digits, or as many as max_len says, {MAX_DIGITS:,} at most"
        if spelling.options is not None:
            lines = f'expressions = "{own.file}" and max_len = {settings.max}'
            advice = f"write {lines} into a declaration, then: caef-data build my.toml"
        raise UserError(what, where=where, allowed=allowed, next_step=advice)
    if settings.allow_test and settings.splits != ("train",):
        raise spelling.refusal(f"{name} is for a build of train alone", "allow_test", "splits", allowed=train)


def longest_run(settings: TaskSettings, most: int) -> tuple[int, str]:
    """Return the transitions of the longest run that is built, one more than ``most`` where it has more, and which."""
    own, longest = own_expressions(settings.expressions or ("", "")), (0, "")
    built = [settings.allow_test or side in settings.splits for side in SIDES]
    rows = np.flatnonzero(np.array(built)[own.sides])
    for some in np.split(rows, range(TOGETHER, len(rows), TOGETHER)):
        steps = machine(settings.task).run_lengths(own.operands.take(some), most)
        steps = np.where(steps < 0, most + 1, steps)
        if len(some) and (found := int(steps.max())) > longest[0]:
            first = own.rows.row(int(some[steps.argmax()]), named=True)
            told = " ".join(filter(None, (settings.task, first["a"], first["b"])))
            longest = found, f"{told[:80]}{'...' * (len(told) > 80)}, line {first['line']:,},"
    return longest


def notes_of_own(settings: TaskSettings) -> list[str]:
    """Return what there is to say of expressions of a file: their splits, and which are left out."""
    if settings.expressions is None:
        return []
    own, task = own_expressions(settings.expressions), settings.task
    told = ", ".join(f"{split} {count:,}" for split, count in own.counts().items())
    notes = [f"{task}: {len(own.rows):,} expression{'s' * (len(own.rows) > 1)} of {own.file}, by split: {told}"]
    if own.repeated:
        notes.append(f"{task}: {own.repeated:,} more repeat one of these, and are built once")
    others = sum(count for split, count in own.counts().items() if split not in settings.splits)
    if others and not settings.allow_test:
        notes.append(f"{task}: {others:,} belong to another split than {', '.join(settings.splits)}: left out")
    return notes + allowed_test({task: settings.to_dict()})


def allowed_test(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what there is to say where train may hold expressions of test, from the settings of tasks."""
    notes = []
    for task, settings in sorted(tasks.items()):
        own = own_expressions(tuple(settings["expressions"])) if settings.get("allow_test") else None
        if own is not None and (count := int(np.count_nonzero(own.sides))):
            notes.append(f"{task}: built with --allow-test: {count:,} of its expressions are of test or stress")
    return notes
