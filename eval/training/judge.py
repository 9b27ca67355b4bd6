"""Evaluation while an adapter is trained: our own, into the result tables, a run for each; the best adapter is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ... import atomic
from ...errors import UserError, printable_path
from ..console import evaluate
from ..score import Rank
from ..session import prepare
from ..settings import EvalSettings
from .settings import TrainSettings

MODES = {"executors": ("one_step",), "aligners": ("aligner_in", "aligner_out")}
NOTES, CURVE = "evaluations.json", "curve.json"
GROUPS = 10  # of lengths, in a curve
WIDTH = 20  # of a bar


@dataclass(frozen=True)
class Judge:
    """What evaluates an adapter on held-out rows of its task.

    Args:
        settings: of the training.
        name: of the adapter or model.
        pairs: kind and task of what it is asked.
        work: the folder of the training's states.
        patient_from: the step from which on patience counts.
        net: the base model; None where it learns itself, and is read from its folder.
    """

    settings: TrainSettings
    name: str
    pairs: tuple[tuple[str, str], ...]
    work: Path
    net: Any = None
    patient_from: int = 0

    @property
    def best(self) -> Path:
        """Where the best adapter so far lies."""
        new = self.work / "best"
        return new if new.exists() else self.work / "best.old"

    def check(self) -> None:
        """Refuse a dataset without the rows that are asked, or with others than before; raises ``UserError``."""
        try:
            rows = prepare(self._asked(backend="oracle")).folder.manifest()["identity"]
        except UserError as error:
            next_step = "build it first: caef-data build, or leave out eval_every"
            raise UserError(error.what, where=error.where, allowed=error.allowed, next_step=next_step) from None
        before, _ = self._known()
        if before not in (None, rows):
            raise UserError(
                f"{self.name}: the dataset is not the one that this training's evaluations asked before it stopped",
                where=printable_path(self.settings.data),
                allowed="the same rows, wherever they lie",
                next_step="build it as it was, or choose another folder with --out",
            )

    def _known(self) -> tuple[str | None, dict[int, float]]:
        """Return the identity of the dataset that was asked, and the accuracy after each step."""
        path = self.work / NOTES
        rows, known = json.loads(path.read_text("utf-8")) if path.exists() else (None, [])
        return rows, {int(step): float(share) for step, share in known}

    def _asked(self, **more: Any) -> EvalSettings:
        own, kinds = self.settings, {kind for kind, _ in self.pairs}
        tasks = tuple(dict.fromkeys(task for _, task in self.pairs))
        modes = tuple(mode for kind in MODES if kind in kinds for mode in MODES[kind])
        more |= {"data": own.data, "limit": own.eval_limit, "out": own.results, "stage": own.stages[-1]}
        return EvalSettings(task=tasks, mode=modes, **more)

    def judge(self, step: int, save: Callable[[Path], None], say: Callable[[str], object]) -> bool:
        """Evaluate the adapter as it is after a step; tell whether it is time to stop.

        Args:
            step: the step.
            save: writes the adapter into a folder.
            say: is told the accuracy, whole and by length.
        """
        own, asked = self.settings, self.work / "asked"
        shutil.rmtree(asked, ignore_errors=True)
        folder = asked / self.name
        save(folder)
        name = f"{self.name.replace('/', '-')}-step-{step}"
        of_model = {"model": str(folder)} if own.method == "full" else {"adapters": str(asked)}
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
        told = ", ".join(
            f"{length}: {count[0] / count[1]:.1%}" for length, count in sorted(lengths.items()) if count[1]
        )
        say(f"{name}: {right / max(1, every):.2%} of {every:,} right; by digits {told}")
        known = self._known()[1]
        self._keep(known, step, right / max(1, every), folder, lengths)
        atomic.put(
            self.work / NOTES, json.dumps([session.folder.manifest()["identity"], sorted(known.items())]).encode()
        )
        first = min(at for at, share in known.items() if share == max(known.values()))
        since = sum(max(first, self.patient_from) < at <= step for at in known)
        return own.patience is not None and since >= own.patience

    def _keep(
        self, known: dict[int, float], step: int, accuracy: float, folder: Path, lengths: dict[int, list[int]]
    ) -> None:
        """Keep the adapter if it is the best so far; at each moment a whole one lies there."""
        if all(accuracy > right for at, right in known.items() if at != step):
            new, old = self.work / "best", self.work / "best.old"
            if new.exists():
                shutil.rmtree(old, ignore_errors=True)
                new.rename(old)
            folder.rename(new)
            shutil.rmtree(old, ignore_errors=True)
            known[step] = accuracy
            atomic.put(self.work / CURVE, json.dumps([step, sorted(lengths.items())]).encode())
        # Of a step that is done again after a stop, the better one is remembered: it may be the adapter that is kept.
        known[step] = max(accuracy, known.get(step, 0.0))

    def curve(self, longest: int) -> Iterator[str]:
        """Yield lines that show the accuracy of what is kept by the digits of operands.

        Args:
            longest: digits that were learnt; what is longer stands apart.
        """
        step, lengths = json.loads((self.work / CURVE).read_text("utf-8"))
        yield f"{self.name} as after step {step}, right by digits (learnt: up to {longest}):"
        asked = [(length, right, every) for length, (right, every) in lengths if every]
        for beyond in ("", "  longer than learnt"):
            chosen = [one for one in asked if (one[0] > longest) == bool(beyond)]
            size = -(-len(chosen) // GROUPS)
            for part in (chosen[place : place + size] for place in range(0, len(chosen), size or 1)):
                first, last, every = part[0][0], part[-1][0], sum(count for _, _, count in part)
                share = sum(right for _, right, _ in part) / every
                name = f"{first}" if first == last else f"{first}-{last}"
                yield f"  {name:>9} {share:7.1%} of {every:>6,} {'#' * round(WIDTH * share):<{WIDTH}}{beyond}".rstrip()
