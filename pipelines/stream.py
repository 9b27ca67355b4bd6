"""Rows without a disk: row i of a declaration, for any i, as a dict."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property, lru_cache
from itertools import chain, repeat
from operator import length_hint
from typing import Any, Self

import numpy as np
import pyarrow as pa

from ..errors import UserError, quoted, whole_number
from ..schemas.rows import COLUMNS
from ..tm.columns import I64
from .curriculum import mix_of, stages_of
from .rows import python_values, render_rows
from .sampling.random import text_key
from .sampling.split import PAIR, distinct, grouped
from .settings import Declaration, Split, View, check_field, digest
from .spelling import PLAIN
from .stream_epoch import Epoch, RowWork, Source, sources_of

VERSION = 2  # of the order of rows
TEXT = 20_000_000  # bytes of text that are made together, about
LONGEST = 10_000_000  # rows of an epoch, unless a build has more: what it needs of small classes is listed
LAST = 2**62  # the greatest number that is taken: sums of two of them still fit into 64 bits
TOGETHER_ROWS = 26_000  # rows made together: three hands
ROWS = 1_000  # rows that Python holds at once: their strings take the place of those that were given, in the cache

Row = dict[str, Any]


class NoRowsError(UserError):
    """A declaration has no rows of a split and view, or none that a stream of them begins with."""


class Stream:
    """Rows as dicts, by their number or one after the other; ``state_dict`` while they are iterated.

    ``caef_data.stream`` says what its arguments are. To torch's DataLoader and all that looks like it, it is an
    ``IterableDataset``: its workers share the rows.

    Attributes:
        epoch_rows: the rows of an epoch.
        identity: changes with everything that changes a row.

    Raises:
        UserError: the declaration has no rows of this split and view.
    """

    split: Split
    view: View

    def __init__(
        self,
        declaration: Declaration,
        split: str = "train",
        view: str = "one_step",
        rows: int | None = None,
        seed: int | None = None,
    ) -> None:
        for name, value in (("split", split), ("view", view)):
            check_field(Stream, name, value, PLAIN)
        rows = None if rows is None else whole_number("rows", rows, 1, more="; None for no end")
        seed = None if seed is None else whole_number("seed", seed, 0, more="; None for that of the declaration")
        if declaration.unresolved:
            what = "a stream needs a declaration whose budget is resolved"
            raise UserError(what, next_step="caef_data.stream does it")
        self.split, self.view, self.rows = split, view, rows  # type: ignore[assignment]
        self._rank, self._world = 0, 1
        self._epoch = self._start = 0  # the next iteration: its epoch, and how many of its rows all have given
        self._asked = self._over = self._due = False  # set_epoch chose it; it was loaded at its end; after one that was
        self._chosen = self._outside = self._served = False  # set_epoch was ever called; loaded, iterated in no worker
        self._at = self._done = self._left = 0  # the last one: its epoch, rows that were made, given at set_epoch
        self._rest: Iterator[Row] = iter(())  # of the rows that were made up to ``_done``, those that were not given
        parts = _parts_of(declaration, split, view)
        self.sources = [source for own, _ in parts for source in own]
        self._machines = [own.settings.machine() for own in self.sources]  # they travel to worker processes
        self._kind = np.repeat(range(len(parts)), [sum(len(source.rows) for source in own) for own, _ in parts])
        self._mix = np.array([weight for _, weight in parts]) if declaration.mix else None
        self._built = np.concatenate([own.rows for own in self.sources])  # of each cell
        self._longest = np.concatenate([own.longest for own in self.sources])
        self._together = max(16, min(TOGETHER_ROWS, TEXT // max(1, *(own.text for own in self.sources))))
        views = {own.view for own in self.sources}
        columns = [name for own in self.sources for name in COLUMNS[own.view]] + ["view"] * (len(views) > 1)
        self._columns = tuple(dict.fromkeys(columns))
        stages, settings = stages_of(declaration), [[own.settings.identity(), own.view] for own in self.sources]
        mix = None if self._mix is None else self._mix.tolist()
        self.identity = digest([VERSION, settings, mix, stages, split, rows, seed])
        built = max(1, round(self._built.sum()))
        self.epoch_rows = min(rows or built, max(built, LONGEST))
        self._begins = np.array([begin for begin, _ in stages])
        self._limits = np.array([1 << 40 if limit is None else limit for _, limit in stages])
        held = np.cumsum(np.bincount(np.searchsorted(self._limits, self._longest), self._built, len(stages)))
        if not held[0]:
            what = f"curriculum: there are no {split} rows of operands of up to {stages[0][1]} digits to begin with"
            raise NoRowsError(what, allowed="longer operands, or another split or view")
        self._sizes = np.maximum(1, np.rint(held / held[-1] * self.epoch_rows)).astype(np.int64)  # of epochs
        self._first_epochs = np.cumsum([0, *(-(-np.diff(self._begins) // self._sizes[:-1]))])

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in self.__dict__.items() if name != "_epochs"}
        return own | {"_done": self._given, "_rest": iter(())}

    def __len__(self) -> int:
        if self.rows is None:
            raise TypeError("this stream has no end: give stream() a number of rows")
        return len(range(self._rank, self.rows, self._world))

    def __bool__(self) -> bool:
        return True

    # Which rows

    @cached_property
    def _epochs(self) -> Callable[[int], Epoch]:
        return lru_cache(maxsize=3)(self._make_epoch)

    def check_machines(self) -> None:
        """Refuse to go on where a machine is another one by now: a declaration took its name since.

        Raises:
            UserError: one is.
        """
        for source in self.sources:
            source.settings.machine()

    def _make_epoch(self, number: int) -> Epoch:
        self.check_machines()
        stage = int(np.searchsorted(self._first_epochs, number, "right")) - 1
        weights = np.where(self._longest <= self._limits[stage], self._built, 0)
        if self._mix is not None:
            whole = np.bincount(self._kind, weights)
            weights = weights * (self._mix / np.where(whole > 0, whole, 1))[self._kind]
        return Epoch(text_key(f"stream {self.identity} {number}"), self.sources, weights, int(self._sizes[stage]))

    def _find(self, numbers: I64) -> tuple[I64, I64]:
        """Return the epoch of rows, and their places in it."""
        stage = np.searchsorted(self._begins, numbers, "right") - 1
        epoch, place = np.divmod(numbers - self._begins[stage], self._sizes[stage])
        return self._first_epochs[stage] + epoch, place

    def __getitem__(self, number: int) -> Row:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Row]:
        """Return rows by their numbers; raises IndexError where one is none."""
        given = np.asarray(numbers)
        if len(given) and (given.dtype.kind != "i" or given.min() < 0):
            raise IndexError(f"rows are numbered from 0 on, to 2**63 - 1: {quoted(numbers)} is none")
        return [*chain.from_iterable(self._rows(given.astype(np.int64)))]

    def _rows(self, numbers: I64) -> Iterator[list[Row]]:
        """Yield rows by their numbers, some at a time."""
        self.check_machines()
        epochs, places = self._find(numbers)
        group, parts = np.empty(len(numbers), np.int64), list[Iterator[list[Row]]]()
        for epoch, here in grouped(epochs):
            for rows, work in self._epochs(epoch).works(places[here]):
                group[here[rows]] = len(parts)
                parts.append(_python_rows(work, self._columns))
        if len(parts) == 1:
            return parts[0]
        each = [chain.from_iterable(part) for part in parts]
        return ([next(each[at]) for at in group[start : start + ROWS].tolist()] for start in range(0, len(group), ROWS))

    @cached_property
    def repeats(self) -> list[str]:
        """A sentence for each task some classes of which have fewer expressions than rows in an epoch."""
        epoch, told = self._epochs(0), list[str]()
        short = np.split(epoch.held < epoch.share, epoch.first_cell[1:-1])
        for source, own in zip(self.sources, short, strict=True):
            classes = source.cells.len_a * PAIR + source.cells.len_b
            few, every = (len(distinct(classes[some])) for some in (own, source.count > 0))
            what = f"{few:,} of {every:,} classes have fewer {self.split} expressions than rows of an epoch"
            if few:
                told.append(f"{source.settings.task}-{source.view}: {what}; they come again when all have come")
        return told

    # One after the other

    def __iter__(self) -> Iterator[Row]:
        self._check_epoch()
        done = self._shared(self._start)
        self._at, self._done, self._start, self._rest = self._epoch, done, 0, iter(())
        if self._place()[0] == 0 and self.repeats:
            warnings.warn("; ".join(self.repeats), stacklevel=2)
        return chain.from_iterable(self._iterate(self._epoch, done))

    def _check_epoch(self) -> None:
        """Raise UserError where rows would be repeated or left out, since the epoch that is meant is not known here."""
        what = step = ""
        if self.rows is None:
            return
        if self._over and not self._start:  # torchdata asks again, for it knows that the epoch has ended
            what = f"epoch {self._epoch} has ended in this state, and set_epoch({self._epoch}) asks for it again"
            step = f"set_epoch({self._epoch + 1}) before the iteration"
        elif _worker() and self._served and self._chosen:
            what = "a worker that stays for the next epoch does not hear of set_epoch, and would repeat this one"
            step = "persistent_workers=False"
        elif _worker() and self._outside and self._start and not self._asked:
            what = "a state was loaded before the rows went to workers, which would leave out its rows in every epoch"
            step = f"set_epoch before each epoch, now set_epoch({self._epoch}); or torchdata's StatefulDataLoader"
        if what:
            raise UserError(what, next_step=step)

    def _iterate(self, epoch: int, done: int) -> Iterator[Iterator[Row]]:
        if self._moved(epoch):  # set_epoch came between iter() and this first row
            done = 0
        epoch, self._served = self._epoch, _worker() is not None
        self._asked = self._over = self._due = False
        rank, world = self._place()
        number = epoch * (self.rows or 0) + rank + world * done
        end = sys.maxsize if self.rows is None else (epoch + 1) * self.rows
        while number < end:
            [own], [place] = self._find(np.array([number]))
            stop = number + self._epochs(int(own)).end(place, self._together * world) - int(place)
            numbers = np.arange(number, min(stop, end), world)
            for rows in self._rows(numbers):
                done, rest = done + len(rows), iter(rows)
                self._at, self._done, self._rest = epoch, done, rest
                yield rest
            number += len(numbers) * world

    def _moved(self, epoch: int) -> bool:
        """Tell whether the next iteration is one of another epoch: a count of rows of this one says nothing of it."""
        return self.rows is not None and epoch != self._epoch

    @property
    def _given(self) -> int:
        """How many rows this process has given."""
        return self._done - length_hint(self._rest)

    def _place(self) -> tuple[int, int]:
        """Return the rank of this process or DataLoader worker among all that share the rows, and how many they are."""
        worker = _worker()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return self._rank * workers + number, self._world * workers

    def shard(self, rank: int, world_size: int) -> Self:
        """Return the stream of one of several processes: every ``world_size``-th row from row ``rank`` on."""
        world_size = whole_number("world_size", world_size, 1, 2**31 // self._world)
        rank, own = whole_number("rank", rank, 0, world_size - 1), copy(self)
        own._rank, own._world = self._rank + self._world * rank, self._world * world_size
        own._done = own._left = own._shared(own._start)  # 0 unless a state was loaded
        return own

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration begin with the rows of another epoch, if the stream has an end.

        A place that was loaded stays in its epoch, and is left for a later one.

        Raises:
            UserError: it comes before that of a state that was loaded and not iterated.
        """
        before, epoch = self._epoch, whole_number("epoch", epoch, 0, LAST // (self.rows or 1))
        if self.rows is not None and self._start and epoch < before:
            what = f"the state that was loaded is of epoch {before}: epoch {epoch} comes before it"
            raise UserError(what, next_step=f"set_epoch({before}) to go on; another stream for rows of epoch {epoch}")
        if self._due and self._at == before < epoch:  # torchdata gave the rest of the epoch before: nothing
            what = (
                f"epoch {before} was begun and none of its rows was taken: the loader was at the end of an earlier one"
            )
            raise UserError(what, next_step="go on with set_epoch of the epoch that the loader's state was taken in")
        self._epoch = epoch
        if self._moved(before):
            self._start = 0
        self._asked, self._chosen, self._over, self._left = True, True, False, self._given

    def state_dict(self) -> dict[str, Any]:
        """Return how many rows were given, by all processes and workers together, if each has given as many as this."""
        if self._moved(self._at) and self._given == self._left:  # set_epoch began another epoch
            epoch, given = self._epoch, 0
        else:
            epoch, given = self._at, self._given
        world = self._place()[1]
        alone = {"world": world} if _worker() else {}  # a worker's batch is not yet one of the others
        return {"stream": self.identity, "epoch": epoch, "rows": given * world} | alone

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where another one was when ``state_dict`` was called.

        If ``set_epoch`` has chosen the epoch that follows and all rows of the state's were given, that one begins.

        Raises:
            UserError: it is the state of another stream, damaged, or of processes that cannot share the other rows
                evenly; or ``set_epoch`` has chosen an epoch that is not the state's, and rows of that are left. The
                stream is as before.
        """
        if not isinstance(state, Mapping) or state.get("stream") != self.identity:
            allowed = "what state_dict() returned, of the same declaration, split, view, rows and seed"
            raise UserError("this is not the state of this stream", allowed=allowed)
        epoch = whole_number("epoch of the state", state.get("epoch", 0), 0, LAST // (self.rows or 1))
        rows = whole_number("rows of the state", state.get("rows"), 0, LAST)
        done, (rank, world) = self._shared(rows), self._place()
        if state.get("world", world) != world:
            what = f"a state of one of {quoted(state['world'])} workers of all processes, not of {world}"
            raise UserError(what, next_step="as many workers as before; another number from the next epoch on")
        ended = self.rows is not None and done >= len(range(rank, self.rows, world))
        over = ended and rows > 0 and self._asked and epoch == self._epoch
        due = self._asked and self._moved(epoch)
        if due and (not ended or epoch > self._epoch):
            what = f"the state is of epoch {epoch}, after {rows:,} of {self.rows:,} rows"
            what += f", but set_epoch has chosen epoch {self._epoch}"
            here = f"set_epoch({epoch}) to go on there"
            step = (
                f"set_epoch({epoch + 1}) for the next epoch; {here}, if a loader has rows of it left" if ended else here
            )
            step += "; to begin another epoch, set_epoch without this state"
            raise UserError(what, next_step=step)
        self._at, self._over, self._due, self._outside = epoch, over, due, _worker() is None
        epoch, rows, done = (self._epoch, 0, 0) if due else (epoch, rows, done)  # if so, the epoch that follows begins
        self._epoch, self._start, self._done, self._left, self._rest = epoch, rows, done, done, iter(())

    def _shared(self, rows: int) -> int:
        """Return how many of the first rows this process has given; raises UserError where not all gave as many."""
        world = self._place()[1]
        if rows % world:
            what = f"{rows:,} rows were given, which {world} processes and workers cannot have shared evenly"
            raise UserError(what, allowed="as many processes and workers as before, or a number that divides the rows")
        return rows // world

    @property  # type: ignore[misc]
    def __class__(self) -> type[Stream]:
        # DataLoader asks for the class whether this is an IterableDataset: torch, which is never imported for it, is
        # told so once it is there.
        if base := getattr(sys.modules.get("torch.utils.data"), "IterableDataset", None):
            base.register(Stream)
        return Stream


def _worker() -> Any:
    """Return torch's number and count of the DataLoader worker that this process is; None where it shares no rows."""
    torch, datasets = sys.modules.get("torch.utils.data"), sys.modules.get("datasets")
    found = torch and torch.get_worker_info()
    source, wraps = found and found.dataset, getattr(datasets, "IterableDataset", ())
    while source is not None and not isinstance(source, Stream):
        if isinstance(source, wraps):
            return None  # the library gives a worker whole generators, and the others none
        source = getattr(source, "dataset", None)  # of accelerate, and of torch's own
    return found


def _python_rows(work: RowWork, names: tuple[str, ...]) -> Iterator[list[Row]]:
    """Yield the rows of a block as dicts with these columns, made ``ROWS`` at a time as they are asked for."""
    batch = render_rows(work)
    columns: dict[str, Any] = {name: repeat(None) for name in names} | {"view": repeat(work.view)}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(column.type) and len(column.dictionary) == 1 and not column.null_count:
            columns[name] = repeat(column.dictionary[0].as_py())
        else:  # texts take the place of those that were given, in the cache
            text = pa.types.is_string(column.type) or pa.types.is_list(column.type)
            columns[name] = column if text else python_values(column)
    make, chosen = _maker(names), [columns[name] for name in names]
    for start in range(0, len(batch), ROWS):
        rows = slice(start, start + ROWS)
        parts = [column if isinstance(column, repeat) else column[rows] for column in chosen]
        yield make([python_values(part) if isinstance(part, pa.Array) else part for part in parts])


def _parts_of(declaration: Declaration, split: str, view: str) -> list[tuple[list[Source], float]]:
    """Return the sources of each task and view, and their weight."""
    tasks, mix = {own.task: own for own in declaration.tasks}, mix_of(declaration, view)
    found, lacking = list[tuple[list[Source], float]](), list[str]()
    for (name, own), weight in (mix or {(name, view): 1.0 for name in tasks}).items():
        there = split in tasks[name].splits and own not in tasks[name].machine().missing_views()
        if sources := [*sources_of(tasks[name], split, own)] if there else []:
            found.append((sources, weight))
        else:
            lacking.append(f"{name}-{own}")
    if lacking and (mix or not found):
        what = f"this declaration has no {split} rows of {', '.join(lacking)}"
        allowed = "another view or split, or other tasks"
        raise NoRowsError(what, allowed=allowed, next_step="caef-data plan shows its rows")
    return found


@lru_cache
def _maker(names: tuple[str, ...]) -> Callable[[list[Any]], list[Row]]:
    """Return a function that makes dicts of columns: written out it takes two thirds of the time of ``dict(zip())``."""
    fields = ", ".join(f"{name!r}: {name}" for name in names)
    source = f"lambda columns: [{{{fields}}} for {', '.join(names)}, in zip(*columns)]"
    made: Callable[[list[Any]], list[Row]] = eval(source)  # noqa: S307  (names of our own columns)
    return made
