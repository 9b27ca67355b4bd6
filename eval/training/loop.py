"""Trains one adapter: the library's Trainer over packed rows, exact after a kill, stopped by Ctrl-C without a loss."""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from ... import atomic
from ...errors import UserError
from ...pipelines.sampling.random import text_key
from ..backends.device import find_device, find_dtype
from ..backends.load import ABOUT, SAME, load_base, quiet, share, unless_full
from ..backends.local import has_experts
from ..files import CHAT_TEMPLATE, CONFIG, TOKENIZER
from .judge import Judge
from .packing import NOT_LEARNT, Batch, pack
from .team import Team

if TYPE_CHECKING:
    from .plan import Plan
    from .rows import Job
    from .settings import TrainSettings

WHOLE = (
    "whole"  # a file that is written last into a state: one without it was being written when the process was killed
)
WARM = 0.05  # of the steps, in which the learning rate rises
LOG = "losses.jsonl"
Say = Callable[[str], object]
Told = Callable[[dict[str, Any]], None]  # is told of a step: step, loss, learning_rate


def learning(net: Any, settings: TrainSettings) -> Any:
    """Return a model with what learns: itself, or a LoRA adapter over it."""
    if settings.method == "full":
        return net.requires_grad_(True)
    rank = settings.rank
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(net, lora)


def train_adapter(plan: Plan, job: Job, work: Path, target: Path, told: Told, say: Say, team: Team) -> None:
    """Train an adapter from its last state on, and put it into its place.

    Args:
        plan: the training.
        job: the adapter.
        work: the folder of its states; it goes when the adapter is finished, but for the losses.
        target: where the adapter belongs.
        told: is told of each step.
        say: is told of each evaluation.
        team: the processes that train it together; the first one writes.

    Raises:
        UserError: the base model cannot be loaded, or a row is longer than it reads.
        KeyboardInterrupt: it was asked for, and the state is kept; or the adapter is finished.
    """
    settings, device = plan.settings, find_device(plan.settings.device)
    # All weights learn in float32, whatever the model computes in: small steps would be lost in bfloat16.
    full = settings.method == "full"
    dtype = torch.float32 if full else find_dtype(settings.dtype, device)
    base = team.together(lambda: load_base(plan.base, dtype, device))
    judge = None
    if settings.eval_every is not None:
        last = sum(stage.steps for stage in job.stages[:-1])  # what the first stage learns is asked without it
        judge = Judge(settings, job.name, job.pairs, work, None if full else share(base), last)
    set_seed(text_key(f"{settings.seed} {job.name}") % 2**32)
    with quiet():
        model = learning(base, settings)
    together = keeps_rows_apart(model, job[0])
    state = team.first(partial(last_state, work))
    callback = _Watch(work, told, judge, say, partial(_save, model, plan, job, target), team)
    with quiet(), callback.catching():
        trainer = PackedTrainer(
            model,
            _arguments(plan, job, work, model, team),
            team=team,
            train_dataset=job,
            data_collator=lambda items: pack(items[0], together=together),
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)
        if unless_full(partial(trainer.train, resume_from_checkpoint=state and str(state))) is None:
            raise UserError(
                f"memory ran out: {settings.device_tokens:,} tokens of rows at once are too many",
                where=str(device),
                next_step="a smaller device_tokens in table [train]; the same command goes on from the last state",
            )
        # Of a training that was killed while its adapter was put in place, no step is left.
        if callback.finished or trainer.state.global_step >= job.steps:
            team.first(partial(_finish, callback, trainer.state.log_history, job, target))
    trainer.accelerator.free_memory()
    asked = callback.asked
    del base, model, judge, trainer, callback
    gc.collect()  # the trainer and its parts hold each other, and the model: the next adapter needs the room
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if asked:
        raise KeyboardInterrupt


def keeps_rows_apart(model: Any, rows: list[Any]) -> bool:
    """Tell whether rows of a line do not see each other, in this model: its logits are those of each row alone.

    Models of some kinds, such as recurrent ones, do not look at positions for that; their rows get a line each.
    """
    pair = [([*prompt, *answer][:24], answer[:8]) for prompt, answer in (rows[0], rows[-1])]
    pair.sort(key=lambda row: -len(row[0]) - len(row[1]))  # as they stand in a line
    model.eval()
    with torch.inference_mode():
        packed = _logits(model, pack(pair, width=sum(len(prompt) + len(answer) for prompt, answer in pair)))
        alone = torch.cat([_logits(model, pack([row])) for row in pair])
    model.train()
    least = (SAME if model.dtype == torch.float32 else ABOUT) * alone.abs().max()
    return bool((packed - alone).abs().max() <= least)


