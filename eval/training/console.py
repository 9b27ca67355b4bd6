"""What `caef-data train` does and prints: the plan, each adapter in turn, how to go on."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from ... import atomic
from ...errors import UserError, installed, printable_path, telling_of_full_disk
from ...pipelines.terminal import Meter, new_table, open_console, print_table, size_text
from ..backends.ranks import Rank, rank_of_process
from .plan import Plan, cost, make_plan
from .rows import WORK, Job
from .settings import train_settings

PLAN = "training.json"  # beside an adapter's states: what is trained
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo's words, when a process is gone


def train_with_progress(declaration: str, out: str | None, *, dry_run: bool) -> None:
    """Train what a declaration's table ``[train]`` asks for, or go on with it."""
    with installed("training", "train"):
        from accelerate import PartialState
        from accelerate.utils import gather_object
        from torch import cuda

        from . import loop
    team = rank_of_process("train")
    with _ending(team):
        log = Console(quiet=True) if team.rank else open_console(stderr=True)
        state = PartialState(cpu=not cuda.is_available())  # one for the whole process: who does not say so, is alone
        with state.main_process_first():  # what it is refused, nobody else tells
            plan = make_plan(*train_settings(declaration, out), log.print, processes=team.world_size)
        if len({*gather_object([str([job.identity for job in plan.jobs])])}) > 1:
            raise UserError("the processes have other rows, or another base model", allowed="the same files for all")
        if dry_run:
            if not team.rank:
                _print_plan(plan, team.world_size)
            return
        resuming = "make room and run the same command again: what was learnt up to the last state is kept"
        with telling_of_full_disk(printable_path(plan.settings.out), resuming), ExitStack() as stack:
            names = loop.first(lambda: stack.enter_context(_held(plan)))
            left = [job for job in plan.jobs if job.name in names]
            try:
                for number, job in enumerate(left, 1):
                    _train(plan, job, log, f"{job.name} ({number} of {len(left)})")
            except KeyboardInterrupt:
                words = ["caef-data", "train", declaration, *(["--out", out] if out else [])]
                command = shlex.join(words) if team.world_size == 1 else "the same command"
                log.print(f"stopped: what was learnt is kept; go on with: {command}")
                sys.exit(130)
        if not team.rank:
            _print_end(plan, trained=bool(left))


@contextmanager
def _ending(team: Rank) -> Iterator[None]:
    """Let the first process alone tell of one that is gone, and the others end in silence."""
    try:
        yield
    except RuntimeError as error:
        if team.world_size == 1 or not any(words in str(error) for words in LOST):
            raise
        if team.rank:
            sys.exit(1)
        raise UserError(
            "another process of this training ended",
            where=f"one of {team.world_size} that torchrun or accelerate started",
            next_step="look for what it said; the same command goes on from the last state",
        ) from error


@contextmanager
def _held(plan: Plan) -> Iterator[list[str]]:
    """Hold the folder for this training alone; yield the names of what is left to do.

    Raises:
        UserError: another training is at work in it, or was begun in it; or adapters are there that are not ours.
    """
    root, settings, notes = Path(plan.settings.out), plan.settings.identifying(), dict[Path, str]()
    for job in plan.jobs:
        path = job.work(plan.settings.out) / PLAN
        notes[path] = json.dumps({"identity": job.identity, **settings}, indent=2) + "\n"
        if os.path.lexists(root / job.name) and not path.exists():
            raise UserError(
                f"there is an adapter already, of which no training here knows: {job.name}",
                where=printable_path(root),
                next_step="another folder (--out), or move this adapter away",
            )
    (root / WORK).mkdir(parents=True, exist_ok=True)
    with open(root / WORK / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another training is at work in this folder",
                where=printable_path(root),
                next_step="wait for it, or choose another folder with --out",
            ) from None
        for path in filter(Path.exists, notes):
            there, now = (json.loads(text) for text in (path.read_text("utf-8"), notes[path]))
            if there["identity"] == now.pop("identity"):
                continue
            changed = [f"{name} was {there.get(name)}, is {now[name]}" for name in now if there.get(name) != now[name]]
            what = "other rows to learn or to ask, another base model of this name, or another version of caef-data"
            raise UserError(
                f"another training of {path.parent.name} was begun in this folder: {'; '.join(changed) or what}",
                where=printable_path(root),
                next_step="choose another folder with --out, or remove this one",
            )
        for path, note in notes.items():
            path.parent.mkdir(exist_ok=True)
            atomic.put(path, note.encode())
        yield [job.name for job in plan.jobs if not (root / job.name).exists()]


def _train(plan: Plan, job: Job, log: Console, doing: str) -> None:
    """Train one adapter, with loss, tokens/s and the time left."""
    from .loop import train_adapter

    total, done = job.steps, list[float]()  # tokens before and after each step
    with Meter(log, doing, total) as meter:

        def told(step: int, loss: float) -> None:
            done.extend((job.tokens_to(step - 1), job.tokens_to(step)))
            speed = (done[-1] - done[0]) / meter.seconds
            left = (job.tokens_to(total) - done[-1]) / max(speed, 1e-6)
            rate = f"loss {loss:.4f}, {speed:,.0f} tokens/s"
            line = f"{doing}: step {step:,} of {total:,}, {rate}, about {left:,.0f} s left"
            meter.update(line, completed=step, rate=rate)

        train_adapter(plan, job, told, log.print)
    log.print(f"{job.name}: {total:,} steps; {printable_path(Path(plan.settings.out, job.name))}")


def _print_plan(plan: Plan, processes: int) -> None:
    table = new_table("steps", "rows", "tokens", "rows a step", "longest row", first=("adapter", "stage"))
    for job in plan.jobs:
        for stage in job.stages:
            rows = stage.steps * stage.rows
            cells = (stage.steps, rows, round(rows * stage.mean), stage.rows, stage.longest)
            table.add_row(job.name, stage.name, *(f"{cell:,}" for cell in cells))
    console, (trained, memory, seconds) = open_console(), cost(plan, processes)
    print_table(console, table)
    console.print(f"{trained:,} weights learn in each; tokens and the longest row are those of a sample")
    console.print(f"about {size_text(memory)} of memory, about {seconds / 3600:,.2f} hours; nothing was trained")


def _print_end(plan: Plan, *, trained: bool) -> None:
    console, own = open_console(), plan.settings
    names = ", ".join(job.name for job in plan.jobs)
    console.print(f"{names} in {printable_path(own.out)}{'' if trained else ': trained before'}")
    asked = ["--model", str(Path(own.out, "model"))] if own.method == "full" else ["--adapters", own.out]
    asked += ["--template", own.template] if own.template else []  # asked otherwise than trained, it knows nothing
    asked += ["--stage", "first"] if own.stages == ("first",) else []
    console.print(f"evaluate:  caef-data eval {shlex.join(asked)} --data DIR")
