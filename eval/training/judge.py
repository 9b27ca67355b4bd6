"""Evaluation while an adapter is trained: our own, into the result tables, a run for each; the best adapter is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...errors import UserError
from ..backends.ranks import Rank
from ..console import evaluate
from ..session import prepare
from ..settings import EvalSettings
from .rows import Pairs
from .settings import TrainSettings

MODES = {"executors": ("one_step",), "aligners": ("aligner_in", "aligner_out")}
GROUPS = 10  # of lengths, in a curve
WIDTH = 20  # of a bar
Evaluation = dict[
    str, Any
]  # step, accuracy, lengths: of each length its digits, how many are right, how many there are


@dataclass(frozen=True)
class Judge:
    """What evaluates an adapter on held-out rows of its task.

    Args:
        settings: of the training.
        name: of the adapter or model.
        pairs: kind and task of what it is asked.
        work: the folder of the training's states.
        net: the base model; None where it learns itself, and is read from its folder.
        patient_from: the step from which on patience counts.
    """

    settings: TrainSettings
    name: str
    pairs: Pairs
    work: Path
    net: Any = None
    patient_from: int = 0

    def rows(self) -> str:
        """Return the identity of the dataset that is asked.

        Raises:
            UserError: it is not there, or lacks the rows.
        """
        try:
            identity: str = prepare(self._asked(backend="oracle")).folder.manifest()["identity"]
        except UserError as error:
            next_step = "build it first: caef-data build, or leave out eval_every"
            raise UserError(error.what, where=error.where, allowed=error.allowed, next_step=next_step) from None
        return identity

    def _asked(self, **more: Any) -> EvalSettings:
        own, kinds = self.settings, {kind for kind, _ in self.pairs}
        tasks = tuple(dict.fromkeys(task for _, task in self.pairs))
        modes = tuple(mode for kind in MODES if kind in kinds for mode in MODES[kind])
        more |= {"data": own.data, "limit": own.eval_limit, "out": own.results, "stage": own.stages[-1]}
        return EvalSettings(task=tasks, mode=modes, **more)

    def judge(
        self, history: list[Evaluation], step: int, save: Callable[[Path], None], say: Callable[[str], object]
    ) -> bool:
        """Evaluate the adapter as it is after a step; tell whether it is time to stop.

        Args:
            history: of the training's states; gets this evaluation.
            step: the step.
            save: writes the adapter into a folder.
            say: is told the accuracy, whole and by length.
        """
        own, asked = self.settings, self.work / "asked"
        shutil.rmtree(asked, ignore_errors=True)
        save(asked / self.name)
        name = f"{self.name.replace('/', '-')}-step-{step}"
        of_model = {"model": str(asked / self.name)} if own.method == "full" else {"adapters": str(asked)}
        of_model |= {} if own.method == "full" else {"base_model": own.base_model}
        settings = self._asked(name=name, template=own.template, device=own.device, dtype=own.dtype, **of_model)
        session, _ = evaluate(settings, Console(quiet=True), settings.command, rank=Rank(), net=self.net)
        classes = session.tables.read_classes()
        if classes is None:
            raise UserError("the tables of this evaluation are gone", where=own.results)
        lengths: dict[int, list[int]] = {}
        for row in classes.to_pylist():
            count = lengths.setdefault(max(row["len_a"], row["len_b"] or 0), [0, 0])
            count[0] += row["correct"]
            count[1] += row["n"]
        right, every = (sum(count[at] for count in lengths.values()) for at in (0, 1))
        counts = [(length, right, every) for length, (right, every) in sorted(lengths.items()) if every]
        told = ", ".join(f"{length}: {right / every:.1%}" for length, right, every in counts)
        say(f"{name}: {right / max(1, every):.2%} of {every:,} right; by digits {told}")
        self.keep(history, {"step": step, "accuracy": right / max(1, every), "lengths": counts}, asked / self.name)
        first = max(self.best(history)["step"], self.patient_from)
        since = sum(first < one["step"] for one in _evaluations(history))
        return own.patience is not None and since >= own.patience

    def best(self, history: list[Evaluation]) -> Evaluation:
        """Return the best evaluation, of equals the first."""
        return max(_evaluations(history), key=lambda one: one["accuracy"])

    def kept(self, history: list[Evaluation]) -> Path:
        """Return where the best adapter lies."""
        return self.work / f"best-{self.best(history)['step']}"

    def keep(self, history: list[Evaluation], evaluation: Evaluation, folder: Path) -> None:
        """Note an evaluation, and keep its adapter if it is the best so far.

        What was the best before stays until a state knows of this one: after a kill, training goes on from the former.
        """
        history.append(evaluation)
        if self.best(history) is evaluation:
            shutil.rmtree(self.kept(history), ignore_errors=True)
            folder.rename(self.kept(history))

    def forget(self, history: list[Evaluation]) -> None:
        """Remove what is not the best any more."""
        for folder in self.work.glob("best-*"):
            if not _evaluations(history) or folder != self.kept(history):
                shutil.rmtree(folder)

    def curve(self, history: list[Evaluation], longest: int) -> Iterator[str]:
        """Yield lines that show the accuracy of what is kept by the digits of operands.

        Args:
            history: of the training.
            longest: digits that were learnt; what is longer stands apart.
        """
        best = self.best(history)
        yield f"{self.name} as after step {best['step']}, right by digits (learnt: up to {longest}):"
        for beyond in ("", "  longer than learnt"):
            chosen = [one for one in best["lengths"] if (one[0] > longest) == bool(beyond)]
            size = -(-len(chosen) // GROUPS)
            for part in (chosen[place : place + size] for place in range(0, len(chosen), size or 1)):
                first, last, every = part[0][0], part[-1][0], sum(count for _, _, count in part)
                share = sum(right for _, right, _ in part) / every
                name = f"{first}" if first == last else f"{first}-{last}"
                yield f"  {name:>9} {share:7.1%} of {every:>6,} {'#' * round(WIDTH * share):<{WIDTH}}{beyond}".rstrip()


def _evaluations(history: list[Evaluation]) -> list[Evaluation]:
    return [one for one in history if "accuracy" in one]
