"""Tests and measures evaluation and training on a GPU; ``gpu.sh`` starts it. Prints a Markdown table.

    benchmarks/gpu.sh                                 all parts, 8 minutes at most
    benchmarks/gpu.sh --only limit prefill            some parts
    benchmarks/gpu.sh --small                         small things, also on a CPU: tries the script
    python benchmarks/gpu.py --write docs/speed.md    measures nothing; puts the table of benchmarks/gpu.json there

Each part has its own time (small ones have all of it). What a part found before it failed or its time was over is kept,
and the other parts run. The results lie in a file from the first on, which is written anew with each.

The rows are steps of additions of 100 digits, which a tokenizer like Llama 3's cuts into 1,100 tokens each. The model
has the shape of Llama 3.1 8B, random weights in bfloat16, and a LoRA of rank 16 on every linear layer, which computes
beside the base model's weights. It is pushed towards the right answers (``gpu_model.Guide``).

- ``limit``: products of large square matrices in bfloat16, the best of several sizes, each the median of 5 runs.
- ``prefill``: the operations that verify needs (2 a weight and token, 2 a weight of the vocabulary projection and
  token judged, attention to the tokens before; nothing for padding) over its whole time, tokenising included, as a
  share of the limit.
- ``ratio``: the same rows by verify and by transformers' ``generate``, in batches of like lengths, in turn. In the
  details: this package's strategy ``generate``.
- ``train``: the operations that LoRA training of the same model needs (4 a weight and token, 4 a weight of the
  vocabulary projection and token learnt, three times those of attention), from the end of the first step to the end of
  the last, as a share of the limit: the package's trainer, 8 rows a step, two in a line of some 2,000 tokens.
- ``profile``: nothing of the table; which kernels take the time of verify.
- ``verdicts``: rows pushed so little that half of them are wrong: how many verdicts are others in batches than alone.
"""

from __future__ import annotations

import argparse
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from build import Goal, number, spread

HERE = Path(__file__).resolve().parent
KEPT = HERE / "gpu.json"
MINUTES = 8.0
# Seconds of each part, with making its model; parts of one line share a process and its model.
GROUPS: tuple[dict[str, int], ...] = (
    {"tests": 100},
    {"train": 90},
    {"limit": 45, "prefill": 110, "ratio": 150, "verdicts": 120, "decode": 60, "profile": 30},
)
SECONDS = {name: seconds for group in GROUPS for name, seconds in group.items()}
MARKS = re.compile(r"(<!-- gpu-benchmark -->\n).*?(<!-- /gpu-benchmark -->)", re.DOTALL)
GOALS = {
    "prefill": Goal("verify / matrix-multiply limit", 35, 60, "%", least=True),
    "train": Goal("LoRA training / matrix-multiply limit", 30, 45, "%", least=True),
    "ratio": Goal("the same rows: generate / verify", 4, 10, least=True),
}
Found = dict[str, Any]


class Runner:
    """Runs parts in processes of their own, and keeps what they find in ``record``.

    Args:
        small: small things.
        minutes: for everything.
        path: of the file that holds the record.
    """

    def __init__(self, small: bool, minutes: float, path: Path) -> None:
        self.small, self.path = small, path
        self.end = time.monotonic() + 60 * minutes
        self.record: Found = {"small": small, "environment": {}, "parts": {}}

    def run(self, chosen: Sequence[str]) -> None:
        """Run the chosen parts, those after a failed one in a new process."""
        for group in GROUPS:
            left = [name for name in group if name in chosen]
            while left:
                done = self.one_process(left)
                left = left[left.index(done) + 1 :]

    def one_process(self, names: Sequence[str]) -> str:
        """Run parts in one process until one fails or its time is over; return the last that was begun."""
        command = [sys.executable, str(HERE / "gpu_parts.py"), *(["--small"] if self.small else []), *names]
        part = names[0]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = lines_of(process)
            for part in names:
                why = self.one_part(part, lines)
                if why is not None:
                    process.kill()
                    self.keep(part, status=why)
                    break
        return part

    def one_part(self, part: str, lines: queue.Queue[str | None]) -> str | None:
        """Keep what a part finds; return why it did not end as it should, or None."""
        start = time.monotonic()
        until = self.end if self.small else min(start + SECONDS[part], self.end)
        self.keep(part, status="begun")
        while True:
            try:
                line = lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return f"its time was over after {time.monotonic() - start:.0f} s"
            if line is None:
                return f"failed after {time.monotonic() - start:.0f} s; the reason stands above"
            told = json.loads(line)
            self.record["environment"] |= told.get("environment", {})
            self.keep(part, **told.get("found", {}))
            if told.get("ended"):
                self.keep(part, status="done", seconds=time.monotonic() - start)
                return None

    def keep(self, part: str, **found: Any) -> None:
        """Add to what a part has found, and write the file anew."""
        self.record["parts"].setdefault(part, {}).update(found)
        self.path.write_text(f"{json.dumps(self.record, indent=1)}\n", encoding="utf-8")
        print(f"{part}: {json.dumps(found)}", file=sys.stderr)


