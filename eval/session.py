"""One evaluation from settings to tables: everything checked first, resumed where it stopped, one at a time a run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .. import __version__
from ..errors import UserError
from ..pipelines.folder import Folder
from ..pipelines.hub_source import Say
from .aggregate import write_tables
from .calls import Backend
from .jobs import TaskModes, check_instructions, check_rows, held_splits, task_modes
from .limit import RULE, choose_expressions, choosing_configs
from .problems import instruction_of, needed, read_problems
from .results import ResultStore, file_name
from .rollout import roll_out
from .score import Progress, Rank, decode_first_wrong, evaluate
from .settings import EvalSettings
from .sources import checkpoint_folder, problem_folder
from .tables import RunTables, ahead, read_runs, results_folder, run_id

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

VERSION = 2  # of the rules of judging; changes the id of every run
IDENTIFYING = ("alone", "strategy", "backend", "endpoint", "template", "joined", "near_ties")  # settings, beside others
WORK = ".work"  # under the results folder: what unfinished runs know so far
OLD = ("agenda", "kept")  # where earlier versions put that
EVERY = 10.0  # seconds between notes of the time spent


@dataclass(frozen=True)
class Session:
    """An evaluation whose every input has been checked.

    Args:
        settings: what was asked for.
        folder: the dataset.
        data: its name in the tables.
        checkpoint: base model and adapters; None for the oracle.
        pairs: tasks and modes.
        notes: lines that say what is left out, and why.
        identity: what the results depend on.
        tables: where results go.
    """

    settings: EvalSettings
    folder: Folder
    data: str
    checkpoint: Checkpoint | None
    pairs: TaskModes
    notes: list[str]
    identity: dict[str, Any]
    tables: RunTables

    @property
    def work(self) -> Path:
        """The folder of what an unfinished run knows so far."""
        return self.tables.results / WORK / self.tables.run_id


def prepare(settings: EvalSettings, say: Say = lambda line: None) -> Session:
    """Check settings, dataset, adapters and device; no weight is loaded. What lies on the Hub is downloaded.

    Args:
        settings: what was asked for.
        say: is told, a line each, what the user should know of adapters and data.

    Raises:
        UserError: something is missing, damaged or does not fit; the message says what to do.
    """
    from .checkpoint import Adapter, find_adapters

    folder, data = problem_folder(settings, say)
    checkpoint, adapters = None, dict[str, Adapter]()
    if settings.backend != "oracle":
        named, weights = settings.adapters, settings.backend != "openai"
        root = None if named is None else checkpoint_folder(named, say, base_named=settings.base_model is not None)
        checkpoint = find_adapters(
            root, settings.base, weights=weights, task=settings.task, mode=settings.mode, say=say
        )
        adapters = dict(checkpoint.adapters)
    any_adapter = checkpoint is None or settings.alone
    pairs, notes = task_modes(settings, folder.manifest(), None if any_adapter else adapters, needed)
    asked = set() if settings.baseline else {name for pair in pairs for name in needed(*pair)}
    used = set() if any_adapter else asked
    identity = {
        "version": VERSION,
        "rows": check_rows(folder, pairs, settings.splits, settings.limit is not None),
        "jobs": [list(pair) for pair in pairs],
        "base": None if checkpoint is None else checkpoint.base_sha256 or str(checkpoint.base),
        "adapters": {name: adapters[name].sha256 for name in sorted(used)},
        **{name: getattr(settings, name) for name in IDENTIFYING},
        **(
            {"instructions": {name: instruction_of(name) for name in sorted(asked)}}
            if settings.stage == "first"
            else {}
        ),
        "limit": settings.limit and [settings.limit, RULE],
        **(_numbers(settings) if settings.backend == "transformers" else {}),
    }
    tables = RunTables(results_folder(settings.out), run_id(json.dumps(identity, sort_keys=True)))
    return Session(settings, folder, data, checkpoint, pairs, notes, identity, tables)


def _numbers(settings: EvalSettings) -> dict[str, str]:
    """Return what kind of device computes, in which number format: verdicts may depend on it."""
    try:
        from .backends.device import find_device, find_dtype
    except ImportError as error:
        raise UserError("evaluating needs torch", next_step="pip install 'caef-data[eval]'") from error
    device = find_device(settings.device)
    return {"device": device.type, "dtype": str(find_dtype(settings.dtype, device)).removeprefix("torch.")}


@contextmanager
def opened(session: Session, rank: Rank) -> Iterator[ResultStore | None]:
    """Hold the run's file: another evaluation of the same run is refused, others go on beside it.

    The first of several processes plans in it; another one waits for that, and takes a copy. It finds None where the
    first one found that all is done.

    Raises:
        UserError: the run is being evaluated.
    """
    first, own = (session.work / file_name(number) for number in (0, rank.rank))
    if rank.rank:
        rank.wait()
        if not first.exists():
            yield None
            return
        shutil.copyfile(first, own)
        rank.wait()
    store = ResultStore(own)
    try:
        yield store
    finally:
        store.close()


def plan(session: Session, store: ResultStore, rank: Rank) -> None:
    """Find out what there is to do, unless that is known; take what several processes knew when they were stopped."""
    if rank.rank:
        return
    settings, folder = session.settings, session.folder
    if not store.planned:
        if settings.stage == "first":
            check_instructions(folder, session.pairs, settings.splits)
        store.plan(
            problems
            for pair in session.pairs
            for split in held_splits(folder, *pair, settings.splits)
            for problems in ahead(read_problems(folder, *pair, split, settings.limit))
        )
        check_unchanged(session, store)
    for path in sorted(session.work.glob(file_name(1).replace("1", "*"))):
        with suppress(UserError, ValueError, IndexError):  # damaged: what only this process knew is asked again
            store.read(path, held=False)
            store.take()
        path.unlink()
    rank.wait()  # the others copy what is known
    rank.wait()


def check_unchanged(session: Session, store: ResultStore) -> None:
    """Refuse rows that are no longer those that the run is named after; nothing stays of its problems then."""
    settings = session.settings
    try:
        check_rows(session.folder, session.pairs, settings.splits, settings.limit is not None)
    except UserError:
        store.remove()
        raise


def limit_notes(session: Session) -> list[str]:
    """Return a line for each task that has fewer expressions than the limit asks for, or other ones in a mode."""
    limit, tasks = session.settings.limit, sorted({task for task, _ in session.pairs})
    if limit is None:
        return []
    pairs = ((task, split) for task in tasks for split in session.settings.splits)
    held = ((task, split) for task, split in pairs if choosing_configs(session.folder, task, split))
    notes = (choose_expressions(session.folder, task, split, limit).note for task, split in held)
    return [note for note in notes if note]


def name_again(session: Session) -> None:
    """Give a finished run the name that was asked for, if one was; the last name given stands."""
    row, name = session.tables.read_run(), session.settings.name
    if row is not None and name is not None and row.get("name") != name:
        session.tables.write_run({**row, "name": name})


def stopped_before(session: Session) -> list[str]:
    """Return the ids of stopped runs of other rules or another version's notes, which cannot be resumed."""
    results = session.tables.results
    stopped = [row for row in read_runs(results) if row["status"] != "finished"]
    return [
        row["run_id"]
        for row in stopped
        if row.get("rules") != VERSION or any((results / WORK / row["run_id"] / name).exists() for name in OLD)
    ]


