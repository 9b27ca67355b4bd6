"""Measures ``score``; prints a Markdown table.

    python benchmarks/score.py            medians of 5 runs: a minute on one core
    python benchmarks/score.py --small    small data: tries the script

Operands of 50 digits, each prompt once, one step each; of composers any step of the run. Every second answer is wrong,
the kinds of ``WRONG`` in turn. All four fields of each score are read. One run over the answers comes before those that
are timed.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Callable
from itertools import cycle
from statistics import mean, median

from build import Goal, Result, machine, number, table

from caef_data import score, transition
from caef_data.tm import machine as machine_of

TASKS = ("add", "sub", "mul", "div", "greater_than")
GOALS = {
    "score": Goal("`score`, mean over five tasks, 50 digits, half wrong, one core", 150_000, 300_000, "calls/s", True)
}
HEAD = re.compile(r"(\|[0-9])(\[HEAD\d?\])|(\[HEAD\d?\])(\|[0-9])")
Change = Callable[[random.Random, str], str]


def digit(rng: random.Random, text: str) -> str:
    """Change a digit on a tape or in a command."""
    at = rng.choice([at for at, sign in enumerate(text) if sign in "0123456789" and text[at - 1] in "| "])
    return text[:at] + str((int(text[at]) + rng.randint(1, 9)) % 10) + text[at + 1 :]


def head(rng: random.Random, text: str) -> str:
    """Put a head one digit off."""
    found = [*HEAD.finditer(text.partition("\n")[0])]
    if not found:
        return digit(rng, text)
    match = rng.choice(found)
    parts = [part for part in match.groups() if part]
    return text[: match.start()] + "".join(reversed(parts)) + text[match.end() :]


def state(rng: random.Random, text: str) -> str:
    """Name another state."""
    return re.sub(", q[0-9H],", rng.choice([", q0,", ", q7,", ", qH,"]), text, count=1)


def cut(rng: random.Random, text: str) -> str:
    """Stop too early."""
    return text[: rng.randrange(len(text))]


def garbage(rng: random.Random, text: str) -> str:
    """Write signs of an entry, in no order."""
    return "".join(rng.choices(["|", "1", "7", "[HEAD1]", " ", "\n", "q1", "CMD", "é"], k=len(text) // 2))


WRONG: dict[str, Change] = {
    "digit": digit,
    "command": lambda rng, text: text.replace("\n", "\nCMD [OUTPUT] LEFT, ", 1),
    "head": head,
    "state": state,
    "dropped digit": lambda rng, text: re.sub(r"\|[0-9]", "", text, count=1),
    "cut": cut,
    "newline": lambda rng, text: text[:-1] if text.endswith("\n") else text + "\n",
    "garbage": garbage,
    "swap of digits": lambda rng, text: re.sub(r"(\|[0-9])(?!\1)(\|[0-9])", r"\2\1", text, count=1),
}


def asked(task: str, count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Return prompts of a task, each with an answer, of which every second one is wrong."""
    found, kinds, own = list[tuple[str, str]](), cycle(WRONG.values()), machine_of(task)
    while len(found) < count:
        a, b = sorted((rng.randrange(10**49, 10**50) for _ in range(2)), reverse=True)
        step = transition(task, a, b, rng.randrange(own.num_steps(a, b)))
        answer = step.completion
        if len(found) % 2:
            while answer == step.completion:  # zeros may be swapped for zeros
                answer = next(kinds)(rng, step.completion)
        found.append((step.prompt, answer))
    return found


def rates_of(task: str, count: int, repeat: int) -> list[float]:
    """Return the calls a second of a task in each run."""
    pairs, rates = asked(task, count, random.Random(task)), list[float]()
    for _ in range(repeat + 1):
        right_ones, start = 0, time.perf_counter()
        for prompt, answer in pairs:
            right, _, _, _ = score(prompt, answer)
            right_ones += right
        rates.append(count / (time.perf_counter() - start))
        if 2 * right_ones != count:
            raise SystemExit(f"{task}: {right_ones} of {count} answers are right, not half of them")
    return rates[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure score; prints a Markdown table.")
    parser.add_argument("--repeat", type=int, default=5, help="runs of everything that is timed (5)")
    parser.add_argument("--small", action="store_true", help="small data, to try the script")
    chosen = parser.parse_args()
    repeat, count = max(1, chosen.repeat), 54 if chosen.small else 10_800
    rates = {task: rates_of(task, count, repeat) for task in TASKS}
    detail = ", ".join(f"{task} {median(found):,.0f}" for task, found in rates.items())
    result = Result("score", mean(median(found) for found in rates.values()), f"{detail}", rates)
    print(f"score: {number(result.measured, 'calls/s')}; {result.detail}", file=sys.stderr)
    print(f"{table([result], GOALS)}\n\n{machine()}; medians of {repeat} runs.")


if __name__ == "__main__":
    main()
