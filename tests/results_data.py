"""A small folder of results, written as an evaluation writes it: five runs of models that are partly right.

``python tests/results_data.py FOLDER`` writes it for looking at.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from os.path import commonprefix
from pathlib import Path
from typing import Any

import pyarrow as pa

from caef_data.eval.problems import RAW, aligner, raw_question
from caef_data.eval.tables import CLASS, RunTables, class_accuracy, key_column, run_id
from caef_data.tests.evaluating import Asked, reference
from caef_data.tm import align_in, align_out

HOSTILE = "\x1b[31mred\x07</script><img src=x onerror=alert(1)>|\u202e `x`\r\n=1+1"


@dataclass(frozen=True)
class Run:
    """What a run evaluated, and how often its model errs: ``rate`` a call, thrice as often where a carry is kept."""

    name: str
    rate: float
    jobs: tuple[tuple[str, str], ...]
    strategy: str = "verify"
    finished: bool = True
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return run_id(self.name)


STEPS = (("add", "one_step"), ("sub", "one_step"), ("greater_than", "one_step"))
WALKS = (("add", "executor"), ("sub", "executor"), ("add", "process"))
RUNS = (
    Run("first", 0.02, STEPS + WALKS),
    Run("second", 0.004, STEPS + WALKS),
    Run("rolled", 0.02, WALKS[:1], "rollout"),
    Run("base", 0.9, (("add", RAW),), others={"baseline": True, "adapters": {}}),
    Run("stopped", 0.0, STEPS, finished=False),
)
LENGTHS = range(1, 5)
NUM = 6  # problems a class
UNREACHED = (5, 5)  # a class that the dataset holds, and no run got to


def chance(*words: object) -> float:
    """Return a number in [0, 1) that the words decide."""
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=6).digest()) / 2**48


@cache
def problems(task: str, mode: str) -> list[tuple[dict[str, Any], list[Asked]]]:
    """Return the problems of a task in a mode: their columns, and the calls that a perfect model is asked."""
    found = []
    for len_a in LENGTHS:
        for len_b in LENGTHS:
            for index in range(NUM):
                a, b = drawn(task, len_a, index), drawn(task, len_b, -1 - index)
                if task == "sub" and a < b:
                    continue
                row = {"task": task, "mode": mode, "split": "test", "dialect": "consistent", "variant": "any"}
                row |= {"a": str(a), "b": str(b), "len_a": len_a, "len_b": len_b}
                if task == "greater_than" and len_a == len_b:
                    row["variant"] = "greater" if a > b else "less" if a < b else "equal"
                found.append((row, list(steps(task, mode, a, b, index))))
    return found


def drawn(task: str, length: int, index: int) -> int:
    least = 10 ** (length - 1)
    return least + int(chance(task, length, index) * 9 * least)


def steps(task: str, mode: str, a: int, b: int, index: int) -> Iterator[Asked]:
    raw = raw_question(task, str(a), str(b))
    if mode == RAW:
        yield Asked("", task, RAW, None, raw, align_out(task, a, b)[1])
        return
    run = list(reference(task, a, b))
    if mode == "one_step":
        yield run[index % len(run)]
        return
    if mode == "process":
        yield Asked(aligner(task), task, "aligner_in", None, raw, align_in(raw))
    yield from run
    if mode == "process":
        yield Asked(aligner(task), task, "aligner_out", None, *align_out(task, a, b))


def errs(run: Run, step: Asked) -> bool:
    """Tell whether the model of a run is wrong about a call: of half of the calls, all models find the same hard."""
    harder = 3 if "[C] 1" in step.completion else 1
    who = run.name if chance("own", step.prompt) < 0.5 else "all"
    return chance(who, step.adapter, step.prompt) < run.rate * harder


def answered(run: Run, step: Asked) -> str:
    """Return a wrong answer: cut short, with another digit at its end, or hostile."""
    kind = int(chance("kind", run.name, step.prompt) * 8)
    if kind == 0:
        return HOSTILE
    return step.completion[: len(step.completion) // 2] if kind < 4 else step.completion[:-1] + "7"


def write_run(results: Path, run: Run) -> None:
    """Write the tables of a run."""
    tables = RunTables(results, run.id)
    tables.write_run(run_row(run, {}, 0, 0, finished=False))
    if not run.finished:
        return
    calls: dict[tuple[str, str, str], tuple[int, Asked]] = {}
    outcomes, failures, whole, total = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]](), 0
    for task, mode in run.jobs:
        for row, asked in problems(task, mode):
            numbers = []
            for step in asked:
                key = (step.adapter, step.prompt, step.completion)
                numbers.append(calls.setdefault(key, (len(calls), step))[0])
            total += len(asked)
            wrong = [index for index, step in enumerate(asked) if errs(run, step)]
            lucky = chance("luck", row["a"], row["b"]) < 0.5
            final = (not wrong or lucky) if run.strategy == "rollout" else None
            found = {"right": not wrong, "right_stripped": not wrong, "near_tie": False, "final_right": final}
            outcomes.append({**{name: row[name] for name in CLASS}, **found})
            whole.append(
                {
                    **row,
                    "asked_step": None,
                    "num_calls": len(asked),
                    "correct": not wrong,
                    "correct_stripped": not wrong,
                    "first_wrong_step": wrong[0] if wrong else None,
                }
            )
            if wrong:
                failures.append(failure(run, row, asked, wrong[0], numbers[wrong[0]]))
    rows = [call_row(run, number, step) for number, step in calls.values()]
    half = len(rows) // 2
    tables.write_part("calls", "part-0", [columns(rows[:half])])
    tables.write_part("calls", "part-1", [columns(rows[half : half + 50]), columns(rows[half + 50 :])])
    tables.write_part("failures", "part-0", [columns(failures)])
    tables.write_part("problems", "problems", [columns(whole)])
    held = [{name: one[name] for name in CLASS} for one in outcomes]
    held += [{**held[0], "len_a": UNREACHED[0], "len_b": UNREACHED[1]}]
    accuracy = class_accuracy(pa.Table.from_pylist(outcomes, schema=OUTCOMES), pa.Table.from_pylist(held))
    tables.write_part("class_accuracy", "classes", [accuracy])
    tables.write_run(run_row(run, {"problems": len(outcomes)}, len(calls), total - len(calls), finished=True))


OUTCOMES = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in CLASS[:5]],
        *[pa.field(name, pa.int16()) for name in CLASS[5:]],
        *[pa.field(name, pa.bool_()) for name in ("right", "right_stripped", "near_tie", "final_right")],
    ]
)


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def call_row(run: Run, number: int, step: Asked) -> dict[str, Any]:
    wrong = errs(run, step)
    size = len(step.completion) // 2 + 1
    return {
        "call": number,
        "key": key_column(["\0".join((step.adapter, step.prompt, step.completion)).encode()])[0].as_py(),
        "adapter": step.adapter,
        "task": step.adapter.partition("/")[2] or "add",
        "kind": step.kind,
        "state": step.state,
        "correct": not wrong,
        "tokens": len(step.prompt) // 2 + size,
        "completion_tokens": size,
        "first_wrong_token": size - 2 if wrong else None,
        "margin": (-1 if wrong else 1) * round(8 * chance("margin", run.name, step.prompt), 3),
        "decoded": wrong or run.strategy != "verify",
        "text": answered(run, step) if wrong else None,
        "prompt": step.prompt if wrong else None,
        "expected": step.completion if wrong else None,
    }


def failure(run: Run, row: dict[str, Any], asked: list[Asked], index: int, number: int) -> dict[str, Any]:
    step = asked[index]
    text = answered(run, step)
    return {
        **row,
        "step": index,
        "num_calls": len(asked),
        "call": number,
        "adapter": step.adapter,
        "kind": step.kind,
        "state": step.state,
        "prompt": step.prompt,
        "expected": step.completion,
        "text": text,
        "first_wrong_token": len(step.completion) // 2 - 1,
        "first_wrong_char": len(commonprefix([text, step.completion])),
    }


def run_row(run: Run, counts: dict[str, int], calls: int, repeated: int, *, finished: bool) -> dict[str, Any]:
    started = datetime(2026, 3, 1 + RUNS.index(run), 12)
    seconds = 2.5 * (1 + RUNS.index(run))
    row = {
        "name": run.name,
        "rules": 2,
        "started": started,
        "finished": started + timedelta(seconds=seconds) if finished else None,
        "status": "finished" if finished else "unfinished",
        "command": f"caef-data eval --adapters {run.name} --strategy {run.strategy}",
        "base_model": "base",
        "base_sha256": hashlib.sha256(b"base").hexdigest(),
        "adapters": {f"executors/{task}": hashlib.sha256(run.name.encode()).hexdigest() for task, _ in run.jobs},
        "data": "data",
        "data_identity": "0123456789abcdef",
        "tasks": sorted({task for task, _ in run.jobs}),
        "modes": sorted({mode for _, mode in run.jobs}),
        "splits": ["test"],
        "strategy": run.strategy,
        "template": None,
        "stage": "second",
        "backend": "transformers",
        "baseline": False,
        "dialect": "consistent",
        "device": "cpu",
        "dtype": "float32",
        "batch_tokens": 8192,
        "caef_data": "0.1.0",
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "peft": "0.21.2",
        **run.others,
    }
    if finished:
        row |= {
            **counts,
            "calls": calls,
            "calls_repeated": repeated,
            "tokens": 90 * calls,
        }
        row |= {"seconds": seconds, "calls_per_second": calls / seconds, "tokens_per_second": 90 * calls / seconds}
    return row


def write_results(results: Path) -> list[str]:
    """Write the tables of all runs into a folder; return the runs' ids, in the order of ``RUNS``."""
    for run in RUNS:
        write_run(results, run)
    return [run.id for run in RUNS]


if __name__ == "__main__":
    print(*write_results(Path(sys.argv[1])))
