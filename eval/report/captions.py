"""A report's numbers in words: accuracies, what a run was and how it came out, problems and texts for people.

Texts come from results and may be anything: what does not print or turns the reading direction becomes a symbol.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile
from os.path import commonprefix

from ...errors import suggested
from ...tm.expression import signs
from ..problems import RAW
from .queries import ORDER, Count, Numbers, Panel, Row

FEW = 3  # names in a row; more are counted
FEW_LENGTHS = 4  # which their chart shows at a glance
GOOD, LONG_GOOD = 0.9, 0.99  # of a task; of every length up to one
BEFORE, AFTER = 22, 44  # characters shown around the first wrong one, which a phone shows without scrolling
END = "ends here"
PRINTED = {"-": "−", "*": "×"}


def percent(count: Count) -> str:
    """Return an accuracy: 100% and 0% only where they are meant, a dash where nothing was evaluated."""
    if count.accuracy is None:
        return "–"
    if count.correct in (0, count.n):
        return f"{count.accuracy:.0%}"
    shown = f"{count.accuracy:.1%}"
    return {"100.0%": ">99.9%", "0.0%": "<0.1%"}.get(shown, shown)


def percents(count: Count) -> str:
    """Return the 95% interval of an accuracy."""
    if count.interval is None:
        return ""
    low, high = count.interval
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def in_words(count: Count) -> str:
    """Return a count as a sentence without its subject."""
    if not count.n:
        return "not evaluated"
    return f"{percent(count)} right ({count.correct:,} of {count.n:,}; interval {percents(count)})"


def good_up_to(panel: Panel, run: str) -> int | None:
    """Return the length up to which all are right in ``LONG_GOOD``; None for all, and where few lengths say it."""
    lengths = {length: count.accuracy for length, count in panel.lengths(run).items() if count.accuracy is not None}
    good = list(takewhile(lambda length: lengths[length] >= LONG_GOOD, lengths))
    if len(lengths) <= FEW_LENGTHS or len(good) == len(lengths):
        return None
    return good[-1] if good else 0


def change(gain: Row) -> tuple[str, bool]:
    """Return what a run gained over the other in points of accuracy, and whether chance hardly explains it.

    That is told by the pairs, p < 0.05 in McNemar's test; where there are none, by intervals that do not touch.
    """
    old, new = Count(gain["old_n"], gain["old_correct"]), Count(gain["n"], gain["correct"])
    points = 100 * ((new.accuracy or 0) - (old.accuracy or 0))
    shown = f"{points:+.1f}".replace("-", "−") if abs(points) >= 0.05 else "0.0"
    if gain["pairs"] is not None:
        return shown, gain["pairs"].p < 0.05
    apart = old.interval and new.interval and (old.interval[1] < new.interval[0] or new.interval[1] < old.interval[0])
    return shown, bool(apart)


def asked(run: Row) -> str:
    """Return what a run was: "process, 7 tasks, up to 150 problems each"."""
    modes = sorted(run["modes"] or (), key=lambda mode: (ORDER.get(mode, len(ORDER)), mode))
    parts = [_listed(modes, "modes") + " baseline" * bool(run["baseline"]), _listed(run["tasks"] or (), "tasks")]
    if run["max_problems"]:
        parts.append(f"up to {run['max_problems']:,} expressions each")
    elif run["problems"] is not None:
        parts.append(f"{run['problems']:,} problems")
    return ", ".join(filter(None, parts))


def outcome(run: str, panels: Sequence[Panel]) -> str:
    """Return how a run came out: "6 of 7 tasks at 90% or more; worst: div 28.0%"."""
    mine = [(panel, panel.totals[run]) for panel in panels if run in panel.classes and panel.totals[run].n]
    mine.sort(key=lambda one: one[1].accuracy or 0)
    several = len({panel.mode for panel, _ in mine}) > 1
    totals = [(f"{panel.task} {panel.mode}" if several else panel.task, count) for panel, count in mine]
    if len(totals) <= FEW:
        return ", ".join(f"{name} {percent(count)}" for name, count in totals) or "nothing evaluated"
    what = f"{len(totals)} {'tasks and modes' if several else 'tasks'}"
    if all(count.correct == count.n for _, count in totals):
        return f"all {what} at 100%"
    good = sum((count.accuracy or 0) >= GOOD for _, count in totals)
    return f"{good} of {what} at {GOOD:.0%} or more; worst: {totals[0][0]} {percent(totals[0][1])}"


def models(runs: Sequence[Row]) -> dict[str, str]:
    """Return every run's model and adapters by its id: as much of their paths as tells them apart."""
    bases = {run["run_id"]: run["base_model"] or run["backend"] or "" for run in runs}
    adapters = {run["run_id"]: "" if run["baseline"] else _adapters(run["command"] or "") for run in runs}
    base_names, adapter_names = _tails(bases.values()), _tails(filter(None, adapters.values()))
    return {
        run: base_names[base] + (f" with {adapter_names[adapters[run]]}" if adapters[run] else "")
        for run, base in bases.items()
    }


