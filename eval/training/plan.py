"""What a training will do, and what it costs: what can be refused is refused here, before a weight is read."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, printable_path
from ...pipelines.settings import Declaration, digest
from ...pipelines.stream import Stream
from ..checkpoint import Checkpoint, fetch, find_adapters
from .rows import Spelled, Stage, Steps, check_length, spell
from .settings import VIEWS, TrainSettings

VERSION = 1  # of the rules of training; changes the identity of every training
LOOKED_AT = 1024  # rows of each adapter and stage, evenly among those that it learns
SHARES = 8  # of a training, in which rows may grow longer
USED = 0.4  # of what the device computes in large products: the share that training reaches, about


@dataclass(frozen=True)
class Job:
    """The training of one adapter.

    Args:
        kind: executors or aligners.
        task: the task.
        stages: its stages.
        steps: the rows of each step.
    """

    kind: str
    task: str
    stages: tuple[Stage, ...]
    steps: Steps

    @property
    def name(self) -> str:
        """The adapter's name, such as ``executors/add``."""
        return f"{self.kind}/{self.task}"


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
        return sum(stage.tokens for job in self.jobs for stage in job.stages)


def make_plan(declaration: Declaration, settings: TrainSettings, say: Any = lambda line: None) -> Plan:
    """Plan a training.

    Raises:
        UserError: base model, tasks or rows cannot be used; a row is longer than the model reads.
    """
    from ..backends.tokens import load_tokenizer

    pairs = settings.adapters(declaration)
    notes = [f"{task} has no aligner" for task in dict.fromkeys(task for _, task in pairs) if _lacks(settings, task)]
    if declaration.mix is not None:
        notes.append("mix is for streams of several tasks: each adapter learns one")
    streams = [_stream(declaration, settings, kind, task) for kind, task in pairs]
    found = _base_model(declaration, settings, say)
    base = Path(found.base)
    sizes, tokens = _sizes(base, settings), load_tokenizer(base, settings.template)
    jobs = tuple(_job(settings, *pair, stream, tokens, sizes) for pair, stream in zip(pairs, streams, strict=True))
    known = {**settings.identifying(), "base_model": found.base_sha256}
    identity = digest([VERSION, known, [[job.name, job.steps.stream.identity] for job in jobs]])
    longest = max(stage.longest for job in jobs for stage in job.stages)
    sizes["memory"] = _memory(sizes, max(_most_at_once(jobs), longest))
    return Plan(settings, base, jobs, identity, tuple(notes), sizes)


def _base_model(declaration: Declaration, settings: TrainSettings, say: Any) -> Checkpoint:
    try:
        return fetch(find_adapters(None, settings.base_model, say=say), say=say)
    except UserError as error:
        if error.where != "--base-model":  # the option of evaluation
            raise
        where = f"{printable_path(declaration.source or declaration.name)}, table [train], base_model"
        raise UserError(error.what, where=where, allowed=error.allowed, next_step="mend it there") from None


def _lacks(settings: TrainSettings, task: str) -> bool:
    from ...tm import machine

    return any(VIEWS[kind] in machine(task).missing_views() for kind in settings.which)


def _stream(declaration: Declaration, settings: TrainSettings, kind: str, task: str) -> Stream:
    own = tuple(one for one in declaration.tasks if one.task == task)
    alone = replace(declaration, tasks=own, mix=None, rows=None, tokens=None)
    return Stream(alone, "train", VIEWS[kind], seed=settings.seed)