def _logits(model: Any, batch: Batch, within: Any = None) -> torch.Tensor:
    """Return the logits at the positions that are learnt, shape (positions, vocabulary).

    Only these go through the vocabulary projection, of whose logits most memory is made. A hook before the projection
    keeps right what follows it: scaling, capping. ``within``: the model, where ``model`` is what calls it.
    """
    within = model if within is None else within
    index = (batch["labels"].flatten() != NOT_LEARNT).nonzero().squeeze(1)

    def gather(_: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (args[0].flatten(0, 1)[index.to(args[0].device)].unsqueeze(0),)

    handle = within.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        inputs = {name: batch[name].to(within.device) for name in ("input_ids", "position_ids")}
        found: torch.Tensor = model(**inputs, use_cache=False).logits[0]
    finally:
        handle.remove()
    return found


class PackedTrainer(Trainer):  # type: ignore[misc]
    """The library's trainer over batches as ``pack`` makes them, in their order."""

    def __init__(self, *args: Any, team: Team, **options: Any) -> None:
        super().__init__(*args, **options)
        self.team = team
        # Labels are counted as they are: they stand where their tokens are predicted.
        self.model_accepts_loss_kwargs, self._loss_shifts_labels = True, False
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # of several processes, each takes every size-th item

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        read = self.team.together(lambda: [*islice(epoch_iterator, num_batches)])
        return super().get_batch_samples(iter(read), num_batches, device)

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the loss of a part of a step: its sum, over the labels of the whole step in all processes."""
        labels = inputs["labels"].flatten()
        labels = labels[labels != NOT_LEARNT]
        logits = _logits(model, inputs, self.model).float()
        count = len(labels) if num_items_in_batch is None else num_items_in_batch
        # The gradients of several processes are averaged, not added.
        return cross_entropy(logits, labels.to(logits.device), reduction="sum") * self.team.size / count


def _arguments(plan: Plan, job: Job, work: Path, model: Any, team: Team) -> TrainingArguments:
    settings, steps = plan.settings, job.steps
    arguments = TrainingArguments(
        str(work),
        max_steps=steps,
        per_device_train_batch_size=1,  # an item is a batch
        gradient_accumulation_steps=job.parts // team.size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(WARM * steps),
        weight_decay=0.0,
        bf16=plan.sizes["bytes"] == 2,
        use_cpu=model.device.type == "cpu",
        ddp_find_unused_parameters=has_experts(model.config.get_text_config()),
        save_steps=settings.save_every,
        save_total_limit=2,  # one is whole while the other is written
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=settings.seed % 2**32,
    )
    if arguments.n_gpu > 1:  # the library would spread each batch over all of them
        arguments._n_gpu = 1
    return arguments


def last_state(work: Path) -> Path | None:
    """Return the last whole state of a training, if there is one; what is behind it goes."""
    states = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for state in states:
        if (state / WHOLE).exists():
            return state
        shutil.rmtree(state)
    return None


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Notes losses, marks states that are whole, and stops after the step at which Ctrl-C was typed."""

    def __init__(
        self, work: Path, told: Told, judge: Judge | None, say: Say, save: Callable[[Path], None], team: Team
    ) -> None:
        self.judge, self.say, self.save, self.team = judge, say, save, team
        self.work, self.told, self.asked, self.finished = work, told, False, False

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Let the first Ctrl-C, or SIGTERM, end the training after its step; the second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():  # Python lets no other one do this
            yield
            return
        with ExitStack() as before:

            def stop(*_: object) -> None:
                self.asked = True
                before.close()

            for number in (signal.SIGINT, signal.SIGTERM):
                before.callback(signal.signal, number, signal.signal(number, stop))
            yield

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.team.rank == 0:  # losses of steps that are done again go
            atomic.put(self.work / LOG, "".join(map(_line, state.log_history)).encode())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.finished = state.global_step >= state.max_steps
        if self.judge is not None and (self.finished or state.global_step % self.judge.settings.eval_every == 0):
            with torch.random.fork_rng():  # training goes on as if nobody had asked
                judge = partial(self.judge.judge, state.log_history, state.global_step, self.save, self.say)
                self.finished |= self.team.first(judge)
            control.should_training_stop |= self.finished
        self.asked = self.team.any(self.asked)
        if self.asked and not self.finished:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.team.any(False)  # all have written their share
        if self.team.rank == 0:
            atomic.put(self.work / f"checkpoint-{state.global_step}" / WHOLE, b"")
            if self.judge is not None:
                self.judge.forget(state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        row = state.log_history[-1]
        if self.team.rank == 0 and "loss" in row:
            with (self.work / LOG).open("a", encoding="utf-8") as file:
                file.write(_line(row))
            self.told(row)


def _line(row: dict[str, Any]) -> str:
    """Return a row of the trainer's history as a line of the file of losses; nothing where it tells no loss."""
    names = ("step", "loss", "learning_rate")
    return json.dumps({name: row[name] for name in names}) + "\n" if "loss" in row else ""


def _save(model: Any, plan: Plan, job: Job, target: Path, folder: Path) -> None:
    """Save the adapter, or the model with its tokenizer, into a folder, to be read from where it belongs."""
    shutil.rmtree(folder, ignore_errors=True)
    with quiet():
        model.save_pretrained(str(folder))
    if plan.settings.method == "full":
        # As they are: saved anew, a tokenizer may get names that earlier versions of its library do not know.
        for name in (*TOKENIZER, CHAT_TEMPLATE):
            if (plan.base / name).is_file():
                shutil.copyfile(plan.base / name, folder / name)
    else:
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        named = plan.settings.base_model
        if os.path.isdir(named):  # one that lies in the same folder is moved with it
            root = target.parents[job.name.count("/")].resolve()
            inside = Path(named).resolve().is_relative_to(root)
            named = os.path.relpath(Path(named).resolve(), target.resolve()) if inside else os.path.abspath(named)
        config |= {"base_model_name_or_path": named, "target_modules": sorted(config["target_modules"])}
        atomic.put(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    for path in folder.iterdir():
        atomic.sync(path)


def _finish(watch: _Watch, history: list[dict[str, Any]], job: Job, target: Path) -> None:
    """Put what is kept in its place, and tell how it does beyond the lengths that it learnt."""
    new = watch.work / "adapter" if watch.judge is None else watch.judge.kept(history)
    if watch.judge is None:
        watch.save(new)
    _put(new, watch.work, target)
    if watch.judge is not None:
        for line in watch.judge.curve(history, max(stage.digits for stage in job.stages)):
            watch.say(line)


def _put(new: Path, work: Path, target: Path) -> None:
    """Give a saved adapter its place; its states go."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new.rename(target)
    atomic.sync(target.parent)
    for state in (*work.glob("checkpoint-*"), *work.glob("best*"), *work.glob("asked")):
        shutil.rmtree(state)
