"""One evaluation from settings to tables: everything checked first, resumed where it stopped, one at a time a run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa

from .. import __version__
from ..errors import UserError, installed
from ..pipelines.folder import Folder
from ..pipelines.hub_source import Say
from .aggregate import write_tables
from .calls import Backend
from .checkpoint import Checkpoint, find_adapters
from .dataset_rows import RULE
from .inputs import TaskModes, check_instructions, check_rows, checkpoint_folder, problem_folder, task_modes
from .problems import instruction_of, needed, read_problems
from .results import ResultStore
from .rollout import roll_out
from .score import Progress, decode_first_wrong, evaluate
from .settings import EvalSettings
from .tables import RunTables, ahead, results_folder, run_id

VERSION = 2  # of the rules of judging; changes the id of every run
IDENTIFYING = ("alone", "strategy", "backend", "endpoint", "template", "joined", "near_ties")  # settings, beside others
WORK = ".work"  # under the results folder: what unfinished runs know so far


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
    def file(self) -> Path:
        """The file of what an unfinished run knows so far."""
        return self.tables.results / WORK / self.tables.run_id / "results.sqlite"


def prepare(settings: EvalSettings, say: Say = lambda line: None) -> Session:
    """Check settings, dataset, adapters and device; no weight is loaded. What lies on the Hub is downloaded.

    Args:
        settings: what was asked for.
        say: is told, a line each, what the user should know of adapters and data.

    Raises:
        UserError: something is missing, damaged or does not fit; the message says what to do.
    """
    folder, data = problem_folder(settings, say)
    checkpoint = None
    if settings.backend != "oracle":
        named, weights = settings.adapters, settings.backend != "openai"
        root = None if named is None else checkpoint_folder(named, say, base_named=settings.base_model is not None)
        option = "--base-model" if settings.model is None else "--model"
        of_base: dict[str, Any] = {"option": option, "weights": weights}
        checkpoint = find_adapters(root, settings.base, **of_base, task=settings.task, mode=settings.mode, say=say)
    adapters = None if checkpoint is None or settings.alone else checkpoint.adapters
    pairs, notes = task_modes(settings, folder.manifest(), adapters)
    asked = sorted({name for pair in pairs for name in needed(*pair)})
    identity: dict[str, Any] = {
        "version": VERSION,
        "rows": check_rows(folder, pairs, settings.splits, settings.limit is not None),
        "jobs": [list(pair) for pair in pairs],
        "base": None if checkpoint is None else checkpoint.base_sha256 or str(checkpoint.base),
        "adapters": {} if adapters is None else {name: adapters[name].hashed.sha256 for name in asked},
        "limit": settings.limit and [settings.limit, RULE],
        **{name: getattr(settings, name) for name in IDENTIFYING},
    }
    if settings.stage == "first":
        identity["instructions"] = {name: instruction_of(name) for name in asked}
    if settings.backend == "transformers":
        identity |= _numbers(settings)
    tables = RunTables(results_folder(settings.out), run_id(json.dumps(identity, sort_keys=True)))
    return Session(settings, folder, data, checkpoint, pairs, notes, identity, tables)


def _numbers(settings: EvalSettings) -> dict[str, str]:
    """Return what kind of device computes, in which number format: verdicts may depend on it."""
    with installed("evaluating", "eval"):
        from .backends.device import find_device, find_dtype
    device = find_device(settings.device)
    return {"device": device.type, "dtype": str(find_dtype(settings.dtype, device)).removeprefix("torch.")}


def plan(session: Session, store: ResultStore) -> None:
    """Find out what there is to do, unless that is known."""
    settings, folder = session.settings, session.folder
    if store.planned:
        return
    if settings.stage == "first":
        check_instructions(folder, session.pairs, settings.splits)
    store.plan(
        problems
        for pair, split in product(session.pairs, settings.splits)
        for problems in ahead(read_problems(folder, *pair, split, settings.limit))
    )
    check_unchanged(session, store)


def check_unchanged(session: Session, store: ResultStore) -> None:
    """Refuse rows that are no longer those that the run is named after; nothing stays of its problems then."""
    settings = session.settings
    try:
        check_rows(session.folder, session.pairs, settings.splits, settings.limit is not None)
    except UserError:
        store.remove()
        raise


def name_again(session: Session) -> None:
    """Give a finished run the name that was asked for, if one was; the last name given stands."""
    row, name = session.tables.read_run(), session.settings.name
    if row is not None and name is not None and row.get("name") != name:
        session.tables.write_run({**row, "name": name})


def run(session: Session, store: ResultStore, backend: Backend, progress: Progress, command: str) -> pa.Table:
    """Evaluate what is not known yet and write the tables; return class_accuracy.

    ``progress`` is called after every batch; ``command`` is the command that makes the run again, for the table runs.
    """
    tables, began = session.tables, time.monotonic()
    earlier, before = tables.read_run() or {}, 0.0
    row = {**_provenance(session, store, backend, command), "started": datetime.now(UTC), "status": "unfinished"}
    row["name"] = session.settings.name or earlier.get("name")
    if store.resumed and earlier.get("status") == "unfinished":
        row["started"], before = earlier["started"], earlier["seconds"] or 0.0
    else:  # perhaps of tables that were damaged
        tables.remove()

    def note() -> None:
        """Note the time spent, for who goes on."""
        tables.write_run({**row, "seconds": before + time.monotonic() - began})

    tables.sweep()
    note()
    try:
        strategy = session.settings.strategy
        if strategy == "rollout":
            roll_out(store, backend, progress)
            # Problems that ask once; and what comes behind an answer that white space alone makes wrong.
            decode_first_wrong(store, backend, progress)
        else:
            evaluate(store, backend, verify=strategy == "verify", progress=progress)
    except BaseException:
        store.save()
        store.commit()
        note()
        raise
    store.commit()
    check_unchanged(session, store)
    accuracy = write_tables(tables, store, session.folder)
    calls, _, tokens = store.counts()
    seconds = before + time.monotonic() - began
    row |= {"calls": calls, "tokens": tokens or None, "seconds": seconds, "calls_per_second": calls / seconds}
    row |= {"tokens_per_second": tokens / seconds if tokens else None}
    row |= {"near_ties": int(store.known["near_tie"].sum()), "merged_borders": int(store.known["merges"].sum())}
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
