"""What a training will do, and what it costs: what can be refused is refused here, before a weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError, printable_path, quoted
from ...pipelines.curriculum import mix_of, stages_of
from ...pipelines.settings import Declaration, digest
from ...pipelines.stream import Stream
from ...tm import machine
from .. import resolved
from ..backends.tokens import check_spelling, load_tokenizer
from ..calls import Request
from ..checkpoint import Checkpoint, fetch, find_adapters
from .judge import Judge
from .rows import Job, Pairs, Stage, size_of, texts_of
from .settings import VIEWS, TrainSettings

VERSION = 2  # of the rules of training; changes the identity of every training
LOOKED_AT = 1024  # rows of each adapter and stage, evenly among those that it learns
TRIED = 64  # of these, whose texts must come back from their tokens
LONGEST = 128  # rows of the longest operands of each task and view, beside them
SHARES = 8  # of a training, in which rows may grow longer
LIBRARIES = 170_000_000  # bytes that torch and the trainer take once they work
USED = 0.4  # of what the device computes in large products: the share that training reaches, about


class Plan(NamedTuple):
    """A whole training: what was asked for, the base model, its folder, and the adapters, in turn."""

    settings: TrainSettings
    checkpoint: Checkpoint
    base: Path
    jobs: tuple[Job, ...]


def make_plan(
    declaration: Declaration, settings: TrainSettings, say: Any = lambda line: None, *, processes: int = 1
) -> Plan:
    """Plan a training, of so many processes; ``say`` is told what the user should know.

    Raises:
        UserError: base model, tasks or rows cannot be used; a row is longer than the model reads.
    """
    from ..backends.defaults import say_otherwise

    declaration = resolved(declaration)
    where = f"{printable_path(declaration.source or declaration.name)}, table [train]"
    pairs = _learnt(declaration, settings, where, say)
    parts = {"all" if settings.method == "one" else "model": pairs}
    if settings.method == "each":
        parts = {f"{kind}/{task}": ((kind, task),) for kind, task in pairs}
    streams = [_stream(declaration, settings, own) for own in parts.values()]
    found = fetch(find_adapters(None, settings.base_model, option=f"{where}, base_model", say=say))
    base = Path(found.base)
    tokens = load_tokenizer(base, settings.template)
    if settings.eval_every is not None:  # the evaluations on the way are silent
        say_otherwise(base, [tokens], say)
    most, why = _most(base)
    known = settings.identifying() | {"base_model": found.base_sha256}  # wherever it lies
    jobs = list[Job]()
    for (name, own), stream in zip(parts.items(), streams, strict=True):
        job = Job(name, own, stream, tokens, most, why)
        asked = None if settings.eval_every is None else [own, Judge(settings, job).rows()]
        job.identity = digest([VERSION, known, asked, name, stream.identity])
        job.stages += _stages(job, declaration, settings)
        job.parts = _parts(job, settings, processes)
        jobs.append(job)
    return Plan(settings, found, base, tuple(jobs))


def _most(base: Path) -> tuple[int | None, str]:
    """Return how many tokens a row may have, if not any number, and why no more."""
    from ..backends.greedy import longest_alike
    from ..backends.load import without_weights
    from ..backends.model import max_positions

    net = without_weights(base)
    most, alike = max_positions(net.config.get_text_config()), longest_alike(net)
    if alike < (most or math.inf):
        return int(alike), f"beyond {alike:,} the factors of this model's rope depend on the rows that are beside it"
    return most, "" if most is None else f"the model reads {most:,}"


def _learnt(declaration: Declaration, settings: TrainSettings, where: str, say: Any) -> Pairs:
    """Return kind and task of each adapter, or of what one model learns; of a mix, what evaluation asks.

    Raises:
        UserError: a task is not one of the declaration's, or nothing is left to train.
    """
    held = [own.task for own in declaration.tasks]
    mix = mix_of(declaration, VIEWS["executors"])
    if mix and settings.method != "each":
        if settings.task:
            raise UserError("task and mix both say what is learnt", where=where, next_step="take task out, or the mix")
        asked = sorted((kind, task) for task, view in mix for kind in VIEWS if VIEWS[kind] == view)
        if settings.eval_every is not None and not asked:
            raise UserError("mix names no one_step or aligner, which is what eval_every asks", where=where)
        return tuple(pair for pair in asked if settings.learns(*pair))
    chosen = [task for task in held if task in settings.task or not settings.task]
    named_tasks = (*settings.task, *(name.partition("/")[2] for name in settings.which if name not in VIEWS))
    if other := [task for task in named_tasks if task not in chosen]:
        what = f"{quoted(other[0])} is to be trained, which this declaration, or task, has no rows of"
        raise UserError(what, where=where, allowed=", ".join(held))
    wanted = ((kind, task) for task in chosen for kind in VIEWS if settings.learns(kind, task))
    found = tuple((kind, task) for kind, task in wanted if VIEWS[kind] not in machine(task).missing_views())
    if not found:
        what = f"{', '.join(chosen)}: nothing to train, there are no {' or '.join(settings.which)} of these tasks"
        raise UserError(what, where=where, next_step="name other tasks, or another which")
    if mix:
        say("mix is for one model or adapter of several tasks: here each adapter learns one")
    return found


def _stream(declaration: Declaration, settings: TrainSettings, pairs: Pairs) -> Stream:
    """Return the rows of an adapter's task, or those of a mix: the declared one, else each kind and task alike."""
    own, mix, view = declaration.tasks, declaration.mix, VIEWS["executors"]
    if settings.method == "each":
        mix, view = None, VIEWS[pairs[0][0]]
    elif mix is None:
        mix = {f"{task}-{VIEWS[kind]}": 1 for kind, task in pairs}
    if mix is not declaration.mix or mix is None:
        own = tuple(one for one in own if one.task in {task for _, task in pairs})
    alone = replace(declaration, tasks=own, mix=mix, rows=None, tokens=None)
    return Stream(alone, "train", view, seed=settings.seed)


