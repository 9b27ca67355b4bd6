"""What `caef-data train` does and prints: the plan, each adapter in turn, how to go on."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ... import atomic
from ...errors import UserError, printable_path, telling_of_full_disk
from ...pipelines.terminal import Meter, new_table, open_console, print_table, size_text
from .judge import Judge
from .plan import Plan, make_plan, seconds
from .rows import Job
from .settings import train_settings
from .team import Team, meet

WORK = ".train"  # under the folder of the adapters: states of unfinished ones, losses of all
PLAN = "training.json"  # in there, for each adapter: what is trained
RECENT = 50  # steps whose mean loss is shown


def train_with_progress(declaration: str, out: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Train what a declaration's table ``[train]`` asks for, or go on with it."""
    team = meet()
    with team.ending():
        log = Console(quiet=True) if team.rank else open_console(stderr=True)

        def say(line: str) -> None:
            log.print(line, soft_wrap=True)

        def planned() -> Plan:
            return make_plan(*train_settings(declaration, {"out": out}), say, processes=team.size)

        plan = team.together(planned)
        if team.any(team.first(lambda: plan.identity) != plan.identity):
            raise UserError("the processes have other rows, or another base model", allowed="the same files for all")
        if not team.rank:
            for note in plan.notes:
                say(note)
        asked = team.first(partial(_rows_asked, plan))
        if dry_run:
            if not team.rank:
                _print_plan(plan, team.size, as_json=as_json)
            return
        command = shlex.join(["caef-data", "train", declaration, *(["--out", out] if out else [])])
        _train_all(plan, asked, team, log, command if team.size == 1 else "the same command", as_json=as_json)


def _rows_asked(plan: Plan) -> str | None:
    """Return the identity of the dataset that evaluations on the way ask; None where there are none."""
    judges = [Judge(plan.settings, job.name, job.pairs, Path(plan.settings.out)) for job in plan.jobs]
    return [judge.rows() for judge in judges][0] if plan.settings.eval_every else None


def _train_all(plan: Plan, asked: str | None, team: Team, log: Console, command: str, *, as_json: bool) -> None:
    root = Path(plan.settings.out)
    resuming = "make room and run the same command again: what was learnt up to the last state is kept"
    with telling_of_full_disk(printable_path(root), resuming), ExitStack() as stack:
        names = team.first(lambda: stack.enter_context(_held(root, plan, asked)))
        left = [job for job in plan.jobs if job.name in names]
        try:
            for number, job in enumerate(left, 1):
                _train(plan, job, root, log, f"{job.name} ({number} of {len(left)})", team)
        except KeyboardInterrupt:
            log.print(f"stopped: what was learnt is kept; go on with: {command}", soft_wrap=True)
            sys.exit(130)
    if not team.rank:
        _print_end(plan, root, trained=bool(left), as_json=as_json)


@contextmanager
def _held(root: Path, plan: Plan, asked: str | None = None) -> Iterator[list[str]]:
    """Hold the folder for this training alone; yield the names of what is left to do.

    Raises:
        UserError: another training is at work in it, or was begun in it; or adapters are there that are not ours.
    """
    work = root / WORK
    for job in plan.jobs:
        if os.path.lexists(root / job.name) and not (_work(root, job) / PLAN).exists():
            raise UserError(
                f"there is an adapter already, of which no training here knows: {job.name}",
                where=printable_path(root),
                allowed="a folder of its own for each training",
                next_step="another folder (--out), or move this adapter away",
            )
    try:
        work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            "the adapters cannot lie here: this is a file, or is below one",
            where=f"--out {printable_path(root)}",
            allowed="a folder, which is made where there is none",
            next_step="choose another folder with --out",
        ) from None
    with open(work / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another training is at work in this folder",
                where=printable_path(root),
                next_step="wait for it, or choose another folder with --out",
            ) from None
        notes = {_work(root, job) / PLAN: _note(_work(root, job) / PLAN, plan, job, asked) for job in plan.jobs}
        for path, note in notes.items():
            path.parent.mkdir(exist_ok=True)
            atomic.put(path, (json.dumps(note, indent=2) + "\n").encode())
        yield [job.name for job in plan.jobs if not (root / job.name).exists()]


def _work(root: Path, job: Job) -> Path:
    """Return the folder of an adapter's states and losses."""
    return root / WORK / job.name.replace("/", "-")