def _adapters(command: str) -> str:
    """Return the folder that a command names with --adapters; an empty text where it names none."""
    try:
        words = shlex.split(command.replace("--adapters=", "--adapters "))
    except ValueError:  # no command of ours
        return ""
    return next((following for word, following in pairwise([*words, ""]) if word == "--adapters"), "")


def titles(runs: Sequence[Row]) -> dict[str, str]:
    """Return what every run was by its id, behind its name, else its model and adapters where others were the same."""
    was, names = {run["run_id"]: asked(run) for run in runs}, models(runs)
    told = list(was.values())
    found = {}
    for run in runs:
        what = was[run["run_id"]]
        name = run["name"] or ("" if told.count(what) == 1 else names[run["run_id"]])
        found[run["run_id"]] = f"{name}: {what}" if name else what
    return found


def left_out(numbers: Numbers) -> list[tuple[str, str]]:
    """Return which runs are left out and why, each with the command that helps; of unfinished ones the newest few."""
    told = []
    if numbers.older:
        runs = f"{numbers.older} older run{'s' * (numbers.older > 1)}"
        told.append((f"{runs} left out; name runs with:", "caef-data report --run ID"))
    for run in numbers.unfinished[-FEW:]:
        how = "evaluate anew, by today's rules, with" if run["rules"] is None else "go on with"  # 0.1.0 stopped it
        why = f"1 run left out: {run['run_id'][:8]} is not finished; {how}:"
        told.append((why, suggested(run["command"], "eval", "caef-data eval")))
    if more := len(numbers.unfinished[:-FEW]):
        told.append((f"{more} more not finished; list them with:", 'caef-data query "FROM runs"'))
    return told


def written(task: str, a: str, b: str | None) -> str:
    """Return a problem as people write it: "864 − 333"; helpers, which have no sign, as "reflection(12, 34)"."""
    sign = {name: sign for sign, name in signs().items()}.get(task)
    if sign and b is not None:
        return f"{a} {PRINTED.get(sign, sign)} {b}"
    return f"{task}({a}{f', {b}' if b else ''})"


def cause_title(row: Row) -> str:
    """Return where a failed problem first went wrong: "executors/div, state q0", or "base model, div"."""
    if row["mode"] == RAW or not row["adapter"]:
        return f"base model, {row['task']}"
    return f"{row['adapter']}, state {row['state']}" if row["state"] else str(row["adapter"])


def difference(expected: str, text: str) -> list[tuple[str, str, str, str]]:
    """Return the right answer and the model's around the first character in which they differ.

    Returns:
        (who, text before, that character or ``END``, text after), twice; symbols stand for what does not print.
    """
    pair = {"expected": expected, "answered": text}
    at = len(commonprefix(list(pair.values())))
    start = max(at - BEFORE, 0)
    return [
        (
            who,
            "…" * (start > 0) + symbols(one[start:at]),
            symbols(one[at : at + 1]).replace(" ", "␣") or END,
            symbols(one[at + 1 : at + 1 + AFTER]) + "…" * (len(one) > at + 1 + AFTER),
        )
        for who, one in pair.items()
    ]


def symbols(text: str) -> str:
    """Return a text with a symbol for every character that does not print, breaks a line or turns its direction."""
    return text if text.isprintable() else "".join(map(_symbol, text))


def _symbol(one: str) -> str:
    if one.isprintable():
        return one
    if ord(one) < 0x20:
        return "↵" if one == "\n" else chr(0x2400 + ord(one))  # Unicode has a picture of each
    return "␡" if one == "\x7f" else f"⟨U+{ord(one):04X}⟩"


def cut(text: str, length: int) -> str:
    """Return the beginning of a long text, and how long it is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def _listed(names: Sequence[str], kind: str) -> str:
    return (
        f"{len(names)} {kind}" if len(names) > FEW else " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    )


def _tails(paths: Iterable[str]) -> dict[str, str]:
    """Return the ends of paths, of as many parts as tell all of them apart."""
    parts = {path: path.rstrip("/").split("/") for path in paths}
    longest = max(map(len, parts.values()), default=0)
    for num in range(1, longest + 1):
        tails = {path: "/".join(one[-num:]) for path, one in parts.items()}
        if len(set(tails.values())) == len(parts):
            return tails
    return {path: path for path in parts}