def _stages(job: Job, declaration: Declaration, settings: TrainSettings) -> Iterator[Stage]:
    """Yield the stages of a training, after a look at rows from all over each."""
    first = 0
    for name in settings.stages:
        steps, rows = 1, 64
        for _ in range(3):  # how many rows a step has depends on their tokens, and which rows are read on how many
            numbers = first + np.linspace(0, steps * rows - 1, min(steps * rows, LOOKED_AT)).astype(np.int64)
            seen = job.stream.__getitems__(numbers.tolist())
            counts = np.array([*map(size_of, job.spell(seen, name))])
            # The batch holds them where they are longest.
            most = max(share.mean() for share in np.array_split(counts, min(SHARES, len(counts))))
            mean, rows = float(counts.mean()), max(1, int(settings.batch_tokens / most))
            wanted = settings.tokens / mean if settings.tokens else (settings.epochs or 1) * job.stream.epoch_rows
            steps = settings.steps or max(1, math.ceil(wanted / rows))
        tried = texts_of(seen[:: max(1, len(seen) // TRIED)], name)
        check_spelling(job.tokens, starmap(Request, tried), "take another base model, or its tokenizer")
        digits, longest = _longest(job, declaration, name, first + steps * rows)
        yield Stage(name, steps, rows, first, mean, max(int(counts.max()), longest), digits)
        first += steps * rows


def _longest(job: Job, declaration: Declaration, stage: str, end: int) -> tuple[int, int]:
    """Return digits of the longest operands that a stage reaches before a row, and tokens of their longest row."""
    grows = stages_of(declaration)
    most = [longest for begin, longest in grows if begin < end][-1]
    digits, tokens = 0, 0
    for own, view in ((source.settings, source.view) for source in job.stream.sources):
        long = min(own.max, most or own.max)
        digits = max(digits, long)
        if own.expressions is not None or not machine(own.task).numbers or own.min > long:
            continue  # of words, and of a file, the longest are not known
        tasks = (replace(own, min=long, max=long),)
        only = replace(declaration, tasks=tasks, mix=None, curriculum=None, rows=None, tokens=None)
        rows = Stream(only, "train", view).__getitems__(range(LONGEST))
        tokens = max(tokens, *map(size_of, job.spell(rows, stage)))
    return digits, tokens


def _parts(job: Job, settings: TrainSettings, processes: int) -> int:
    """Return in how many parts the rows of a step go through the model, as many for each process."""
    least = min(stage.rows for stage in job.stages)
    if least < processes:
        raise UserError(
            f"a step of {job.name} reads {least} rows, too few for {processes} processes",
            allowed="a row or more for each",
            next_step=f"fewer processes, or batch_tokens of {math.ceil(settings.batch_tokens * processes / least):,}",
        )
    return processes * min(-(-settings.batch_tokens // (settings.device_tokens * processes)), least // processes)


def cost(plan: Plan, processes: int = 1) -> tuple[int, float, float]:
    """Return how many weights learn in each adapter; and bytes and seconds on this device, about; none is read."""
    import torch
    from torch.utils.benchmark import Timer

    from ..backends.device import find_device, find_dtype
    from ..backends.load import quiet, without_weights
    from .loop import learning

    device = find_device(plan.settings.device)
    dtype = find_dtype(plan.settings.dtype, device)
    with quiet(), torch.device("meta"):
        net = without_weights(plan.base, dtype)
        config = net.config.get_text_config()
        inputs, outputs = net.get_input_embeddings().weight, net.get_output_embeddings().weight
        weights = [(weight.numel(), weight.requires_grad) for weight in learning(net, plan.settings).parameters()]
    trained, frozen = (sum(count for count, learns in weights if learns == which) for which in (True, False))
    stages = [(job.parts, stage) for job in plan.jobs for stage in job.stages]
    at_once = max(max(stage.rows * stage.mean / parts, stage.longest) for parts, stage in stages)
    # The factors are those that trainings on a CPU were seen to take, padding of lines included; what an adapter adds
    # to each layer is kept, too. Of what learns there are a gradient and AdamW's two moments. About half of the tokens
    # are learnt; of these there are logits in float32, and their gradient.
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    kept = config.num_hidden_layers * (16 * config.hidden_size + 6 * inner) * dtype.itemsize * (1.5 if frozen else 1)
    memory = LIBRARIES + frozen * dtype.itemsize + trained * 16 + at_once * (kept + config.vocab_size * 4.5)
    factor = torch.ones(1024, 1024, dtype=dtype, device=device)
    timer = Timer("factor @ factor", globals={"factor": factor}, num_threads=torch.get_num_threads())
    speed = 2 * 1024**3 / timer.blocked_autorange(min_run_time=0.2).mean
    # Forward, and backward through the activations; weights that do not learn get no gradient. Embeddings are looked
    # up, and only positions that are learnt go through the last projection.
    idle = outputs.numel() // 2 + (0 if inputs is outputs else inputs.numel())
    operations = 4 * frozen + 6 * trained - (4 if frozen else 6) * idle
    tokens = sum(job.tokens_to(job.steps) for job in plan.jobs)
    return trained, memory, tokens * operations / (speed * USED * processes)