def run(
    session: Session, store: ResultStore, backend: Backend, rank: Rank, progress: Progress, command: str
) -> pa.Table | None:
    """Evaluate what is not known yet and write the tables; return class_accuracy (None in all but the first process).

    ``progress`` is called after every batch; ``command`` is the command that makes the run again, for the table runs.
    """
    tables, began = session.tables, time.monotonic()
    earlier, before, noted = tables.read_run() or {}, 0.0, began
    row = {**_provenance(session, store, backend, command), "started": datetime.now(UTC)}
    row["name"] = session.settings.name or earlier.get("name")
    if store.resumed and earlier.get("status") == "unfinished":
        row["started"], before = earlier["started"], earlier["seconds"] or 0.0
    elif rank.rank == 0:  # perhaps of tables that were damaged
        tables.remove()

    def note() -> None:
        """Note the time spent, for who goes on after a kill."""
        if rank.rank == 0:
            tables.write_run({**row, "status": "unfinished", "seconds": before + time.monotonic() - began})

    def noting(store: ResultStore) -> None:
        nonlocal noted
        progress(store)
        if time.monotonic() - noted >= EVERY:
            noted = time.monotonic()
            note()

    if rank.rank == 0:
        tables.sweep()
    note()
    try:
        strategy = session.settings.strategy
        if strategy == "rollout":
            roll_out(store, backend, rank=rank, progress=noting)
            # Problems that ask once; and what comes behind an answer that white space alone makes wrong.
            decode_first_wrong(store, backend, rank, noting)
        else:
            evaluate(store, backend, verify=strategy == "verify", rank=rank, progress=noting)
            rank.meet(store)
    except BaseException:
        store.save()
        store.commit()
        note()
        raise
    if rank.rank:
        return None
    check_unchanged(session, store)
    calls, _, tokens = store.counts()
    near_ties, merged = (int((store.known[name] == 1).sum()) for name in ("near_tie", "merges"))
    accuracy = write_tables(tables, store, session.folder)
    seconds = before + time.monotonic() - began
    row |= {"calls": calls, "tokens": tokens or None, "near_ties": near_ties, "merged_borders": merged}
    row |= {"seconds": seconds, "calls_per_second": calls / seconds}
    row |= {"tokens_per_second": tokens / seconds if tokens else None}
    tables.write_run({**row, "finished": datetime.now(UTC), "status": "finished"})
    store.remove()
    return accuracy


def _provenance(session: Session, store: ResultStore, backend: Backend, command: str) -> dict[str, Any]:
    settings, checkpoint = session.settings, session.checkpoint
    manifest, tasks = session.folder.manifest(), sorted({task for task, _ in session.pairs})
    return {
        "command": command,
        "base_model": None if checkpoint is None else str(checkpoint.base),
        "base_sha256": None if checkpoint is None else checkpoint.base_sha256,
        "adapters": session.identity["adapters"],
        "data": session.data,
        "data_identity": manifest["identity"],
        "tasks": tasks,
        "modes": sorted({mode for _, mode in session.pairs}),
        "splits": list(settings.splits),
        "dialect": ", ".join(sorted({manifest["tasks"][task]["settings"]["dialect"] for task in tasks})),
        "max_problems": settings.limit,
        "rules": VERSION,
        "near_tie_rule": settings.near_ties,
        **{
            name: getattr(settings, name) for name in ("strategy", "template", "stage", "backend", "baseline", "joined")
        },
        "caef_data": __version__,
        "problems": store.num_problems,
        "calls": store.num_requests,
        "calls_repeated": store.num_repeated,
        **backend.provenance(),
    }
