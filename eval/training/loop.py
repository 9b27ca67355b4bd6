"""Trains one adapter: the library's Trainer over packed rows, exact after a kill, stopped by Ctrl-C without a loss."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from accelerate.utils.memory import clear_device_cache
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed

from ... import atomic
from ...errors import UserError
from ...pipelines.sampling.random import text_key
from ..backends.device import find_device, find_dtype
from ..backends.load import ABOUT, SAME, load_base, quiet, share, unless_full
from ..backends.local import has_experts
from ..backends.model import logits_at
from ..calls import BASE
from ..files import CHAT_TEMPLATE, TOKENIZER
from .judge import Judge, best
from .rows import Job, Spelled, size_of
from .settings import TrainSettings

if TYPE_CHECKING:
    from .plan import Plan

STATE = "trainer_state.json"  # the trainer writes it last into a state; of a finished adapter it stays
WARM = 0.05  # of the steps, in which the learning rate rises
NOT_LEARNT = -100  # a label that the loss leaves out
Batch = dict[str, torch.Tensor]
T = TypeVar("T")
Say = Callable[[str], object]
Told = Callable[[int, float], object]  # is told of a step, and its loss


def learning(net: Any, settings: TrainSettings) -> Any:
    """Return a model with what learns: itself, or a LoRA adapter over it."""
    if settings.method == "full":
        return net.requires_grad_(True)
    rank = settings.rank
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(net, lora)


def first(work: Callable[[], T]) -> T:
    """Do a piece of work in the first process; return what it gives, in all."""
    found: list[T] = broadcast_object_list([work() if PartialState().is_main_process else None])
    return found[0]


def train_adapter(plan: Plan, job: Job, told: Told, say: Say) -> None:
    """Train an adapter from its last state on, and put it into its place; of several processes, the first one writes.

    Raises:
        UserError: the base model cannot be loaded, or a row is longer than it reads.
        KeyboardInterrupt: it was asked for, and the state is kept; or the adapter is finished.
    """
    clear_device_cache(garbage_collection=True)  # the parts of the last training hold each other, and its model
    settings, device = plan.settings, find_device(plan.settings.device)
    full, work = settings.method == "full", job.work(settings.out)
    with PartialState().main_process_first():
        # All weights learn in float32, whatever the model computes in: small steps would be lost in bfloat16.
        base = load_base(plan.base, torch.float32 if full else find_dtype(settings.dtype, device), device)
    plan.checkpoint.check_unchanged(BASE)
    judge = None if settings.eval_every is None else Judge(settings, job, None if full else share(base))
    set_seed(text_key(f"{settings.seed} {job.name}") % 2**32)
    state, watch = first(partial(last_state, work)), _Watch(told)
    with quiet(), ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, watch.stop))
        model = learning(base, settings)
        if not full:
            config = model.peft_config["default"]
            config.base_model_name_or_path = _base_named(settings, job)
            config.target_modules = sorted(config.target_modules)  # a set: in another order each time
        together = keeps_rows_apart(model, job[0])
        trainer = PackedTrainer(
            model,
            _arguments(settings, job, base),
            train_dataset=job,
            eval_dataset=job,
            data_collator=lambda items: pack(items[0], together=together),
            callbacks=[watch],
        )
        trainer.judge, trainer.say, trainer.base = judge, say, plan.base if full else None
        if unless_full(partial(trainer.train, resume_from_checkpoint=state and str(state))) is None:
            raise UserError(
                f"memory ran out: {settings.device_tokens:,} tokens of rows at once are too many",
                where=str(device),
                next_step="a smaller device_tokens in table [train]; the same command goes on from the last state",
            )
    if trainer.early or trainer.state.global_step >= job.steps:
        history = trainer.state.log_history
        step = best(history)["step"] if judge else job.steps
        first(partial(_finish, trainer.state, work, step, Path(settings.out, job.name)))
        for line in judge.curve(history) if judge else ():
            say(line)
    if watch.asked:
        raise KeyboardInterrupt


def _base_named(settings: TrainSettings, job: Job) -> str:
    """Return what an adapter calls its base model: one that lies in the same folder is moved with it."""
    if not os.path.isdir(settings.base_model):
        return settings.base_model
    base, out = Path(settings.base_model).resolve(), Path(settings.out).resolve()
    return os.path.relpath(base, out / job.name) if base.is_relative_to(out) else str(base)


def pack(rows: Sequence[Spelled], *, together: bool = True, width: int = 0) -> Batch:
    """Return rows as ``input_ids``, ``position_ids`` and ``labels``, shape (lines, width of the longest row).

    Of a line, where rows stand ``together``, none sees another: positions begin at 0 in each row, from which the
    library's models know them. What is left of a line is one row more, of which nothing is learnt.
    """
    width = max(width, *map(size_of, rows))
    lines, free = list[list[Spelled]](), list[int]()
    for row in sorted(rows, key=size_of, reverse=True):  # the longest first, each into the line that it fills best
        fits = [line for line, room in enumerate(free) if room >= size_of(row)] if together else []
        if not fits:
            fits = [len(lines)]
            lines.append([])
            free.append(width)
        line = min(fits, key=free.__getitem__)
        lines[line].append(row)
        free[line] -= size_of(row)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "position_ids": [], "labels": []}
    for members, rest in zip(lines, free, strict=True):
        whole = [*members, ([0] * rest, [])]
        batch["input_ids"].append([token for prompt, answer in whole for token in (*prompt, *answer)])
        batch["position_ids"].append([place for row in whole for place in range(size_of(row))])
        batch["labels"].append([label for prompt, answer in whole for label in (*[NOT_LEARNT] * len(prompt), *answer)])
    return {name: torch.tensor(values) for name, values in batch.items()}


def keeps_rows_apart(model: Any, rows: list[Spelled]) -> bool:
    """Tell whether rows of a line do not see each other, in this model: its logits are those of each row alone.

    Models of some kinds, such as recurrent ones, do not look at positions for that; their rows get a line each.
    """
    pair = [([*prompt, *answer][:24], answer[:8]) for prompt, answer in (rows[0], rows[-1])]
    pair.sort(key=size_of, reverse=True)  # as they stand in a line
    model.eval()
    with torch.inference_mode():
        packed, _ = learnt_logits(model, pack(pair, width=sum(map(size_of, pair))))
        alone = torch.cat([learnt_logits(model, pack([row]))[0] for row in pair])
    model.train()
    least = (SAME if model.dtype == torch.float32 else ABOUT) * alone.abs().max()
    return bool((packed - alone).abs().max() <= least)


def learnt_logits(net: Any, batch: Batch, called: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits that predict what is learnt, shape (tokens, vocabulary), and these tokens.

    Only these go through the vocabulary projection, of whose logits most memory is made; ``called`` as ``logits_at``.
    """
    ids, positions, labels = (batch[name].to(net.device) for name in ("input_ids", "position_ids", "labels"))
    places = (labels.flatten() != NOT_LEARNT).nonzero().squeeze(1)
    found = logits_at(net, places - 1, called=called, input_ids=ids, position_ids=positions, use_cache=False)
    return found, labels.flatten()[places]


