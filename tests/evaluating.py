"""Evaluations without a model: what errs at some prompts, and what runs and reads an evaluation."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from caef_data.eval.agenda import Agenda, write_agenda
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import Answer, Ask, Backend, Call, Verdict
from caef_data.eval.evaluate import Share, decode_failures, evaluate
from caef_data.eval.kept import Kept
from caef_data.eval.rollout import roll_out
from caef_data.eval.runs import MODES, read_problems
from caef_data.eval.session import Session, agenda_of, one_at_a_time, run
from caef_data.eval.settings import EvalSettings
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.plan import make_plan

OPERATORS = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than")


def wrong_at_times(adapter: str, prompt: str, answer: str) -> str:
    """Err at about one prompt in forty: another digit, a line too many or too few, nothing, a call to nowhere."""
    key = hashlib.sha256(f"{adapter}{prompt}".encode()).digest()
    if key[0] >= 7:
        return answer
    damaged = (
        answer.replace("1", "2", 1) + ("" if "1" in answer else "x"),
        answer + "\n",
        answer[:-1],
        "",
        answer.replace("REFLECTION", "NOWHERE") + " ",
        "\n".join(answer.split("\n")[:2]) + "\n..\n/x, q0, |1\n",
    )
    return damaged[key[1] % len(damaged)]


class Counting(OracleBackend):
    """Counts what it is asked; can be told to break down."""

    def __init__(self, *, change: Any = wrong_at_times, fail_after: int | None = None) -> None:
        super().__init__(change)
        self.asked: list[tuple[str, str]] = []
        self.switches: list[str] = []
        self.fail_after = fail_after

    def verify(self, adapter: str, calls: Sequence[Call]) -> Iterator[tuple[int, Verdict]]:
        self.switches.append(adapter)
        for index, verdict in super().verify(adapter, calls):
            if self.fail_after is not None and len(self.asked) >= self.fail_after:
                raise KeyboardInterrupt
            self.asked.append((adapter, calls[index].prompt))
            yield index, verdict

    def decode(self, adapter: str, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer]]:
        self.switches.append(adapter)
        yield from super().decode(adapter, asks)


def build_short(out: Path, num: int) -> Path:
    """Build every task on operands of one and two digits."""
    build(make_plan(from_flags(["all"], min=1, max=2, num=num, num_test=num)), out, workers=1)
    return out


def agenda_of_all(data: Path, folder: Path, problems: int | None, tasks: Sequence[str] = OPERATORS) -> Agenda:
    """Write the agenda of the operators in all modes, some problems each."""
    pairs = [(task, mode) for task in tasks for mode in MODES]
    found = (one for task, mode in pairs for one in read_problems(Folder(data), task, mode, "test", problems))
    return write_agenda(folder / "agenda", found)


def judge(agenda: Agenda, folder: Path, strategy: str, backend: Backend) -> tuple[Kept, Any]:
    kept, finals = Kept(folder / "kept", agenda.num_calls), None
    common: dict[str, Any] = {"share": Share(), "progress": lambda kept: None}
    if strategy == "rollout":
        finals = roll_out(agenda, kept, backend, known=agenda.adapters, **common).right
        decode_failures(agenda, kept, backend, **common)
    else:
        evaluate(agenda, kept, backend, verify=strategy == "verify", **common)
    kept.flush()
    return kept, finals


def settings(data: Path, out: Path, **more: Any) -> EvalSettings:
    return EvalSettings(data=str(data), out=str(out), backend="oracle", **more)


def finish(session: Session, backend: OracleBackend) -> Any:
    with one_at_a_time(session):
        return run(session, agenda_of(session, Share()), backend, Share(), lambda kept: None, "caef-data eval")


def tables_of(session: Session) -> dict[str, list[dict[str, Any]]]:
    tables = session.tables
    found = {}
    for table in ("calls", "class_accuracy", "problems", "failures"):
        parts = [tables.read_part(table, part) for part in tables.parts(table)]
        rows = [row for part in parts if part is not None for row in part.to_pylist()]
        found[table] = sorted(rows, key=str)
    return found
