"""What ``import caef_data`` offers beside the machines: the commands of the command line as functions.

A declaration is the name of one that is shipped (``"paper"``), a path that ends in ``.toml``, a dict as TOML has it, or
keyword settings: ``build(task="sub", min=1, max=100, num=20)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .eval import counter_of, resolved
from .pipelines.build import ConfigResult, choose_engine
from .pipelines.build import build as build_plan
from .pipelines.declaration import declared
from .pipelines.hub_source import dataset_here
from .pipelines.plan import Plan, make_plan
from .pipelines.store import open_folder
from .pipelines.stream import Stream
from .pipelines.verify import verify as verify_folder
from .pipelines.verify_report import Report

if TYPE_CHECKING:
    import duckdb

    from .pipelines.push.dataset import Pushed

Declared = str | Path | Mapping[str, object] | None


def plan(declaration: Declared = None, **settings: object) -> Plan:
    """Return what a build would write: ``configs`` with their classes, rows, bytes and shards.

    Raises:
        UserError: the declaration is refused.
    """
    found = declared(declaration, **settings)
    return make_plan(found, counter=counter_of(found))


def build(
    declaration: Declared = None,
    out: str | Path = "data",
    *,
    workers: int | None = None,
    overwrite: bool = False,
    engine: str = "local",
    **settings: object,
) -> list[ConfigResult]:
    """Build a dataset into a folder, or finish an earlier build of it. Return what became of each config and split.

    Args:
        declaration: what to build.
        out: the folder, a path or an fsspec URL.
        workers: shards made at once; by default as many as there are processors.
        overwrite: build tasks again that the folder holds with other settings.
        engine: ``local`` or ``ray``.
        settings: in place of a declaration.

    Raises:
        UserError: the declaration is refused, the folder is not ours, is being built into, holds other settings, or the
            disk is full.
    """
    with choose_engine(engine, workers) as run:
        return build_plan(plan(declaration, **settings), out, overwrite=overwrite, engine=run)


def stream(
    declaration: Declared = None,
    *,
    split: str = "train",
    view: str = "one_step",
    rows: int | None = None,
    seed: int | None = None,
    **settings: object,
) -> Stream:
    """Return rows without a disk: as dicts, by their number or one after the other.

    Args:
        declaration: what the rows are of.
        split: train, test or stress.
        view: what a row is.
        rows: how many rows an iteration gives, and how many an epoch has (10,000,000 at most, or as many as a build);
            None for no end, and for epochs of about as many rows as a build writes: counted where a task has up to
            20,000 expressions, else from a sample.
        seed: None for that of the declaration; another one gives other rows, of the same classes and split.
        settings: in place of a declaration.

    Raises:
        UserError: the declaration is refused, or has no rows of this split and view.
    """
    return Stream(resolved(declared(declaration, **settings)), split, view, rows, seed)


def verify(folder: str | Path = "data", *, fraction: float = 1.0, workers: int | None = None) -> Report:
    """Check a dataset from scratch: ``ok``, findings, counts.

    Args:
        folder: a path, the URL of a store, or ``hf://datasets/user/name``.
        fraction: the share of rows to compute again, above 0 and up to 1.
        workers: processes; None for one per processor.

    Raises:
        UserError: there is no finished dataset, or the fraction is out of range.
    """
    place = dataset_here(str(folder), lambda text: None, shards=lambda path: True)
    with open_folder(place).on_disk() as path:
        return verify_folder(path, fraction=fraction, workers=workers)


def push(
    folder: str | Path = "data",
    repo: str | None = None,
    *,
    to: str | Path | None = None,
    private: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Push a dataset folder to the Hugging Face Hub, or to a store, checked before and after. Return what changed.

    Args:
        folder: the folder.
        repo: ``user/name``, made if it is missing; if None the one that the folder's manifest names.
        to: in place of the Hub a store (``s3://bucket/prefix``), or a folder.
        private: make the repository private, if it has to be made.
        dry_run: change nothing.

    Raises:
        UserError: the folder is damaged, the repository holds something else, or the Hub refuses.
    """
    from rich.console import Console

    from .pipelines.push import push_anywhere
    from .pipelines.push.dataset import Progress, PushSettings

    wanted = PushSettings(str(folder), repo, None if to is None else str(to), private, dry_run)
    with Progress(Console(quiet=True), "checking") as progress:
        return push_anywhere(wanted, progress)


def evaluate(
    adapters: str | Path | None = None,
    *,
    model: str | Path | None = None,
    data: str | Path = "data",
    out: str | Path = "results",
    **settings: object,
) -> dict[str, object]:
    """Evaluate adapters, or a whole model, on a built dataset.

    Return the row of the run in the table ``runs``, and under ``accuracy`` for each task and mode the problems ``n``,
    how many are ``correct``, the ``accuracy`` and its 95% interval from ``low`` to ``high``.

    Args:
        adapters: a folder with executors/<task>/ and aligners/<task>/, or of one adapter; or ``user/name`` on the Hub.
        model: folder or Hub name of a whole model, asked in place of every adapter.
        data: the dataset's folder, raw files, or ``user/name``.
        out: the folder of the result tables.
        settings: the other options of ``caef-data eval``: ``task``, ``mode``, ``limit``, ``strategy``, ``device`` ...

    Raises:
        UserError: a setting is refused, adapters, model or rows cannot be used, or the disk is full.
    """
    from rich.console import Console

    from .eval.console import accuracies
    from .eval.console import evaluate as evaluate_quietly
    from .eval.settings import eval_settings

    places = {"adapters": adapters, "model": model, "data": data, "out": out}
    given = settings | {name: None if place is None else str(place) for name, place in places.items()}
    given |= {name: str(given[name]).split(",") for name in ("task", "mode") if isinstance(given.get(name), str)}
    chosen = eval_settings(None, given)
    session, _ = evaluate_quietly(chosen, Console(quiet=True), chosen.command)
    classes = session.tables.read_classes()
    accuracy = [] if classes is None else accuracies(classes)
    return {"run_id": session.tables.run_id, **(session.tables.read_run() or {}), "accuracy": accuracy}


def results(folder: str | Path = "results") -> duckdb.DuckDBPyConnection:
    """Return a connection to DuckDB that holds the result tables as views; it can read nothing else.

    Raises:
        UserError: there are no results.
    """
    from .eval.query import Database

    return Database(Path(folder)).connection
