"""What a training will do, and what it costs: what can be refused is refused here, before a weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, installed, printable_path, quoted
from ...pipelines.curriculum import mix_of, stages_of
from ...pipelines.settings import Declaration, digest
from ...pipelines.spelling import PLAIN
from ...pipelines.stream import Stream
from ...tm import machine
from .. import resolved
from ..checkpoint import Checkpoint, fetch, find_adapters
from .rows import Job, Pairs, Stage, spell
from .settings import VIEWS, TrainSettings

VERSION = 1  # of the rules of training; changes the identity of every training
LOOKED_AT = 1024  # rows of each adapter and stage, evenly among those that it learns
LONGEST = 128  # rows of the longest operands of each task and view, beside them
LIBRARIES = 170_000_000  # bytes that torch and the trainer take once they work
SHARES = 8  # of a training, in which rows may grow longer
USED = 0.4  # of what the device computes in large products: the share that training reaches, about


@dataclass(frozen=True)
class Plan:
    """A whole training.

    Args:
        settings: what was asked for.
        base: folder of the base model.
        jobs: the adapters, in turn.
        identity: changes with everything that changes what is learnt.
        notes: lines that say what the user should know.
        sizes: of the model: ``parameters``, ``trained``, ``memory`` (bytes, about) and ``layers`` ...
    """

    settings: TrainSettings
    base: Path
    jobs: tuple[Job, ...]
    identity: str
    notes: tuple[str, ...]
    sizes: dict[str, int]

    @property
    def tokens(self) -> float:
        """Tokens that all adapters read together, about."""
        return sum(job.tokens_to(job.steps) for job in self.jobs)


def make_plan(
    declaration: Declaration, settings: TrainSettings, say: Any = lambda line: None, *, processes: int = 1
) -> Plan:
    """Plan a training, of so many processes.

    Raises:
        UserError: base model, tasks or rows cannot be used; a row is longer than the model reads.
    """
    from ..backends.tokens import load_tokenizer

    declaration = resolved(declaration)
    pairs = _learnt(declaration, settings)
    notes = [f"{task} has no aligner" for task in dict.fromkeys(task for _, task in pairs) if _lacks(settings, task)]
    if declaration.mix is not None and settings.method == "each":
        notes.append("mix is for one model or adapter of several tasks: here each adapter learns one")
    parts: dict[str, Pairs] = {f"{kind}/{task}": ((kind, task),) for kind, task in pairs}
    if settings.method != "each":
        parts = {"all" if settings.method == "one" else "model": pairs}
    streams = [_stream(declaration, settings, own) for own in parts.values()]
    found = _base_model(settings, _place(declaration), say)
    base = Path(found.base)
    sizes, tokens = _sizes(base, settings), load_tokenizer(base, settings.template)
    known = settings.identifying() | {"base_model": found.base_sha256, "task": None, "which": None}  # others may follow
    jobs = list[Job]()
    for (name, own), stream in zip(parts.items(), streams, strict=True):
        job = Job(name, own, stream, tokens, settings.base_model, sizes["positions"] or None)
        job.identity = digest([VERSION, known, settings.eval_every and own, name, stream.identity])
        job.stages += _stages(job, declaration, settings)
        job.parts = _parts(job, settings, processes)
        jobs.append(job)
    most = int(max(stage.rows * stage.mean / job.parts for job in jobs for stage in job.stages))
    longest = max(stage.longest for job in jobs for stage in job.stages)
    sizes["memory"] = _memory(sizes, max(most, longest))
    return Plan(settings, base, tuple(jobs), digest([job.identity for job in jobs]), tuple(notes), sizes)


def _place(declaration: Declaration) -> str:
    return f"{printable_path(declaration.source or declaration.name)}, table [train]"


def _base_model(settings: TrainSettings, where: str, say: Any) -> Checkpoint:
    try:
        return fetch(find_adapters(None, settings.base_model, say=say))
    except UserError as error:
        if error.where != "--base-model":  # the option of evaluation
            raise
        where += ", base_model"
        raise UserError(error.what, where=where, allowed=error.allowed, next_step="mend it there") from None


def _lacks(settings: TrainSettings, task: str) -> bool:
    return any(VIEWS[kind] in machine(task).missing_views() for kind in VIEWS if settings.learns(kind, task))


def _learnt(declaration: Declaration, settings: TrainSettings) -> Pairs:
    """Return kind and task of each adapter, or of what one model learns: where that is a mix, of what the mix names.

    Raises:
        UserError: a task is not one of the declaration's, or nothing is left to train.
    """
    where, held = _place(declaration), [own.task for own in declaration.tasks]
    mix = mix_of(declaration.mix, declaration.tasks, PLAIN)
    if settings.method != "each" and mix:
        if settings.task:
            raise UserError("task and mix both say what is learnt", where=where, next_step="take task out, or the mix")
        named = {(task, view or VIEWS["executors"]) for task, view in mix}
        pairs = [(kind, task) for task, view in named for kind in VIEWS if VIEWS[kind] == view]
        found = tuple(sorted(pair for pair in pairs if settings.learns(*pair)))
        if settings.eval_every is not None and not found:
            raise UserError("mix names no one_step or aligner, which is what eval_every asks", where=where)
        return found
    if other := [task for task in settings.task if task not in held]:
        what = f"task is {quoted(other[0])}, which this declaration has no rows of"
        raise UserError(what, where=where, allowed=", ".join(held))
    chosen = [task for task in held if task in settings.task or not settings.task]
    if others := [name for name in settings.which if name not in VIEWS and name.partition("/")[2] not in chosen]:
        what = f"which names {others[0]}, a task that is not trained here"
        raise UserError(what, where=where, allowed=", ".join(chosen))
    asked = ((kind, task) for task in chosen for kind in VIEWS if settings.learns(kind, task))
    found = tuple((kind, task) for kind, task in asked if VIEWS[kind] not in machine(task).missing_views())
    if not found:
        what = f"{', '.join(chosen)}: nothing to train, there are no {' or '.join(settings.which)} of these tasks"
        raise UserError(what, where=where, next_step="name other tasks, or another which")
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

        def look(rows: int, first: int = first, name: str = name) -> list[int]:
            numbers = first + np.linspace(0, rows - 1, min(rows, LOOKED_AT)).astype(np.int64)
            return job.lengths(spell(job.tokens, job.stream.__getitems__(numbers.tolist()), name), name)

        lengths = look(64)
        for _ in range(2):  # how many rows a step has depends on their tokens, and which rows are read on how many
            rows = _rows_a_step(settings, lengths)
            lengths = look(_steps(settings, job.stream, rows, lengths) * rows)
        steps = _steps(settings, job.stream, rows, lengths)
        digits, longest = _longest(job, declaration, name, first + steps * rows)
        yield Stage(name, steps, rows, first, sum(lengths) / len(lengths), max(*lengths, longest), digits)
        first += steps * rows


def _longest(job: Job, declaration: Declaration, stage: str, end: int) -> tuple[int, int]:
    """Return digits of the longest operands that a stage reaches before a row, and tokens of their longest row."""
    grows = stages_of(declaration.curriculum, declaration.tasks, PLAIN)
    most = [longest for begin, longest in grows if begin < end][-1]
    digits, tokens = 0, list[int]()
    for own, view in ((source.settings, source.view) for source in job.stream.sources):
        long = min(own.max, most or own.max)
        digits = max(digits, long)
        if own.expressions is not None or not machine(own.task).numbers or own.min > long:
            continue  # of words, and of a file, the longest are not known
        alone = replace(own, min=long, max=long)
        only = replace(declaration, tasks=(alone,), mix=None, curriculum=None, rows=None, tokens=None)
        rows = Stream(only, "train", view).__getitems__(range(LONGEST))
        tokens += job.lengths(spell(job.tokens, rows, stage), stage)
    return digits, max(tokens, default=0)


def _rows_a_step(settings: TrainSettings, lengths: Sequence[int]) -> int:
    """Return the rows of a step: the batch holds them where they are longest."""
    mean = max(share.mean() for share in np.array_split(np.array(lengths), min(SHARES, len(lengths))))
    return max(1, int(settings.batch_tokens / mean))


def _steps(settings: TrainSettings, stream: Stream, rows: int, lengths: Sequence[int]) -> int:
    if settings.steps is not None:
        return settings.steps
    if settings.tokens is not None:
        return max(1, math.ceil(settings.tokens / (rows * (sum(lengths) / len(lengths)))))
    return max(1, math.ceil((settings.epochs or 1) * stream.epoch_rows / rows))


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


# What it costs ------------------------------------------------------------------------------------------------------


def _sizes(base: Path, settings: TrainSettings) -> dict[str, int]:
    """Return the sizes of the model with its LoRA; no weight is read."""
    with installed("training", "train"):
        import accelerate  # noqa: F401  (the trainer needs it, and says so late)
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from ..backends.device import find_device, find_dtype
        from ..backends.load import quiet
        from ..backends.model import max_positions
        from .loop import learning
    dtype = find_dtype(settings.dtype, find_device(settings.device))
    with quiet():
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        if config.is_encoder_decoder:
            what = f"the base model is an encoder-decoder ({config.model_type})"
            raise UserError(what, where=printable_path(base), allowed="a causal language model")
        try:
            with torch.device("meta"):
                net = AutoModelForCausalLM.from_config(config, dtype=dtype)
        except ValueError as error:
            what = f"the base model is no causal language model ({config.model_type})"
            raise UserError(what, where=printable_path(base)) from error
        parameters = sum(weight.numel() for weight in net.parameters())
        inputs, outputs = (found.weight for found in (net.get_input_embeddings(), net.get_output_embeddings()))
        # The first are looked up, and only positions that are learnt, about half, go through the second.
        idle = outputs.numel() // 2 + (0 if inputs is outputs else inputs.numel())
        whole = learning(net, settings)
    text = config.get_text_config()
    return {
        "parameters": parameters,
        "idle": idle,  # of them, that a token is not multiplied with, about
        "trained": sum(weight.numel() for weight in whole.parameters() if weight.requires_grad),
        "frozen": sum(weight.numel() for weight in whole.parameters() if not weight.requires_grad),
        "bytes": dtype.itemsize,  # of a number that the model computes with
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "inner": getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        "vocabulary": text.vocab_size,
        "positions": max_positions(text) or 0,
    }


def _memory(sizes: dict[str, int], tokens: int) -> int:
    """Return the bytes of weights, of an adapter with gradient and AdamW's two moments, and of what a step keeps."""
    # The factors are those that trainings on a CPU were seen to take, padding of lines included.
    beside = 1.5 if sizes["frozen"] else 1  # what an adapter adds to each layer is kept, too
    kept = int(beside * tokens * sizes["layers"] * (16 * sizes["hidden"] + 6 * sizes["inner"]) * sizes["bytes"])
    logits = tokens // 2 * sizes["vocabulary"] * 9  # about half of the tokens are learnt; float32, and its gradient
    return LIBRARIES + sizes["frozen"] * sizes["bytes"] + sizes["trained"] * 16 + kept + logits


def seconds(plan: Plan) -> float:
    """Return how long the training takes, about, from what this device computes in large products."""
    import torch
    from torch.utils.benchmark import Timer

    from ..backends.device import find_device, find_dtype

    device = find_device(plan.settings.device)
    factor = torch.ones(1024, 1024, dtype=find_dtype(plan.settings.dtype, device), device=device)
    timer = Timer("factor @ factor", globals={"factor": factor}, num_threads=torch.get_num_threads())
    speed = 2 * 1024**3 / timer.blocked_autorange(min_run_time=0.2).mean
    # Forward, and backward through the activations; weights that do not learn get no gradient.
    sizes = plan.sizes
    operations = 4 * sizes["frozen"] + 6 * sizes["trained"] - (4 if sizes["frozen"] else 6) * sizes["idle"]
    return plan.tokens * operations / (speed * USED)