def lines_of(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """Return a queue of what a process prints, with None at the end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def rows_of(record: Found) -> Iterator[tuple[str, Goal | None, str, float | None]]:
    """Yield the rows of the table: what is measured, what is asked of it, what was found, and that as a number."""
    parts = record["parts"]
    rows = {"tests": tests_row, "limit": limit_row, "prefill": prefill_row, "ratio": ratio_row, "train": train_row}
    for name, row in rows.items():
        if name in parts:
            yield row(parts)
    if "verdicts" in parts:
        yield verdicts_row(parts, "changed")
        yield verdicts_row(parts, "missed")
    peaks = [
        f"{name} {parts[name]['peak'] / 1e9:.1f} GB"
        for name in ("prefill", "ratio", "train")
        if "peak" in parts.get(name, {})
    ]
    if peaks:
        yield "peak memory", None, ", ".join(peaks), None


def unfinished(part: Found) -> str:
    return "" if part["status"] == "done" else f"; {part['status']}"


def tests_row(parts: Found) -> tuple[str, Goal | None, str, float | None]:
    part = parts["tests"]
    passed, failed, skipped = part.get("passed", []), part.get("failed", []), part.get("skipped", {})
    words = [f"{len(passed)} passed ({', '.join(passed)})"]
    words += [f"{len(failed)} FAILED ({', '.join(failed)})"] if failed else []
    words += (
        [f"{len(skipped)} skipped ({', '.join(f'{name}: {why}' for name, why in skipped.items())})"] if skipped else []
    )
    return "tests of a GPU", None, "; ".join(words) + unfinished(part), None


def limit_row(parts: Found) -> tuple[str, Goal | None, str, float | None]:
    part = parts["limit"]
    rates = [f"{int(side):,}: {rate / 1e12:.3g}" for side, rate in part.get("rates", {}).items()]
    return "matrix-multiply limit, bfloat16", None, f"TFLOP/s by side: {', '.join(rates)}{unfinished(part)}", None


def prefill_row(parts: Found) -> tuple[str, Goal | None, str, float | None]:
    part, rate = parts["prefill"], parts.get("limit", {}).get("rate")
    times = part.get("times")
    if not (times and rate):
        return GOALS["prefill"].measure, GOALS["prefill"], f"not measured{unfinished(part)}", None
    share = 100 * part["operations"] / median(times) / rate
    words = [
        f"{part['tokens'] / median(times):,.0f} tokens/s",
        f"{part['rows']:,} rows in {spread(times)}",
        f"budget of {part['budget']:,} tokens",
    ]
    others = [
        f"{int(budget):,}: {100 * part['operations'] / seconds / rate:.3g}%"
        for budget, seconds in part.get("by_budget", {}).items()
    ]
    words += [f"with others {', '.join(others)}"] if others else []
    return GOALS["prefill"].measure, GOALS["prefill"], "; ".join(words) + unfinished(part), share


def train_row(parts: Found) -> tuple[str, Goal | None, str, float | None]:
    part, rate = parts["train"], parts.get("limit", {}).get("rate")
    if not (part.get("seconds_all") and rate):
        return GOALS["train"].measure, GOALS["train"], f"not measured{unfinished(part)}", None
    words = (
        f"{part['tokens'] / part['seconds_all']:,.0f} tokens/s; {part['steps']} steps in {part['seconds_all']:.3g} s"
    )
    share = 100 * part["operations"] / part["seconds_all"] / rate
    return GOALS["train"].measure, GOALS["train"], words + unfinished(part), share


def ratio_row(parts: Found) -> tuple[str, Goal | None, str, float | None]:
    part, own = parts["ratio"], parts.get("decode", {})
    times = part.get("times")
    if not times:
        return GOALS["ratio"].measure, GOALS["ratio"], f"not measured{unfinished(part)}", None
    middle = {name: median(found) for name, found in times.items()}
    words = [f"{part['rows']:,} rows, batch {part['batch']}"]
    words += [f"{name} {spread(found)}" for name, found in times.items()]
    if "steps" in own:
        words += [f"strategy generate {1000 * own['seconds_all'] / own['steps']:.3g} ms a step of {own['rows']} rows"]
    return (
        GOALS["ratio"].measure,
        GOALS["ratio"],
        "; ".join(words) + unfinished(part),
        middle["generate"] / middle["verify"],
    )


def verdicts_row(parts: Found, kind: str) -> tuple[str, Goal | None, str, float | None]:
    part, rule = parts["verdicts"], "off" if kind == "changed" else "on"
    measure = f"bfloat16 verdicts that are others in batches than alone, margin rule {rule}"
    if not part.get(kind):
        return measure, None, f"not measured{unfinished(part)}", None
    words = [", ".join(f"{count} with {int(budget):,} tokens" for budget, count in part[kind].items())]
    words += [f"of {part['rows']:,} rows with a hard token, {part['right']} right alone"] if rule == "off" else []
    if rule == "on":
        words += [f"{part['marked']} are near ties (below {part['near']:g}), decoded alone"]
        words += [f"in {part['rule_seconds']:.3g} s each"] if "rule_seconds" in part else []
    return measure, None, "; ".join(words) + unfinished(part), None


def table(record: Found) -> str:
    """Return what was found as a Markdown table, with what computed it."""
    lines = ["| measure | must | aim | measured |", "|---|---:|---:|---|"]
    for measure, goal, words, value in rows_of(record):
        limits = [f">= {number(limit, goal.unit)}" for limit in (goal.must, goal.aim)] if goal else ["", ""]
        if goal is not None and value is not None:
            words = f"{'missed: ' if value < goal.must else ''}{number(value, goal.unit)} ({words})"
        lines.append(f"| {' | '.join([measure, *limits, words])} |")
    found = record["environment"]
    memory = f", {found['memory'] / 2**30:.0f} GiB" if found.get("memory") else ""
    packages = ", ".join(f"{name} {found.get(name)}" for name in ("torch", "transformers", "peft"))
    note = " **Small: these numbers say nothing.**" if record["small"] else ""
    return "\n".join([*lines, "", f"{found.get('device')}{memory}, Python {found.get('python')}, {packages}.{note}"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Test and measure evaluation on a GPU; prints a Markdown table.")
    parser.add_argument(
        "--only", nargs="+", choices=SECONDS, default=list(SECONDS), metavar="PART", help=", ".join(SECONDS)
    )
    parser.add_argument("--small", action="store_true", help="small things, to try the script")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything (8)")
    parser.add_argument("--json", type=Path, default=KEPT, help="keep the results there (benchmarks/gpu.json)")
    parser.add_argument("--write", type=Path, help="measure nothing; put the table of the results into this page")
    chosen = parser.parse_args()
    if chosen.write:
        text = chosen.write.read_text(encoding="utf-8")
        new, found = MARKS.subn(lambda m: f"{m[1]}{table(json.loads(chosen.json.read_text('utf-8')))}\n{m[2]}", text)
        if not found:
            raise SystemExit(f"{chosen.write} has no place for it: <!-- gpu-benchmark --> ... <!-- /gpu-benchmark -->")
        chosen.write.write_text(new, encoding="utf-8")
        return
    runner = Runner(chosen.small, chosen.minutes, chosen.json)
    runner.run(chosen.only)
    print(table(runner.record))
    bad = [name for name, part in runner.record["parts"].items() if part["status"] != "done" or part.get("failed")]
    if bad:
        raise SystemExit(f"not all went well: {', '.join(bad)}")


if __name__ == "__main__":
    main()