def _note(path: Path, plan: Plan, job: Job, asked: str | None) -> dict[str, Any]:
    """Return the note of what an adapter learns and is asked; refuse if something else was begun with it."""
    held = {"identity": job.identity, "asked": asked, **plan.settings.identifying()}
    now: dict[str, Any] = json.loads(json.dumps(held))
    if not path.exists():
        return now
    try:
        there = json.loads(path.read_text("utf-8"))
        same = there["identity"] == now["identity"]
    except (ValueError, TypeError, KeyError, OSError):
        raise UserError(
            "the note of what is trained here cannot be understood",
            where=printable_path(path),
            next_step="choose another folder with --out",
        ) from None
    if same and there.get("asked") in (None, asked):
        return now
    if same:
        raise UserError(
            f"{job.name}: the dataset is not the one that this training's evaluations asked before it stopped",
            where=printable_path(plan.settings.data),
            allowed="the same rows, wherever they lie",
            next_step="build it as it was, or choose another folder with --out",
        )
    changed = [name for name in plan.settings.identifying() if there.get(name) != now[name]]
    told = (
        "; ".join(f"{name} was {there.get(name)}, is {now[name]}" for name in changed)
        or "other rows, or another base model of this name"
    )
    raise UserError(
        f"another training of {job.name} was begun in this folder: {told}",
        where=printable_path(path.parent.parent.parent),
        allowed="the same settings and rows",
        next_step="choose another folder with --out, or remove this one",
    )


def _train(plan: Plan, job: Job, root: Path, log: Console, doing: str, team: Team) -> None:
    """Train one adapter, with loss, tokens/s and the time left."""
    from .loop import train_adapter

    work = _work(root, job)
    total, recent, begun = job.steps, list[float](), list[int]()
    with Meter(log, doing, total) as meter:

        def told(row: dict[str, Any]) -> None:
            recent.append(row["loss"])
            del recent[:-RECENT]
            step = row["step"]
            begun.append(step - 1)
            done = job.tokens_to(step) - job.tokens_to(begun[0])
            speed = done / meter.seconds
            left = (job.tokens_to(total) - job.tokens_to(step)) / max(speed, 1e-6)
            rate = f"loss {sum(recent) / len(recent):.4f}, {speed:,.0f} tokens/s"
            line = f"{doing}: step {step:,} of {total:,}, {rate}, about {left:,.0f} s left"
            meter.update(line, completed=step, rate=rate)

        train_adapter(plan, job, work, root / job.name, told, lambda line: log.print(line, soft_wrap=True), team)
    loss = f", loss {sum(recent) / len(recent):.4f} at the end" if recent else ""
    log.print(f"{job.name}: {total:,} steps{loss}; {printable_path(root / job.name)}", soft_wrap=True)


def _print_plan(plan: Plan, processes: int, *, as_json: bool) -> None:
    rows = [(job, stage) for job in plan.jobs for stage in job.stages]
    names = ("steps", "rows", "mean", "longest")
    took = seconds(plan) / processes
    if as_json:
        adapters = [
            {"adapter": job.name, "stage": stage.name, **{name: getattr(stage, name) for name in names}}
            for job, stage in rows
        ]
        print(json.dumps({"identity": plan.identity, **plan.sizes, "seconds": took, "stages": adapters}))
        return
    table = new_table("steps", "rows", "tokens", "rows a step", "longest row", first=("adapter", "stage"))
    for job, stage in rows:
        cells = (stage.steps, stage.steps * stage.rows, round(stage.tokens), stage.rows, stage.longest)
        table.add_row(job.name, stage.name, *(f"{cell:,}" for cell in cells))
    console, sizes = open_console(), plan.sizes
    print_table(console, table)
    reads = f"reads {sizes['positions']:,} tokens" if sizes["positions"] else "reads rows of any length"
    for line in (
        f"{_count(plan)}, {sizes['trained']:,} weights learn in each; the base model has {sizes['parameters']:,} and"
        f" {reads}; tokens and the longest row are those of a sample",
        f"about {size_text(sizes['memory'])} of memory, about {took / 3600:,.2f} hours on this device",
        "nothing was trained",
    ):
        console.print(line, soft_wrap=True)


def _print_end(plan: Plan, root: Path, *, trained: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"identity": plan.identity, "adapters": [str(root / job.name) for job in plan.jobs]}))
        return
    console = open_console()
    done = f"{_count(plan)} in {printable_path(root)}{'' if trained else ': trained before'}"
    console.print(done, soft_wrap=True)
    own = plan.settings
    asked = ["--model", str(root / "model")] if own.method == "full" else ["--adapters", str(root)]
    asked += ["--template", own.template] if own.template else []  # asked otherwise than trained, it knows nothing
    asked += ["--stage", "first"] if own.stages == ("first",) else []
    console.print(f"evaluate:  caef-data eval {shlex.join(asked)} --data DIR", soft_wrap=True)


def _count(plan: Plan) -> str:
    what = "model" if plan.settings.method == "full" else "adapter"
    return f"{len(plan.jobs)} {what}{'s' * (len(plan.jobs) > 1)}"
