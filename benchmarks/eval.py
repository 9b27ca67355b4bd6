"""Measures what evaluating costs; prints a table: one forward pass against decoding, padding.

    python benchmarks/eval.py                          all rows, medians of 3 runs: about 25 minutes on 2 cores
    python benchmarks/eval.py --only one_step padding  some rows
    python benchmarks/eval.py --small                  a small model: tries the script, its numbers say nothing

Both sides of a ratio use the same weights, rows, device and number format, in one process, in turn, A B A B; a ratio
is that of their medians. The model is a Llama of 25 million random weights; a token is a character.

The model is right, or wrong where it shall be, at the full cost of a model that has learnt it: a hook on the vocabulary
projection adds 10,000 to the logit of the token that shall win, at each position that is projected, for both sides.

What verify is compared with:
- ``lock-step``: how runs are evaluated otherwise: for each step the batch of runs is decoded by transformers'
  ``generate`` (padded to the longest prompt, going on until the slowest row ends), and its text is compared with the
  right one. Runs that are over leave the batch. Every ``stride``-th step is measured, of both sides: whole runs take
  hours.
- ``generate``: transformers' ``generate`` on batches of rows of one length.
- ``strategy generate``, in the details: this package's own decoding of the same batches.
- ``not shared``: verify itself, with the instruction computed for each row.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from build import Goal, Result, machine, number, peak_of, spread, table
from winners import PAD, Texts, Winners, save_llama

from caef_data.eval.backends.local import TransformersBackend
from caef_data.eval.backends.prefix import Prefix
from caef_data.eval.backends.tokens import load_tokenizers
from caef_data.eval.calls import BASE, Request
from caef_data.eval.problems import instruction_of
from caef_data.tm import align_in, transition, transitions


class Size(NamedTuple):
    """A Llama, the runs of executor mode, every which step of them, the one-step rows, and the calls for memory."""

    width: int
    layers: int
    runs: int
    longest: int
    stride: int
    rows: int
    digits: int
    calls: int


FULL, SMALL = Size(512, 8, 16, 100, 20, 16, 50, 1_000_000), Size(64, 2, 4, 12, 4, 8, 6, 400)
BATCH = 16


def goals(size: Size) -> dict[str, Goal]:
    rows = f"one_step add, {size.digits} digits, batch {BATCH}, CPU"
    return {
        "executor": Goal(
            f"executor add {size.longest // 2}..{size.longest} digits, CPU: lock-step / verify", 8, 20, least=True
        ),
        "one_step": Goal(f"{rows}: generate / verify", 8, 15, least=True),
        "bfloat16": Goal(f"{rows}, both in bfloat16: generate / verify", 8, 15, least=True),
        "half": Goal(f"{rows}, half of the rows wrong: generate / verify", 1.5, 1.9, least=True),
        "stage": Goal(
            "`--stage first`, one_step add, 10 digits, CPU: instruction not shared / shared", 2, 4, least=True
        ),
        "padding": Goal("one_step rows of all tasks: real tokens / computed tokens", 0.90, 0.97, "", least=True),
        "memory": Goal(f"peak memory of evaluating {size.calls:,} calls, without a model", 2000, 0, "MB"),
    }


def operand(digits: int, chance: random.Random) -> int:
    return chance.randrange(10 ** (digits - 1), 10**digits)


def one_steps(number: int, digits: int, seed: int = 0) -> Texts:
    """Return steps of additions, anywhere in their runs."""
    chance = random.Random(seed)
    steps = [
        transition("add", operand(digits, chance), operand(digits, chance), chance.randrange(digits + 2))
        for _ in range(number)
    ]
    return [(step.prompt, step.completion) for step in steps]


def runs(size: Size) -> list[Texts]:
    """Return the steps of additions of longest/2 to longest digits."""
    chance = random.Random(0)
    lengths = [size.longest // 2 + (size.longest - size.longest // 2) * i // (size.runs - 1) for i in range(size.runs)]
    found = [transitions("add", operand(digits, chance), operand(digits, chance)) for digits in lengths]
    return [[(step.prompt, step.completion) for step in steps] for steps in found]


class Bench:
    """Measures rows in ``folder``; ``repeat`` runs of what is timed."""

    def __init__(self, size: Size, repeat: int, folder: Path) -> None:
        self.size, self.repeat, self.folder = size, repeat, folder
        self.tokenizer = save_llama(folder, size.width, size.layers)

    def measure(self, key: str) -> Result:
        """Measure one row."""
        found: Result = getattr(self, key)()
        return found

    def backend(self, dtype: str = "float32") -> TransformersBackend:
        tokens = load_tokenizers(self.folder, {})
        backend = TransformersBackend(self.folder, {}, tokens, dtype=dtype, device="cpu")
        backend.budget["cache"] = 10**9  # whole batches are decoded
        self.winners = Winners(backend)
        return backend

    def compare(self, key: str, slow: dict[str, Callable[[], None]], fast: Callable[[], None], note: str) -> Result:
        """Time what is slow against verify, in turn; the ratio is that of the first."""
        times: dict[str, list[float]] = {**{name: [] for name in slow}, "verify": []}
        with self.winners.deciding():
            fast()  # a first time, not counted
            for _ in range(self.repeat):
                for name, work in {**slow, "verify": fast}.items():
                    start = time.perf_counter()
                    work()
                    times[name].append(time.perf_counter() - start)
        middle = {name: median(found) for name, found in times.items()}
        ratios = {name: middle[name] / middle["verify"] for name in slow}
        parts = [f"{name} {spread(found)}, {ratios.get(name, 1):.3g} x" for name, found in times.items()]
        return Result(key, ratios[next(iter(slow))], "; ".join([note, *parts]), times)

    def verify(self, backend: TransformersBackend, texts: Texts, *, wrong: int = 0) -> None:
        """Verify rows; decode those that are wrong from behind what is proved."""
        found = list(backend.verify(BASE, [Request(*text) for text in texts]))
        asks = [Request(*texts[index], verdict.at) for index, verdict in found if verdict.at is not None]
        if len(asks) != wrong:
            raise SystemExit(f"{len(asks)} rows are wrong, not {wrong}")
        list(backend.decode(BASE, asks))

    def decode(self, backend: TransformersBackend, texts: Texts) -> None:
        """Decode rows with the package's own strategy, in batches of a number of rows."""
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            for index, answer in backend.decode(BASE, [Request(*text) for text in part]):
                check(answer.text, part[index][1])

    def generate(self, backend: TransformersBackend, texts: Texts) -> None:
        """Decode rows with the library's generate, in batches of a number of rows."""
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            for found, (_, answer) in zip(self.generated(backend, part), part, strict=True):
                check(found, answer)

    def generated(self, backend: TransformersBackend, texts: Texts) -> list[str]:
        prompts, longest = [prompt for prompt, _ in texts], max(len(answer) for _, answer in texts)
        given = self.tokenizer(prompts, padding=True, return_tensors="pt", return_token_type_ids=False)
        given = given.to(backend.model.device)
        winners = [self.winners.of_prompt[tuple(row)] for row in backend.tokens[BASE].prompts(prompts)]
        self.winners.next = self.winners.steps(winners, backend.model.device, leave=False)
        found = backend.model.net.generate(**given, max_new_tokens=longest + 16, do_sample=False, pad_token_id=PAD)
        answers: list[str] = self.tokenizer.batch_decode(found[:, given["input_ids"].shape[1] :])
        return [answer.partition("<end>")[0] for answer in answers]

    def executor(self) -> Result:
        """Evaluate whole runs, of which every stride-th step is measured."""
        steps = [run[:: self.size.stride] for run in runs(self.size)]
        texts = [step for run in steps for step in run]
        backend = self.backend()
        self.winners.learn(texts)

        def lock_step() -> None:
            for place in range(max(map(len, steps))):
                going = [run[place] for run in steps if place < len(run)]
                if self.generated(backend, going) != [text for _, text in going]:
                    raise SystemExit("a step of the lock-step run is wrong")

        note = f"{self.size.runs} runs, {len(texts)} of their calls"
        return self.compare("executor", {"lock-step": lock_step}, lambda: self.verify(backend, texts), note)

    def one_step(self) -> Result:
        """Evaluate rows that are all right."""
        return self.rows("one_step", [None] * self.size.rows)

    def bfloat16(self) -> Result:
        """Evaluate the same rows in the number format that the CPU multiplies faster."""
        return self.rows("bfloat16", [None] * self.size.rows, "bfloat16")

    def half(self) -> Result:
        """Evaluate the same rows, every other one wrong at some token."""
        chance, lengths = random.Random(1), [len(answer) for _, answer in one_steps(self.size.rows, self.size.digits)]
        return self.rows("half", [chance.randrange(length) if i % 2 else None for i, length in enumerate(lengths)])

    def rows(self, key: str, wrong: Sequence[int | None], dtype: str = "float32") -> Result:
        texts, backend = one_steps(len(wrong), self.size.digits), self.backend(dtype)
        self.winners.learn(texts, wrong)
        number = len(wrong) - wrong.count(None)
        sides = {
            "generate": lambda: self.generate(backend, texts),
            "strategy generate": lambda: self.decode(backend, texts),
        }
        note = f"{len(texts)} rows, {number} wrong"
        return self.compare(key, sides, lambda: self.verify(backend, texts, wrong=number), note)

    def stage(self) -> Result:
        """Evaluate rows behind their instruction, computed once for all of them or for each."""
        texts, backend = one_steps(2 * self.size.rows, 10), self.backend()
        backend.tokens = {BASE: backend.tokens[BASE].behind(instruction_of("executors/add"))}
        self.winners.learn(texts)

        def verify(*, shared: bool) -> None:
            backend.asked, backend.prefix = None if shared else BASE, Prefix(backend.model, [])
            spared = backend.stats["shared"]
            self.verify(backend, texts)
            if (backend.stats["shared"] > spared) != shared:
                raise SystemExit("instructions are shared, or not, as they should not be")

        size = len(backend.tokens[BASE].beginning())
        alone = {"not shared": lambda: verify(shared=False)}
        note = f"{len(texts)} rows behind {size:,} tokens"
        return self.compare("stage", alone, lambda: verify(shared=True), note)

    def padding(self) -> Result:
        """Rows of all lengths and tasks, in one call and in calls of few."""
        chance, texts = random.Random(2), Texts()
        for task in ("add", "sub", "mul", "div", "equal", "greater_than", "less_than") * (self.size.rows):
            low, high = sorted(operand(chance.randint(1, self.size.longest), chance) for _ in range(2))
            step = transition(task, high, max(low, 1), chance.randrange(2))
            texts += [(step.prompt, step.completion), (f"{high}+{low}=", align_in(f"{high}+{low}="))]
        backend, few = self.backend(), self.backend()
        list(backend.verify(BASE, [Request(*text) for text in texts]))
        for start in range(0, 100, 10):
            list(few.verify(BASE, [Request(*text) for text in texts[start : start + 10]]))
        found = [one.stats["tokens"] / one.stats["computed"] for one in (backend, few)]
        detail = f"{len(texts):,} rows at once {found[0]:.3f}; ten at a time {found[1]:.3f}"
        return Result("padding", min(found), detail, {})

    def memory(self) -> Result:
        """Evaluate transitions of add, the answers known: what the evaluation itself holds, with all libraries.

        A limit counts expressions, of which about seven transitions each were built.
        """
        tenth = self.size.calls // 10
        rows = [
            "--task",
            "add",
            "--view",
            "one_step",
            "--split",
            "train",
            "--min",
            "1",
            "--max",
            f"{self.size.longest}",
        ]
        peak_of(["build", *rows, "--out", "data"], self.folder)
        asked = ["--backend", "oracle", "--data", "data", "--task", "add", "--mode", "one_step", "--split", "train"]
        few, many = (
            peak_of(["eval", *asked, "--limit", f"{calls // 7}", "--out", f"results-{calls}"], self.folder)
            for calls in (tenth, self.size.calls)
        )
        return Result("memory", many, f"{few:,.0f} MB at {tenth:,} calls", {})


