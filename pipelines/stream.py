"""Rows without a disk: row i of a declaration, for any i, as a dict."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache
from itertools import chain
from operator import length_hint
from typing import Any, Self

import numpy as np
import pyarrow as pa

from ..errors import UserError, did_you_mean, is_whole, quoted, whole_number
from ..schemas.rows import COLUMNS
from ..tm import machine
from ..tm.columns import I64
from .curriculum import mix_of, stages_of
from .rows import python_values, render_rows
from .sampling.random import random_u64, splitmix64, text_key
from .sampling.split import grouped
from .settings import SPLITS, VIEWS, Declaration, digest
from .spelling import PLAIN
from .stream_order import TOGETHER, Course, Layout, Recent
from .stream_sources import Listed, RowWork, Source, source_of

VERSION = 1  # of the order of rows
TEXT = 20_000_000  # bytes of text that are made together, about
LONGEST = 10_000_000  # rows of an epoch, unless a build has more: what it needs of small classes is listed
LAST = 2**62  # the greatest number that is taken: sums of two of them still fit into 64 bits
TOGETHER_ROWS = 26_000  # rows made together: three blocks
ROWS = 1_000  # rows that Python holds at once: their strings take the place of those that were given, in the cache

Row = dict[str, Any]


class Stream:
    """Rows as dicts, by their number or one after the other; ``state_dict`` while they are iterated.

    To torch's DataLoader and all that looks like it, it is an ``IterableDataset``: its workers share the rows.

    Args:
        declaration: what the rows are of.
        split: train, test or stress.
        view: the view.
        rows: how many rows an iteration gives, and how many an epoch has (10,000,000 at most, or as many as a build);
            None for no end, and for epochs of about as many rows as a build writes: counted where a task has up to
            20,000 expressions, else from a sample.
        seed: another seed than that of the declaration.

    Attributes:
        epoch_rows: the rows of an epoch.
        identity: changes with everything that changes a row.

    Raises:
        UserError: the declaration has no rows of this split and view.
    """

    def __init__(
        self,
        declaration: Declaration,
        split: str = "train",
        view: str = "one_step",
        rows: int | None = None,
        seed: int | None = None,
    ) -> None:
        _check(declaration, split, view, rows, seed)
        rows, seed = (None if given is None else int(given) for given in (rows, seed))  # numpy's, too
        self.sources, weights = _sources(declaration, split, view)
        self.split, self.view, self.rows = split, view, rows
        built = sum(int(source.rows.sum()) for source in self.sources)
        self.epoch_rows = min(rows or built, max(built, LONGEST))
        stages = stages_of(declaration.curriculum, declaration.tasks, PLAIN)
        settings = [[own.settings.identity(), own.view, *own.counted_alike] for own in self.sources]
        self.identity = digest([VERSION, settings, weights, stages, split, rows, seed])
        self._first_cell = np.cumsum([0, *(len(source.rows) for source in self.sources)])
        cells, longest = (
            [*columns] for columns in zip(*((own.rows, own.longest) for own in self.sources), strict=True)
        )
        which = np.repeat(np.arange(len(self.sources)), np.diff(self._first_cell))
        self._course = Course(np.concatenate(cells), which, np.concatenate(longest), weights, self.epoch_rows, stages)
        if not self._course.epoch_sizes[0]:
            what = f"curriculum: there are no {split} rows of operands of up to {stages[0][1]} digits to begin with"
            raise UserError(what, allowed="longer operands, or another split or view")
        self._names = _columns([source.view for source in self.sources])
        self._layouts: Recent[int, Layout] = Recent()
        self._machines = [machine(source.settings.task) for source in self.sources]  # they travel to worker processes
        self._rank, self._world = 0, 1
        self._epoch = self._done = 0
        self._rest: Iterator[Row] = iter(())  # of the rows that were made up to ``_done``, those that were not given
        self._resumed: int | None = None
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layouts": Recent(), "_done": self._given, "_rest": iter(())}

    def __len__(self) -> int:
        if self.rows is None:
            raise TypeError("this stream has no end: give stream() a number of rows")
        return len(range(self._rank, self.rows, self._world))

    def __bool__(self) -> bool:
        return True

    # Which rows

    def _listed(self, source: int, listing: int) -> Listed:
        most = self._course.most[self._first_cell[source] : self._first_cell[source + 1]]
        return self.sources[source].listed(self.identity, listing, most * max(1, TOGETHER // self.epoch_rows))

    def _layout(self, epoch: int) -> Layout:
        def make(epoch: int) -> Layout:
            key = np.array([text_key(f"stream {self.identity}")], np.uint64)
            listing = self._course.listing(epoch)
            lists = [self._listed(source, listing) for source in range(len(self.sources))]
            held = np.concatenate([own.held for own in lists])
            units = zip(lists, self.sources, strict=True)  # a large class shows as many expressions as in a build
            unit = np.concatenate([np.where(own.listed, 1, source.rows_together) for own, source in units])
            begin = float(random_u64(key + np.uint64(epoch), 1)[0] >> np.uint64(12)) / 2**52
            return Layout(epoch, key, self._course.shares(epoch, held > 0, begin), unit)

        return self._layouts.get_or(epoch, make)

    def __getitem__(self, number: int) -> Row:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Row]:
        """Return rows by their numbers; raises IndexError where one is none."""
        some = numbers[:: max(1, len(numbers) - 1)] if isinstance(numbers, range) else numbers  # its ends
        wrong = [number for number in some if not is_whole(number, 0)]
        if wrong:
            raise IndexError(f"rows are numbered from 0 on, to 2**63 - 1: {quoted(wrong[0])} is none")
        return [*chain.from_iterable(self._rows(np.asarray(numbers, np.int64)))]

    def _rows(self, numbers: I64) -> Iterator[list[Row]]:
        """Yield rows by their numbers, some at a time."""
        epochs, places = self._course.find(numbers)
        (cell, rank, expression), listing, total = np.empty((3, len(numbers)), np.int64), np.empty_like(epochs), 0
        for epoch, here in grouped(epochs):
            cell[here], rank[here], own = self._layout(epoch).find(places[here])
            listing[here], expression[here] = self._course.listing(epoch), own + total
            total += int(own.max()) + 1
        which = np.searchsorted(self._first_cell, cell, "right") - 1
        group, parts = np.empty_like(cell), list[Iterator[list[Row]]]()
        for kind, here in grouped(which + (listing << 20)):
            group[here] = len(parts)
            rows = cell[here], rank[here], epochs[here], expression[here]
            parts.append(_python_rows(self._work(kind % (1 << 20), kind >> 20, rows), self._names))
        if len(parts) == 1:
            return parts[0]
        each = [chain.from_iterable(part) for part in parts]
        return ([next(each[at]) for at in group[start : start + ROWS].tolist()] for start in range(0, len(group), ROWS))

    def _work(self, source: int, listing: int, rows: tuple[I64, I64, I64, I64]) -> RowWork:
        """Return what renders rows of a source: of each the cell, its place there, the epoch, and the expression."""
        numbers = np.arange(len(rows[3]))
        one = np.full(int(rows[3].max()) + 1, -1)
        one[rows[3]] = numbers  # a row of each expression, whichever
        expression = (np.cumsum(one >= 0) - 1)[rows[3]]
        one = one[one >= 0]
        own, listed = self.sources[source], self._listed(source, listing)
        first_cell = self._first_cell[source]
        unit = np.where(listed.listed, 1, own.rows_together)
        cell, epochs, most = rows[0][one] - first_cell, rows[2][one], self._course.most[rows[0][one]]
        few, rank = listed.held[cell] < most, rows[1][one] // unit[cell]
        rank = np.where(few, rank, epochs * most + rank)
        round_, at = np.divmod(rank, np.where(listed.listed[cell], listed.held[cell], 1 << 62))
        # A class that has too few begins anew in each epoch, and in another order each time that it has come round.
        salt = splitmix64(np.where(few, (epochs << 32) + round_ + 1, 0).astype(np.uint64))
        at = listed.permuted(cell, at, salt)
        operands, variant = listed.expressions(cell, at)
        keys = splitmix64(splitmix64(listed.cells.keys[cell] + epochs.astype(np.uint64)) + at.astype(np.uint64))
        turn = round_[expression] + rows[1] % unit[rows[0] - first_cell]
        return RowWork(own.settings, own.view, operands, variant, listed.cells.names, expression, keys, turn)

    @cached_property
    def repeats(self) -> list[str]:
        """A sentence for each task some classes of which have fewer expressions than rows in an epoch."""
        told = []
        for number, source in enumerate(self.sources):
            own = slice(self._first_cell[number], self._first_cell[number + 1])
            held, share = self._listed(number, 0).held, self._layout(0).share[own]
            classes = {cell[:2] for cell, few in zip(source.wanted, held < share, strict=True) if few}
            if classes:
                every = len({cell[:2] for cell in source.wanted})
                what = (
                    f"{len(classes):,} of {every:,} classes have fewer {self.split} expressions than rows of an epoch"
                )
                told.append(f"{source.settings.task}-{source.view}: {what}; they come again when all have come")
        return told

    # One after the other

    def __iter__(self) -> Iterator[Row]:
        self._done, self._rest, self._resumed = self._resumed or 0, iter(()), None
        if not self._told and self._place()[0] == 0 and self.repeats:
            warnings.warn("; ".join(self.repeats), stacklevel=2)
        self._told = True
        return chain.from_iterable(self._iterate(self._done))

    def _iterate(self, done: int) -> Iterator[Iterator[Row]]:
        rank, world = self._place()
        end = sys.maxsize if self.rows is None else len(range(rank, self.rows, world))
        first = self._epoch * (self.rows or 0) + rank
        most = max(16, min(TOGETHER_ROWS, TEXT // max(1, *(source.text for source in self.sources))))
        while done < end:
            count = self._whole_blocks(first + world * done, world, min(most, end - done))
            for rows in self._rows(first + world * np.arange(done, done + count)):
                done += len(rows)
                self._done, self._rest = done, iter(rows)
                yield self._rest

    def _whole_blocks(self, number: int, world: int, count: int) -> int:
        """Return how many of ``count`` rows to make together: to the end of a block, whose expressions are drawn once.

        All where no block ends.
        """
        [epoch], [place] = self._course.find(np.array([number + world * (count - 1)]))
        whole = count - -(-self._layout(int(epoch)).begun(int(place)) // world)
        return whole if whole > 0 else count

    @property
    def _given(self) -> int:
        """How many rows this process has given."""
        return self._done - length_hint(self._rest)

    def _place(self) -> tuple[int, int]:
        """Return the rank of this process or DataLoader worker among all that share the rows, and how many they are."""
        torch = sys.modules.get("torch.utils.data")
        worker = torch.get_worker_info() if torch is not None else None
        if worker is None:
            return self._rank, self._world
        return self._rank * worker.num_workers + worker.id, self._world * worker.num_workers

    def shard(self, rank: int, world_size: int) -> Self:
        """Return the stream of one of several processes: every ``world_size``-th row from row ``rank`` on."""
        world_size = whole_number("world_size", world_size, 1, 2**31 // self._world)
        rank = whole_number("rank", rank, 0, LAST)
        if rank >= world_size:
            raise UserError(
                f"rank is {quoted(rank)}, world_size {quoted(world_size)}", allowed="0 <= rank < world_size"
            )
        own = copy(self)
        own._rank, own._world = self._rank + self._world * rank, self._world * world_size
        own._done, own._resumed = 0, None
        return own

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration begin with the rows of another epoch, if the stream has an end.

        Raises:
            UserError: it is no number of an epoch.
        """
        self._epoch = whole_number("epoch", epoch, 0, LAST // (self.rows or 1))

    def state_dict(self) -> dict[str, Any]:
        """Return how many rows were given, by all processes and workers together, if each has given as many as this."""
        done = self._given if self._resumed is None else self._resumed
        return {"stream": self.identity, "epoch": self._epoch, "rows": done * self._place()[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where another one was when ``state_dict`` was called.

        Raises:
            UserError: it is the state of another stream, damaged, or of processes that cannot share the other rows
                evenly. The stream is as before.
        """
        if not isinstance(state, Mapping):
            raise UserError(f"{quoted(state)} is no state of a stream", allowed="what state_dict() returned")
        if state.get("stream") != self.identity:
            allowed = "one of the same declaration, split, view, rows and seed"
            raise UserError("this is the state of another stream", allowed=allowed)
        epoch = whole_number("epoch of the state", state.get("epoch", 0), 0, LAST // (self.rows or 1))
        # The last rows of processes that share unevenly count for all: there may be more than the stream has.
        most = LAST if self.rows is None else min(LAST, 2 * max(self.rows, 2**16))
        rows, world = whole_number("rows of the state", state.get("rows"), 0, most), self._place()[1]
        if rows % world:
            what = f"{rows:,} rows were given, which {world} processes and workers cannot have shared evenly"
            raise UserError(what, allowed="as many processes and workers as before, or a number that divides the rows")
        self._epoch, self._resumed = epoch, rows // world

    @property  # type: ignore[misc]
    def __class__(self) -> type[Stream]:
        # What asks for a class looks here first. DataLoader asks whether a data set is an IterableDataset: torch, which
        # is never imported for it, is told so once it is there.
        torch = sys.modules.get("torch.utils.data")
        if torch is not None and hasattr(torch, "IterableDataset"):
            torch.IterableDataset.register(Stream)
        return Stream


def _sources(declaration: Declaration, split: str, view: str) -> tuple[list[Source], list[float] | None]:
    """Return what the rows are of, and the weight of each where the declaration says so."""
    mix, tasks = mix_of(declaration.mix, declaration.tasks, PLAIN), {task.task: task for task in declaration.tasks}
    found: dict[tuple[str, str], Source] = {}
    for name, own in mix or dict.fromkeys((name, None) for name in tasks):
        task, what = tasks[name], f"mix names {name}{f'-{own}' if own else ''}"
        if (name, own or view) in found:
            raise UserError(f"{what} twice: {view} is the view of this stream", allowed="each task and view once")
        there = split in task.splits and (own or view) not in machine(name).missing_views()
        if source := source_of(task, split, own or view) if there else None:
            found[name, own or view] = source
        elif mix:
            raise UserError(
                f"{what}, of which there are no {split} rows of {own or view}", allowed="others, or another split"
            )
    if not found:
        what = f"this declaration has no {split} rows of {view}"
        raise UserError(what, allowed="another view or split, or more tasks", next_step="caef-data plan shows its rows")
    return [*found.values()], [*mix.values()] or None


def _columns(views: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of rows of views: those of all, and which view a row is of, if they are several."""
    names = dict.fromkeys(name for view in views for name in COLUMNS[view])
    return (*names, "view") if len({*views}) > 1 else (*names,)


def _check(declaration: Declaration, split: str, view: str, rows: int | None, seed: int | None) -> None:
    for name, value, known in (("split", split, SPLITS), ("view", view, VIEWS)):
        if value not in known:
            near = did_you_mean(str(value)[:60], known)
            raise UserError(f"{name} is {quoted(value)}{near}", allowed=", ".join(known))
    for name, number, least, none in (("rows", rows, 1, "no end"), ("seed", seed, 0, "that of the declaration")):
        if number is not None:
            whole_number(name, number, least, more=f"; None for {none}")
    if declaration.unresolved:
        raise UserError("a stream needs a declaration whose budget is resolved", next_step="caef_data.stream does it")
    held = [split for split in SPLITS if any(split in task.splits for task in declaration.tasks)]
    if split not in held:
        what = f"this declaration has no split {split}"
        raise UserError(what, allowed=", ".join(held), next_step=f'stream(..., split="{held[0]}"), or declare {split}')


# ----------------------------------------------------------------------------------------------------------
# Rows as Python has them


def _python_rows(work: RowWork, names: tuple[str, ...]) -> Iterator[list[Row]]:
    """Return the rows of a block as dicts with these columns, made ``ROWS`` at a time as they are asked for."""
    batch = render_rows(work)
    constants: dict[str, object] = {**dict.fromkeys(names), "view": work.view}
    columns: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type) and len(column.dictionary) == 1 and not column.null_count:
            [constants[name]] = column.dictionary.to_pylist()
        elif column.null_count < len(column):  # texts take the place of those that were given, in the cache
            columns[name] = column if _text(column) else python_values(column)
    varying = tuple(name for name in names if name in columns)
    made = _maker(names, varying)(**{name: constants[name] for name in names if name not in columns})

    def some(rows: slice) -> list[Row]:
        parts = (columns[name][rows] for name in varying)
        return made([python_values(part) if isinstance(part, pa.Array) else part for part in parts])

    return (some(slice(start, start + ROWS)) for start in range(0, len(batch), ROWS))


def _text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_list(column.type))


@lru_cache
def _maker(names: tuple[str, ...], varying: tuple[str, ...]) -> Callable[..., Callable[..., list[Row]]]:
    """Return a function that makes dicts of columns: written out it takes two thirds of the time of ``dict(zip())``."""
    constants = [name for name in names if name not in varying]
    fields = ", ".join(f"{name!r}: {name}" for name in names)
    each = f"for {', '.join(varying)}, in zip(*columns)"
    source = f"lambda {', '.join(constants)}: lambda columns: [{{{fields}}} {each}]"
    made: Callable[..., Callable[..., list[Row]]] = eval(source)  # noqa: S307  (names of our own columns)
    return made
