"""Measures training: tokens of rows that ``caef-data train`` learns from in a second, and TRL on the same rows.

    python benchmarks/train.py            medians of 3 runs: about 10 minutes on 2 cores
    python benchmarks/train.py --small    a small model: tries the script, its numbers say nothing

Rows: single steps of additions, operands of 1..100 digits of each length alike, 8 a step. The model is a Llama of 25
million random weights, a token is a character; both sides train the same LoRA matrices of rank 16 with AdamW, in
float32 on the CPU, on the same 8 rows at each step. TRL's side is ``SFTTrainer`` as its documentation starts it: rows
that are tokens already, padded to the longest of the 8. The two are measured in turn, A B A B, each from the end of its
first step to the end of its last; a ratio is that of their medians. The ratio of the processor's time, which other work
on the machine disturbs less, stands in the details. Their first losses are compared: they must learn
the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from build import Goal, Result, machine, spread, table
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer
from winners import save_llama

from caef_data.eval.backends.load import quiet
from caef_data.eval.training.loop import learning, train_adapter
from caef_data.eval.training.plan import make_plan
from caef_data.eval.training.rows import Stage
from caef_data.eval.training.settings import train_settings
from datasets import Dataset

ROWS = 8  # of a step
Clocks = tuple[float, ...]  # seconds: of the wall clock, of the processor
Run = tuple[Clocks, float]
GOAL = Goal("real tokens/s of training, add one_step 1..100, batch 8, CPU: train / TRL, padded", 1.3, 1.5, least=True)
DECLARATION = """
max = {longest}
[[task]]
task = "add"
[train]
base_model = "{base}"
which = "executors"
stages = ["second"]
device = "cpu"
steps = {steps}
"""


class Size(NamedTuple):
    """A Llama, the longest operand, and the steps of a run."""

    width: int
    layers: int
    longest: int
    steps: int


FULL, SMALL = Size(512, 8, 100, 7), Size(64, 2, 8, 3)


class Bench:
    """Measures in ``folder``."""

    def __init__(self, size: Size, folder: Path) -> None:
        self.size, self.folder = size, folder
        base = folder / "base"
        with quiet():
            self.tokenizer = save_llama(base, size.width, size.layers)
        declaration = folder / "bench.toml"
        declaration.write_text(DECLARATION.format(longest=size.longest, base=base, steps=size.steps))
        self.plan = make_plan(*train_settings(str(declaration)))
        [job] = self.plan.jobs
        [stage] = job.stages
        job.stages, job.parts = [Stage(stage.name, size.steps, ROWS, 0, stage.mean, stage.longest)], 1
        self.rows = [job[step] for step in range(size.steps)]
        # What is timed begins behind the first step.
        self.tokens = sum(len(prompt) + len(answer) for step in self.rows[1:] for prompt, answer in step)

    def ours(self) -> Run:
        """Train; return what the steps behind the first one took, and the first loss."""
        times, losses = list[Clocks](), list[float]()

        def told(step: int, loss: float) -> None:
            times.append((time.perf_counter(), time.process_time()))
            losses.append(loss)

        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            plan = self.plan._replace(settings=replace(self.plan.settings, out=work))
            train_adapter(plan, plan.jobs[0], told, print)
        return tuple(end - begin for begin, end in zip(times[0], times[-1], strict=True)), losses[0]

    def theirs(self) -> Run:
        """Train with TRL; return the same."""
        times, losses = list[Clocks](), list[float]()

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_log(self, _: Any, __: Any, ___: Any, logs: dict[str, Any] | None = None, **____: Any) -> None:
                if logs and "loss" in logs:
                    times.append((time.perf_counter(), time.process_time()))
                    losses.append(logs["loss"])

        class InOrder(SFTTrainer):  # type: ignore[misc]
            def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
                return SequentialSampler(self.train_dataset)

        pairs = [row for step in self.rows for row in step]
        rows = [{"input_ids": [*prompt, *answer], "labels": [-100] * len(prompt) + answer} for prompt, answer in pairs]
        with tempfile.TemporaryDirectory(dir=self.folder) as work, quiet():
            torch.manual_seed(0)
            model = learning(AutoModelForCausalLM.from_pretrained(self.plan.base), self.plan.settings)
            options: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}
            options |= {"use_cpu": True, "bf16": False, "max_length": None, "logging_steps": 1}
            options |= {"max_steps": self.size.steps, "per_device_train_batch_size": ROWS}
            options |= {"learning_rate": self.plan.settings.learning_rate, "gradient_checkpointing": False}
            trainer = InOrder(
                model,
                SFTConfig(work, **options),
                train_dataset=Dataset.from_list(rows),
                processing_class=self.tokenizer,
                callbacks=[Watch()],
            )
            trainer.train()
        return tuple(end - begin for begin, end in zip(times[0], times[-1], strict=True)), losses[0]

    def compare(self, repeat: int) -> Result:
        sides: dict[str, Callable[[], Run]] = {"train": self.ours, "TRL": self.theirs}
        times: dict[str, list[float]] = {name: [] for name in sides}
        worked: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeat):
            first = {}
            for name, work in sides.items():
                with redirect_stdout(sys.stderr):
                    (seconds, busy), first[name] = work()
                times[name].append(seconds)
                worked[name].append(busy)
                print(f"{name}: {self.tokens / seconds:,.0f} tokens/s, {busy:.3g} s of the processor", file=sys.stderr)
            if abs(first["train"] - first["TRL"]) > 1e-3 * first["TRL"]:
                raise SystemExit(f"they do not learn the same: {first}")
        parts = [
            f"{name} {self.tokens / median(found):,.0f} tokens/s, {spread(found)}" for name, found in times.items()
        ]
        ratio, of_processor = (median(found["TRL"]) / median(found["train"]) for found in (times, worked))
        parts += [f"in the processor's time {of_processor:.3g} x"]
        return Result("train", ratio, "; ".join([f"{self.tokens:,} tokens", *parts]), times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training beside TRL; prints a Markdown table.")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each side (3)")
    parser.add_argument("--small", action="store_true", help="a small model, to try the script")
    parser.add_argument("--json", type=Path, help="write the results there too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caef-bench-") as folder:
        result = Bench(SMALL if chosen.small else FULL, Path(folder)).compare(max(1, chosen.repeat))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    where = f"{machine()}, {packages}, {torch.get_num_threads()} threads"
    print(f"{table([result], {'train': GOAL})}\n\n{where}; medians of {chosen.repeat} runs (min..max).")
    if chosen.json:
        row = GOAL._asdict() | result._asdict() | {"reached": result.reached(GOAL)}
        chosen.json.write_text(json.dumps({"machine": where, "repeat": chosen.repeat, "rows": [row]}, indent=1))


if __name__ == "__main__":
    main()