def check(found: str, answer: str) -> None:
    """Stop unless an answer is the right one, but for one character perhaps."""
    if len(found) != len(answer) or sum(map(str.__ne__, found, answer)) > 1:
        raise SystemExit(f"decoded {found!r} instead of {answer!r}")


def main() -> None:
    keys = list(goals(FULL))
    parser = argparse.ArgumentParser(description="Measure evaluating; prints a Markdown table.")
    parser.add_argument("--repeat", type=int, default=3, help="runs of everything that is timed (3)")
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="ROW", help=", ".join(keys))
    parser.add_argument("--small", action="store_true", help="a small model, to try the script")
    parser.add_argument("--json", type=Path, help="write the results there too")
    chosen = parser.parse_args()
    size, results = SMALL if chosen.small else FULL, list[Result]()
    asked = goals(size)
    with tempfile.TemporaryDirectory(prefix="caef-bench-") as folder:
        bench = Bench(size, max(1, chosen.repeat), Path(folder))
        for key in (key for key in keys if key in chosen.only):
            result = bench.measure(key)
            results.append(result)
            print(f"{key}: {number(result.measured, asked[key].unit)}; {result.detail}", file=sys.stderr)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    where = f"{machine()}, {packages}, {torch.get_num_threads()} threads"
    print(f"{table(results, asked)}\n\n{where}; medians of {bench.repeat} runs (min..max).")
    if chosen.json:
        rows = [asked[r.key]._asdict() | r._asdict() | {"reached": r.reached(asked[r.key])} for r in results]
        chosen.json.write_text(json.dumps({"machine": where, "repeat": bench.repeat, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