class PackedTrainer(Trainer):  # type: ignore[misc]
    """The library's trainer over batches as ``pack`` makes them; evaluation is a ``Judge``'s."""

    control: Any
    judge: Any  # a ``Judge``, if anything is asked on the way
    say: Say  # is told of each evaluation
    base: Path | None = None  # where the tokenizer is that stands beside the weights; None beside an adapter
    early = False  # whether training has ended because the best evaluation is too long ago
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.model_accepts_loss_kwargs = True  # so labels are counted, over a step in all processes
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the loss of a part of a step: its sum, over the labels of the whole step in all processes."""
        logits, labels = learnt_logits(self.model, inputs, model)
        # The gradients of several processes are averaged, not added.
        return cross_entropy(logits.float(), labels, reduction="sum") * self.args.world_size / num_items_in_batch

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter, or the model with its tokenizer; nothing else, and no look at the Hub."""
        if output_dir is None or not self.args.should_save:
            return
        base = self.base
        self.model.save_pretrained(output_dir, **({} if base else {"save_embedding_layers": False}))
        # As they are: saved anew, a tokenizer may get names that earlier versions of its library do not know.
        for name in (*TOKENIZER, CHAT_TEMPLATE):
            if base and (base / name).is_file():
                shutil.copyfile(base / name, Path(output_dir, name))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Evaluate; whether a state is written, and whether training ends, depends on what comes out."""
        with torch.random.fork_rng():  # training goes on as if nobody had asked
            found = first(lambda: self.judge.ask(self.state.global_step, self.save_model, self.say))
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self.early = self.judge.enough(self.state.log_history)
        self.control.should_training_stop |= self.early
        self.control.should_save = not self.early  # none that knows of the end: after a kill it comes again
        return found


def _arguments(settings: TrainSettings, job: Job, base: Any) -> TrainingArguments:
    more: dict[str, Any] = {}
    if settings.eval_every is not None:  # the best state is kept beside the last ones
        more = {"eval_strategy": "steps", "eval_steps": settings.eval_every, "metric_for_best_model": "accuracy"}
    arguments = TrainingArguments(
        str(job.work(settings.out)),
        max_steps=job.steps,
        per_device_train_batch_size=1,  # an item is a batch
        gradient_accumulation_steps=job.parts // PartialState().num_processes,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(WARM * job.steps),
        weight_decay=0.0,
        bf16=find_dtype(settings.dtype, base.device) == torch.bfloat16,
        use_cpu=base.device.type == "cpu",
        ddp_find_unused_parameters=has_experts(base.config.get_text_config()),
        save_steps=settings.save_every,
        save_total_limit=2,  # one is whole while the other is written
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=settings.seed % 2**32,
        **more,
    )
    if arguments.n_gpu > 1:  # the library would spread each batch over all of them
        arguments._n_gpu = 1
    return arguments


def last_state(work: Path) -> Path | None:
    """Return the last whole state of a training, if there is one; what is behind it goes."""
    for state in sorted(work.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        with suppress(OSError, ValueError):
            json.loads((state / STATE).read_bytes())
            return state
        shutil.rmtree(state)
    return None


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Tells of steps, and stops after the one at which Ctrl-C was typed."""

    def __init__(self, told: Told) -> None:
        self.told, self.asked = told, False

    def stop(self, *_: object) -> None:
        """End the training after its step, at the first Ctrl-C or SIGTERM; at the second one at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.asked = any(gather_object([self.asked]))
        if self.asked:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and "loss" in state.log_history[-1]:
            self.told(state.global_step, state.log_history[-1]["loss"])


def _finish(state: TrainerState, work: Path, step: int, target: Path) -> None:
    """Give the adapter of a step its place; of the states the trainer's history stays."""
    state.save_to_json(str(work / STATE))
    new = work / "adapter"
    shutil.rmtree(new, ignore_errors=True)
    left = shutil.ignore_patterns("*.pt*", STATE, "README.md")
    # Contents alone: safetensors keeps its files from other users.
    shutil.copytree(work / f"checkpoint-{step}", new, ignore=left, copy_function=shutil.copyfile)
    for path in new.iterdir():
        atomic.sync(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new.rename(target)
    atomic.sync(target.parent)
    for path in (*work.glob("checkpoint-*"), work / "asked"):
        shutil.rmtree(path, ignore_errors=True)
