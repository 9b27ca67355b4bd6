"""What `caef-data eval` prints: what is left out, progress, a table of accuracies, the next commands."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from typing import Any

import pyarrow as pa
from rich.console import Console

from ..errors import UserError, printable_path, shell_quoted, telling_of_full_disk
from ..pipelines.terminal import Meter, new_table, open_console, print_table
from .backends.ranks import Rank, SharedBackend, rank_of_process, serve
from .calls import BASE
from .dataset_rows import choose_expressions, choosing_configs
from .results import ResultStore
from .score import Progress
from .session import Session, name_again, plan, prepare, run
from .settings import EvalSettings
from .tables import wilson

DRAW_EVERY = 0.1


def evaluate_with_progress(settings: EvalSettings) -> None:
    """Evaluate, with progress on stderr and a table of accuracies on stdout."""
    log = open_console(stderr=True)
    try:
        session, note = evaluate(settings, log, command_line())
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") != "0":
            raise
        log.print(f"stopped: what was answered is kept; go on with: {command_line()}")
        sys.exit(130)
    if note is not None:
        print_accuracy(session, note)


def evaluate(
    settings: EvalSettings, log: Console, command: str, *, rank: Rank | None = None, net: Any = None
) -> tuple[Session, str | None]:
    """Evaluate; return the finished session and what there is to say of it, None where another process says it.

    ``rank``: this process' part, where that is known; ``net``: the base model, where it is in memory already.

    Raises:
        UserError: as ``session.prepare``, or the disk is full.
    """
    if os.environ.get("RANK", "0") != "0":  # of several processes, all of which prepare, the first one speaks
        log = Console(quiet=True)
    session = prepare(settings, log.print)
    rank = rank_of_process() if rank is None else rank
    if not rank.rank:
        for note in session.notes:
            log.print(note)
    resuming = "make room and run the same command again: what was answered is kept"
    with telling_of_full_disk(printable_path(settings.out), resuming):
        return session, _evaluate(session, rank, log, command, net)


def _evaluate(session: Session, rank: Rank, log: Console, command: str, net: Any) -> str | None:
    """Evaluate while no other command does; return what there is to say of it."""
    from .backends.choose import make_backend, samples

    settings, checkpoint, tables, several = session.settings, session.checkpoint, session.tables, rank.world_size > 1
    if rank.rank:
        if (asked := rank.hand_out()) is not None:
            with closing(make_backend(settings, checkpoint, asked)) as backend:
                serve(backend, rank)
        return None
    with closing(ResultStore(session.file)) as store:
        if tables.read_finished() is not None:  # perhaps by one that was killed right after
            name_again(session)
            store.remove()
            if several:
                rank.hand_out([None] * rank.world_size)
            return "it was evaluated before; nothing is asked again"
        if (row := tables.read_run()) is not None and row["status"] == "finished":
            log.print(f"tables of run {tables.run_id} are damaged or missing: it is evaluated again")
        plan(session, store)
        for line in _plan_lines(session, store):
            log.print(line)
        if several:
            rank.hand_out([dict.fromkeys(store.adapters, ())] * rank.world_size)
        backend = make_backend(settings, checkpoint, samples(store), log.print, net)
        backend = SharedBackend(backend, rank) if several else backend
        with closing(backend), _progress(store, log) as progress:
            run(session, store, backend, progress, command)
            if several:
                rank.hand_out([None] * rank.world_size)
    return ""


def command_line() -> str:
    """Return the command that was typed."""
    return shlex.join(["caef-data", *sys.argv[1:]])


def _plan_lines(session: Session, store: ResultStore) -> Iterator[str]:
    for mode in dict.fromkeys(mode for _, mode in session.pairs):
        yield f"{mode}: {', '.join(task for task, other in session.pairs if other == mode)}"
    limit, folder = session.settings.limit, session.folder
    for task, split in product(sorted({task for task, _ in session.pairs}), session.settings.splits):
        if limit is not None and choosing_configs(folder, task, split):
            yield from choose_expressions(folder, task, split, limit).notes
    count = len(store.adapters)
    asked = "the base model" if store.adapters == [BASE] else f"{count} adapter{'' if count == 1 else 's'}"
    asked = "the model" if session.settings.alone else asked
    yield (
        f"{store.num_problems:,} problems, {store.num_requests:,} calls to {asked}"
        f" ({store.num_repeated:,} repeated ones are asked once); run {session.tables.run_id}"
    )


@contextmanager
def _progress(store: ResultStore, log: Console) -> Iterator[Progress]:
    """Show calls/s, tokens/s, the time left and the accuracy of the calls so far."""
    following = 0.0  # when to draw next
    before, _, _ = store.counts()
    total = store.num_requests
    with Meter(log, "evaluating", total) as meter:

        def progress(store: ResultStore) -> None:
            nonlocal following
            now = time.perf_counter()
            if now < following:
                return
            answered, correct, tokens = store.counts()
            speed = (answered - before) / meter.seconds
            each = max(answered, 1)
            rate = f"{speed:,.1f} calls/s, {tokens / each * speed:,.0f} tokens/s, {correct / each:.1%} right"
            left = (total - answered) / max(speed, 1e-6)
            line = f"{answered:,} of {total:,} calls, {rate}, about {left:,.0f} s left"
            meter.update(line, completed=answered, rate=rate)
            drawn = time.perf_counter()
            following = drawn + max(DRAW_EVERY, 50 * (drawn - now))  # counting ten million calls takes a while

        yield progress


def print_accuracy(session: Session, note: str) -> None:
    """Print the accuracies of a finished run, for people with what to do with its tables."""
    settings, run_id = session.settings, session.tables.run_id
    accuracy, row = session.tables.read_classes(), session.tables.read_run()
    if accuracy is None or row is None:  # just now
        raise UserError(
            "the tables of this run are gone, or damaged",
            where=printable_path(str(session.tables.results)),
            next_step=f"remove the folders run_id={run_id} there, and evaluate again",
        )
    counts = accuracies(accuracy)
    if settings.json:
        said = {"run_id": run_id, **{name: row[name] for name in ("name", "calls", "seconds")}}
        print(json.dumps({**said, "accuracy": counts, "notes": notes_of_borders(row)}))
        return
    rollout = settings.strategy == "rollout"
    stripped = ["stripped"] * any(each["correct_stripped"] != each["correct"] for each in counts)
    table = new_table(first=("task", "mode"))
    for name in ("problems", "right", *stripped, "accuracy", "95% interval", *["final answer right"] * rollout):
        table.add_column(name, justify="right")
    for each in counts:
        known, final = each["n"] > 0, each["final_correct"]
        cells = [f"{each[name]:,}" for name in ("n", "correct", *["correct_stripped"] * len(stripped))]
        cells += [f"{each['accuracy']:.2%}" if known else "-"]
        cells += [f"{each['low']:.1%} - {each['high']:.1%}" if known else "-"]
        table.add_row(each["task"], each["mode"], *cells, *["-" if final is None else f"{final:,}"] * rollout)
    console = open_console()
    print_table(console, table)
    name = f" ({printable_path(row['name'])})" if row["name"] else ""
    speed = f"{row['calls']:,} calls in {row['seconds']:,.1f} s, {row['calls_per_second']:,.1f} calls/s"
    results = "" if settings.out == "results" else f" --results {shell_quoted(settings.out)}"
    query = (
        "SELECT task, mode, len_a, len_b, n, accuracy FROM class_accuracy"
        f" WHERE run_id = '{run_id}' ORDER BY accuracy LIMIT 10"
    )
    for line in (
        f"run {run_id}{name}: {speed}{'; ' + note if note else ''}",
        *notes_of_borders(row),
        f'ask it:  caef-data query{results} "{query}"',
        f"see it:  caef-data report{results}",
    ):
        console.print(line)


def accuracies(accuracy: pa.Table) -> list[dict[str, Any]]:
    """Return each task and mode with its counts, accuracy and 95% interval."""
    keys, names = ["task", "mode"], ["n", "correct", "correct_stripped", "final_correct"]
    sums = accuracy.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in names])
    sums = sums.select([*keys, *(f"{name}_sum" for name in names)]).rename_columns([*keys, *names])
    counts: list[dict[str, Any]] = sums.sort_by([(key, "ascending") for key in keys]).to_pylist()
    for row in counts:
        low, high = wilson(row["correct"], row["n"]) if row["n"] else (None, None)
        row |= {"accuracy": row["correct"] / row["n"] if row["n"] else None, "low": low, "high": high}
    return counts


def notes_of_borders(row: dict[str, Any]) -> list[str]:
    """Return lines that say what makes verdicts of a finished run doubtful, or answers unlike what was trained."""
    notes, calls = [], f"of {row['calls']:,} calls"
    if row["merged_borders"] and not row["joined"]:
        notes.append(
            f"{row['merged_borders']:,} {calls}: the tokenizer merges the end of the prompt with the answer;"
            " adapters trained on joined text need --joined"
        )
    if row["near_ties"] and row["near_tie_rule"] == "count":
        notes.append(
            f"{row['near_ties']:,} {calls} have a near tie, which the shape of a batch may have decided:"
            " --near-ties alone decodes these alone"
        )
    return notes
