"""Evaluations without a model: what errs at some prompts, and what runs and reads an evaluation."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from caef_data.eval.backends.choose import make_backend
from caef_data.eval.backends.choose import samples as calls_tried
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.calls import Answer, Backend, Request
from caef_data.eval.problems import MODES, Problems, executor, operands_of, read_problems
from caef_data.eval.results import ResultStore
from caef_data.eval.rollout import roll_out
from caef_data.eval.score import decode_first_wrong, evaluate
from caef_data.eval.session import Session, plan, run
from caef_data.eval.settings import EvalSettings
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.plan import make_plan
from caef_data.tm import machine

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

    def verify_batches(self, adapter: str, calls: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        self.switches.append(adapter)
        for batch in super().verify_batches(adapter, calls):
            most = len(batch) if self.fail_after is None else self.fail_after - len(self.asked)
            self.asked += [(adapter, calls[index].prompt) for index, _ in batch[:most]]
            yield batch[:most]
            if most < len(batch):
                raise KeyboardInterrupt

    def decode_batches(self, adapter: str, asks: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        self.switches.append(adapter)
        yield from super().decode_batches(adapter, asks)


def build_short(out: Path, num: int) -> Path:
    """Build every task on operands of one and two digits."""
    build(make_plan(from_flags(["all"], min=1, max=2, num=num, num_test=num)), out, workers=1)
    return out


def planned_all(data: Path, folder: Path, limit: int | None, tasks: Sequence[str] = OPERATORS) -> Path:
    """Plan the operators in all modes, some problems each; return the file."""
    pairs = [(task, mode) for task in tasks for mode in MODES]
    return planned(folder, *(one for pair in pairs for one in read_problems(Folder(data), *pair, "test", limit)))


def planned(folder: Path, *problems: Problems) -> Path:
    """Plan some problems; return the file."""
    store = ResultStore(folder / "results.sqlite")
    store.plan(problems)
    store.close()
    return store.path


class Asked(NamedTuple):
    """A request, as ``problems.REQUESTS`` has it."""

    adapter: str
    task: str
    kind: str
    state: str | None
    prompt: str
    completion: str


class Sample(NamedTuple):
    """A problem, as ``problems.PROBLEMS`` has it, with its requests."""

    task: str
    mode: str
    split: str
    dialect: str
    variant: str
    len_a: int
    len_b: int
    a: str
    b: str | None
    asked_step: int | None
    steps: tuple[Asked, ...]


def samples(folder: Folder, task: str, mode: str, limit: int | None = None) -> list[Sample]:
    """Return the problems of a task in a mode, of the test split."""
    return [one for some in read_problems(folder, task, mode, "test", limit) for one in samples_of(some)]


def samples_of(some: Problems) -> list[Sample]:
    requests = [Asked(**row) for row in some.requests.to_pylist()]
    steps = [[requests[step] for step in some.steps[start:end]] for start, end in pairwise(some.starts)]
    return [Sample(**row, steps=tuple(own)) for row, own in zip(some.table.to_pylist(), steps, strict=True)]


def reference(task: str, a: int, b: int) -> Iterator[Asked]:
    """Yield every request of a run, with those of called machines where they happen."""
    for step in machine(task).transitions(a, b, "consistent"):
        yield Asked(executor(task), task, "executor", step.state, step.prompt, step.completion)
        if step.call is not None:
            yield from reference(step.call, *operands_of(step.completion.split("\n")[2]))


class Judged:
    """What is known of requests and problems, in arrays.

    Requests are numbered in the order in which they are first made. ``flat`` holds those of all problems, one problem
    after the other, each from its ``starts`` on; ``correct`` is -1 where nothing is known.
    """

    def __init__(self, store: ResultStore) -> None:
        names = ("correct", "stripped", "decoded", "first_wrong_token", "tokens", "completion_tokens")
        self.correct, self.stripped, self.decoded, self.at, self.tokens, self.completion_tokens = (
            store.known[name] for name in names
        )
        texts = store.wrong_texts(np.arange(store.num_requests))
        self.texts = {number: text for number, text in enumerate(texts) if text is not None}
        held = list(store.steps())
        self.flat = np.concatenate([steps for _, _, steps in held])
        self.starts = np.append(0, np.cumsum(np.concatenate([np.diff(starts) for _, starts, _ in held])))
        self.problems = pa.concat_tables(table for _, table in store.problems())
        self.finals = store.finals

    def first_wrong(self, right: Any) -> Any:
        """Return, for each problem, the place in ``flat`` of its first request that is not right; -1 where all are."""
        wrong = np.flatnonzero(right[self.flat] != 1)
        places = np.append(wrong, len(self.flat))[np.searchsorted(wrong, self.starts[:-1])]
        return np.where(places < self.starts[1:], places, -1)


def judge(plan: Path, folder: Path, strategy: str, backend: Backend) -> Judged:
    """Evaluate what was planned."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(ResultStore(Path(shutil.copy(plan, folder)))) as store:
        if strategy == "rollout":
            roll_out(store, backend, lambda store: None)
            decode_first_wrong(store, backend, lambda store: None)
        else:
            evaluate(store, backend, verify=strategy == "verify", progress=lambda store: None)
        return Judged(store)


def settings(data: Path, out: Path, **more: Any) -> EvalSettings:
    return EvalSettings(data=str(data), out=str(out), backend="oracle", **more)


@contextmanager
def begun(session: Session) -> Iterator[ResultStore]:
    """Hold the file of a session, with its plan."""
    with closing(ResultStore(session.file)) as store:
        plan(session, store)
        yield store


def finish(session: Session, backend: Backend | Callable[[ResultStore], Backend]) -> Any:
    with begun(session) as store, closing(backend if isinstance(backend, Backend) else backend(store)) as asked:
        return run(session, store, asked, lambda store: None, "caef-data eval")


def model_of(session: Session, say: Any = lambda line: None) -> Callable[[ResultStore], Backend]:
    """Return what makes the backend that a session's settings name."""
    return lambda store: make_backend(session.settings, session.checkpoint, calls_tried(store), say)


def requests_of(store: ResultStore) -> list[Asked]:
    """Return all requests, adapter by adapter."""
    every = np.ones(store.num_requests, np.bool_)
    parts = ((adapter, part) for adapter in store.adapters for _, part in store.requests(adapter, every))
    return [Asked(**row) for _, part in parts for row in part.to_pylist()]


def tables_of(session: Session) -> dict[str, list[dict[str, Any]]]:
    tables = session.tables
    found = {}
    for table in ("calls", "class_accuracy", "problems", "failures"):
        parts = [tables.read_part(table, part) for part in tables.parts(table)]
        rows = [row for part in parts if part is not None for row in part.to_pylist()]
        found[table] = sorted(rows, key=str)
    return found
