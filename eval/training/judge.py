"""Evaluation while an adapter is trained: our own, into the result tables, a run for each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Console

from ...errors import UserError
from ..backends.ranks import Rank
from ..console import evaluate
from ..session import prepare
from ..settings import EvalSettings
from .rows import Job
from .settings import TrainSettings

MODES = {"executors": ("one_step",), "aligners": ("aligner_in", "aligner_out")}
GROUPS = 10  # of lengths, in a curve
WIDTH = 20  # of a bar
# A row of the trainer's history: step, eval_accuracy, and eval_lengths: digits, how many are right, how many there are.
Evaluation = dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """What evaluates an adapter on held-out rows of its task."""

    settings: TrainSettings
    job: Job
    net: Any = None  # the base model; None where it learns itself, and is read from its folder

    def rows(self) -> str:
        """Return the identity of the dataset that is asked; raise ``UserError`` if it is not there, or lacks rows."""
        return str(prepare(self._asked(backend="oracle")).folder.manifest()["identity"])

    def _asked(self, **more: Any) -> EvalSettings:
        own, pairs = self.settings, self.job.pairs
        modes = tuple(mode for kind in MODES if kind in dict(pairs) for mode in MODES[kind])
        more |= {"data": own.data, "limit": own.eval_limit, "out": own.results, "stage": own.stages[-1]}
        return EvalSettings(task=tuple(dict.fromkeys(task for _, task in pairs)), mode=modes, **more)

    def ask(self, step: int, save: Callable[[str], object], say: Callable[[str], object]) -> Evaluation:
        """Evaluate the adapter, which ``save`` writes into a folder; ``say`` is told the accuracy by length."""
        own, root = self.settings, self.job.work(self.settings.out) / "asked"
        shutil.rmtree(root, ignore_errors=True)
        save(str(root / self.job.name))
        of_model = {"adapters": str(root), "base_model": own.base_model}
        if own.method == "full":
            of_model = {"model": str(root / self.job.name)}
        name = f"{self.job.name.replace('/', '-')}-step-{step}"
        settings = self._asked(name=name, template=own.template, device=own.device, dtype=own.dtype, **of_model)
        session, _ = evaluate(settings, Console(quiet=True), settings.command, rank=Rank(), net=self.net)
        classes = session.tables.read_classes()
        if classes is None:
            raise UserError("the tables of this evaluation are gone", where=own.results)
        counts = pl.DataFrame(classes).group_by(digits=pl.max_horizontal("len_a", "len_b")).agg(pl.sum("correct", "n"))
        lengths = counts.filter(pl.col("n") > 0).sort("digits").rows()
        every = sum(count for *_, count in lengths)
        accuracy = sum(right for _, right, _ in lengths) / max(1, every)
        told = ", ".join(f"{length}: {right / count:.1%}" for length, right, count in lengths)
        say(f"{name}: {accuracy:.2%} of {every:,} right; by digits {told}")
        return {"eval_accuracy": accuracy, "eval_lengths": lengths}

    def enough(self, history: list[Evaluation]) -> bool:
        """Tell whether the best evaluation is too long ago. What the first stage learns is asked without it."""
        since = max(best(history)["step"], self.job.steps - self.job.stages[-1].steps)
        later = sum("eval_accuracy" in row and row["step"] > since for row in history)
        return self.settings.patience is not None and later >= self.settings.patience

    def curve(self, history: list[Evaluation]) -> Iterator[str]:
        """Yield lines that show the accuracy of what is kept by digits; lengths that were not learnt stand apart."""
        kept, longest = best(history), max(stage.digits for stage in self.job.stages)
        yield f"{self.job.name} as after step {kept['step']}, right by digits (learnt: up to {longest}):"
        for beyond in ("", "  longer than learnt"):
            chosen = [row for row in kept["eval_lengths"] if (row[0] > longest) == bool(beyond)]
            size = -(-len(chosen) // GROUPS)
            for part in (chosen[place : place + size] for place in range(0, len(chosen), size or 1)):
                first, last, every = part[0][0], part[-1][0], sum(count for *_, count in part)
                share = sum(right for _, right, _ in part) / every
                name = f"{first}" if first == last else f"{first}-{last}"
                yield f"  {name:>9} {share:7.1%} of {every:>6,} {'#' * round(WIDTH * share):<{WIDTH}}{beyond}".rstrip()


def best(history: list[Evaluation]) -> Evaluation:
    """Return the best evaluation of a history, of equals the first: that of the state which the trainer keeps."""
    return max((row for row in history if "eval_accuracy" in row), key=lambda row: row["eval_accuracy"])