def _job(settings: TrainSettings, kind: str, task: str, stream: Stream, tokens: Any, sizes: dict[str, int]) -> Job:
    """Return the training of an adapter, after a look at rows from all over it."""
    stages: list[Stage] = []
    most, where, first = sizes["positions"] or None, str(settings.base_model), 0
    for name in settings.stages:
        which = f"{kind}/{task}, {name} stage,"

        def look(begin: int, rows: int, name: str = name, which: str = which) -> list[Spelled]:
            numbers = begin + np.linspace(0, rows - 1, min(rows, LOOKED_AT)).astype(np.int64)
            spelled = spell(tokens, stream.__getitems__(numbers.tolist()), name)
            check_length(spelled, most, where, which)
            return spelled

        spelled = look(first, 64)
        for _ in range(2):  # how many rows a step has depends on their tokens, and which rows are read on how many
            rows = _rows_a_step(settings, spelled)
            spelled = look(first, _steps(settings, stream, rows, spelled) * rows)
        lengths = [len(prompt) + len(answer) for prompt, answer in spelled]
        steps = _steps(settings, stream, rows, spelled)
        stages.append(Stage(name, steps, rows, first, sum(lengths) / len(lengths), max(lengths)))
        first += steps * rows
    parts = min(-(-settings.batch_tokens // settings.device_tokens), *(stage.rows for stage in stages))
    return Job(kind, task, tuple(stages), Steps(stream, tokens, stages, parts, most, f"{kind}/{task}"))


def _rows_a_step(settings: TrainSettings, spelled: list[Spelled]) -> int:
    """Return the rows of a step: the batch holds them where they are longest."""
    lengths = np.array([len(prompt) + len(answer) for prompt, answer in spelled])
    mean = max(share.mean() for share in np.array_split(lengths, min(SHARES, len(lengths))))
    return max(1, int(settings.batch_tokens / mean))


def _steps(settings: TrainSettings, stream: Stream, rows: int, spelled: list[Spelled]) -> int:
    if settings.steps is not None:
        return settings.steps
    if settings.tokens is not None:
        mean = sum(len(prompt) + len(answer) for prompt, answer in spelled) / len(spelled)
        return max(1, math.ceil(settings.tokens / (rows * mean)))
    return max(1, math.ceil((settings.epochs or 1) * stream.epoch_rows / rows))


# What it costs ------------------------------------------------------------------------------------------------------


def _sizes(base: Path, settings: TrainSettings) -> dict[str, int]:
    """Return the sizes of the model with its LoRA; no weight is read."""
    try:
        import accelerate  # noqa: F401  (the trainer needs it, and says so late)
        import torch
        from peft import get_peft_model
        from transformers import AutoConfig, AutoModelForCausalLM

        from ..backends.device import find_device, find_dtype
        from ..backends.load import quiet
        from ..backends.model import max_positions
        from .loop import lora_config
    except ImportError as error:
        raise UserError(
            "training needs torch, transformers, peft and accelerate", next_step="pip install 'caef-data[train]'"
        ) from error
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
        whole = get_peft_model(net, lora_config(settings))
    text = config.get_text_config()
    return {
        "parameters": parameters,
        "trained": sum(weight.numel() for weight in whole.parameters() if weight.requires_grad),
        "bytes": dtype.itemsize,
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "inner": getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        "vocabulary": text.vocab_size,
        "positions": max_positions(text) or 0,
    }


def _most_at_once(jobs: tuple[Job, ...]) -> int:
    return int(max(stage.rows * stage.mean / job.steps.parts for job in jobs for stage in job.stages))


def _memory(sizes: dict[str, int], tokens: int) -> int:
    """Return the bytes of weights, of an adapter with gradient and AdamW's two moments, and of what a step keeps."""
    kept = tokens * sizes["layers"] * (16 * sizes["hidden"] + 6 * sizes["inner"]) * sizes["bytes"]
    logits = tokens // 2 * sizes["vocabulary"] * 12  # about half of the tokens are learnt; float32, and its gradient
    return sizes["parameters"] * sizes["bytes"] + sizes["trained"] * 16 + kept + logits


def seconds(plan: Plan) -> float:
    """Return how long the training takes, about, from what this device computes in large products."""
    import torch

    from ..backends.device import find_device, find_dtype

    device = find_device(plan.settings.device)
    factor = torch.ones(1024, 1024, dtype=find_dtype(plan.settings.dtype, device), device=device)
    (factor @ factor).sum().item()
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < 0.2:
        product = factor @ factor
        products += 1
        if products % 20 == 0 or device.type == "cpu":
            product[0, 0].item()
    product[0, 0].item()
    speed = products * 2 * 1024**3 / (time.perf_counter() - began)
    # Forward, and backward through the activations; the base model's weights get no gradient.
    return plan.tokens * (4 * plan.sizes["parameters"] + 6 * plan.sizes["trained"]) / (speed * USED)
