"""One evaluation from settings to tables: everything checked first, resumed where it stopped, one at a time a run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import UserError
from ..pipelines.folder import shown
from ..pipelines.hub_source import Say
from ..pipelines.local_folder import LocalFolder
from .agenda import Agenda, write_agenda
from .calls import Backend
from .evaluate import Share, decode_failures, evaluate
from .fold import write_tables
from .jobs import Jobs, check_rows, choose
from .kept import UNKNOWN, Kept
from .limit import RULE, choose_expressions
from .rollout import roll_out
from .runs import read_problems
from .settings import EvalSettings
from .sources import checkpoint_folder, problem_folder
from .tables import RunTables, read_runs, results_folder, run_id

if TYPE_CHECKING:
    from .adapters import Checkpoint

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
        jobs: tasks and modes.
        identity: what the results depend on.
        tables: where results go.
    """

    settings: EvalSettings
    folder: LocalFolder
    data: str
    checkpoint: Checkpoint | None
    jobs: Jobs
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
    from .adapters import find_adapters, needed

    folder, data = problem_folder(settings, say)
    manifest = folder.manifest()
    checkpoint = None
    if settings.backend != "oracle":
        named = settings.adapters
        root = None if named is None else checkpoint_folder(named, say, base_named=settings.base_model is not None)
        checkpoint = find_adapters(
            root,
            settings.base,
            weights=settings.backend != "openai",
            task=settings.task,
            mode=settings.mode,
            say=say,
        )
    available = None if checkpoint is None or settings.alone else checkpoint.adapters
    jobs = choose(settings, manifest, available, needed)
    none = settings.baseline or settings.alone
    used = sorted({name for task, mode in jobs.pairs for name in needed(task, mode)} if not none else [])
    identity = {
        "version": VERSION,
        "rows": check_rows(folder, jobs.pairs, settings.split, settings.limit is not None),
        "jobs": [list(pair) for pair in jobs.pairs],
        "base": None if checkpoint is None else checkpoint.base_sha256 or str(checkpoint.base),
        "adapters": {} if checkpoint is None else {name: checkpoint.adapters[name].sha256 for name in used},
        **{name: getattr(settings, name) for name in IDENTIFYING},
        "limit": settings.limit and [settings.limit, RULE],
        **(_numbers(settings) if settings.backend == "transformers" else {}),
    }
    tables = RunTables(results_folder(settings.out), run_id(json.dumps(identity, sort_keys=True)))
    return Session(settings, folder, data, checkpoint, jobs, identity, tables)


def _numbers(settings: EvalSettings) -> dict[str, str]:
    """Return what kind of device computes, in which number format: verdicts may depend on it.

    Raises:
        UserError: torch is not installed, or the device is not there.
    """
    try:
        from .backends.device import find_device, find_dtype
    except ImportError as error:
        raise UserError("evaluating needs torch", next_step="pip install 'caef-data[eval]'") from error
    device = find_device(settings.device)
    return {"device": device.type, "dtype": str(find_dtype(settings.dtype, device)).removeprefix("torch.")}


@contextmanager
def one_at_a_time(session: Session) -> Iterator[None]:
    """Hold the run: another evaluation of the same run is refused, others go on beside it.

    Raises:
        UserError: it is being evaluated.
    """
    busy = UserError(
        f"run {session.tables.run_id} is being evaluated by another process",
        where=shown(session.settings.out),
        next_step="wait for it",
    )
    session.work.mkdir(parents=True, exist_ok=True)
    handle = os.open(session.work, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(handle), os.stat(session.work))
        except (BlockingIOError, FileNotFoundError):
            raise busy from None
        if not held:  # it has just been finished, and its folder removed
            raise busy
        yield
    finally:
        os.close(handle)


def agenda_of(session: Session, share: Share) -> Agenda:
    """Return the problems and calls, written by the first process.

    Raises:
        FileNotFoundError: in another process: the first one found the run finished.
    """
    path = session.work / "agenda"
    if share.rank == 0:
        settings, folder = session.settings, session.folder
        known = path.exists()
        write_agenda(
            path,
            (
                problem
                for task, mode in session.jobs.pairs
                for problem in read_problems(folder, task, mode, settings.split, settings.limit)
            ),
        )
        if not known:
            check_unchanged(session)
    share.wait()
    return Agenda(path)


def check_unchanged(session: Session) -> None:
    """Look whether the rows are still those that the run is named after.

    Raises:
        UserError: they are not, or are gone; nothing stays of problems that may be made of others.
    """
    settings = session.settings
    try:
        check_rows(session.folder, session.jobs.pairs, settings.split, settings.limit is not None)
    except UserError:
        shutil.rmtree(session.work / "agenda", ignore_errors=True)
        raise


def limit_notes(session: Session) -> list[str]:
    """Return a line for each task that has fewer expressions than the limit asks for, or other ones in a mode."""
    limit, tasks = session.settings.limit, sorted({task for task, _ in session.jobs.pairs})
    if limit is None:
        return []
    chosen = (choose_expressions(session.folder, task, session.settings.split, limit) for task in tasks)
    return [one.note for one in chosen if one.note]


def name_again(session: Session) -> None:
    """Give a finished run the name that was asked for, if one was; the last name given stands."""
    row, name = session.tables.read_run(), session.settings.name
    if row is not None and name is not None and row.get("name") != name:
        session.tables.write_run({**row, "name": name})


def stopped_before(session: Session) -> list[str]:
    """Return the ids of stopped runs of other rules, which cannot be resumed: the same command is another run."""
    rows = read_runs(session.tables.results)
    return [row["run_id"] for row in rows if row["status"] != "finished" and row.get("rules") != VERSION]


def agree_that_all_is_done(session: Session, share: Share) -> None:
    """Leave the other processes no agenda, which tells them that the run is finished; remove what it needs no more."""
    shutil.rmtree(session.work, ignore_errors=True)
    share.wait()


def run(
    session: Session, agenda: Agenda, backend: Backend, share: Share, progress: Callable[[Kept], None], command: str
) -> Any:
    """Evaluate what is not known yet and write the tables; return class_accuracy (None in all but the first process).

    Args:
        session: what to evaluate.
        agenda: its problems and calls.
        backend: the model.
        share: this process' part.
        progress: called after every result.
        command: the command that makes the run again, for the table runs.
    """
    began, started = time.monotonic(), datetime.now(UTC)
    earlier = session.tables.read_run() or {}
    if earlier.get("status") == "finished":  # its tables were damaged: this is another evaluation
        earlier = {}
        if share.rank == 0:
            session.tables.remove()
    row = {**_provenance(session, agenda, backend, command), "started": earlier.get("started") or started}
    row["name"] = session.settings.name or earlier.get("name")
    before = earlier.get("seconds") or 0.0
    if share.rank == 0:
        session.tables.sweep()
        session.tables.write_run({**row, "status": "unfinished", "seconds": before})
    kept = Kept(session.work / "kept", agenda.num_calls, share.rank)
    strategy, finals, written = session.settings.strategy, None, kept.written

    def noting(kept: Kept) -> None:
        """Show progress; note the time spent whenever results are written, for who goes on after a kill."""
        nonlocal written
        progress(kept)
        if kept.written != written and not share.rank:
            written = kept.written
            session.tables.write_run({**row, "status": "unfinished", "seconds": before + time.monotonic() - began})

    try:
        if strategy == "rollout":
            finals = roll_out(agenda, kept, backend, known=agenda.adapters, share=share, progress=noting).right
            # Problems that ask once; and what comes behind an answer that white space alone makes wrong.
            decode_failures(agenda, kept, backend, share, noting)
        else:
            evaluate(agenda, kept, backend, verify=strategy == "verify", share=share, progress=noting)
    except BaseException:
        kept.flush()
        if share.rank == 0:
            seconds = before + time.monotonic() - began
            session.tables.write_run({**row, "status": "unfinished", "seconds": seconds})
        raise
    kept.flush()
    share.wait()
    if share.rank:
        return None
    kept.load()
    check_unchanged(session)
    accuracy = write_tables(session.tables, agenda, kept, finals, session.folder)
    seconds = before + time.monotonic() - began
    calls, tokens = int((kept.right != UNKNOWN).sum()), int(kept.tokens.sum()) or None
    row |= {"calls": calls, "tokens": tokens, "seconds": seconds, "calls_per_second": calls / seconds}
    row |= {"near_ties": int(kept.near_tie.sum()), "merged_borders": int(kept.merges.sum())}
    row |= {"tokens_per_second": tokens and tokens / seconds, "finished": datetime.now(UTC), "status": "finished"}
    session.tables.write_run(row)
    shutil.rmtree(session.work)
    return accuracy


def _provenance(session: Session, agenda: Agenda, backend: Backend, command: str) -> dict[str, Any]:
    settings, checkpoint = session.settings, session.checkpoint
    manifest = session.folder.manifest()
    dialects = sorted({manifest["tasks"][task]["settings"]["dialect"] for task, _ in session.jobs.pairs})
    return {
        "command": command,
        "base_model": None if checkpoint is None else str(checkpoint.base),
        "base_sha256": None if checkpoint is None else checkpoint.base_sha256,
        "adapters": session.identity["adapters"],
        "data": session.data,
        "data_identity": manifest["identity"],
        "tasks": sorted({task for task, _ in session.jobs.pairs}),
        "modes": sorted({mode for _, mode in session.jobs.pairs}),
        "splits": [settings.split],
        "strategy": settings.strategy,
        "template": settings.template,
        "backend": settings.backend,
        "baseline": settings.baseline,
        "dialect": ", ".join(dialects),
        "max_problems": settings.limit,
        "rules": VERSION,
        "joined": settings.joined,
        "near_tie_rule": settings.near_ties,
        "caef_data": __version__,
        "problems": agenda.num_problems,
        "calls": agenda.num_calls,
        "calls_repeated": agenda.num_repeated,
        **backend.provenance(),
    }
