"""A report's numbers in words: accuracies, what a run was and how it came out, problems and texts for people.

The page's template may call all of them.
Texts come from results and may be anything: what does not print or turns the reading direction becomes a symbol.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from os.path import commonprefix

from ...errors import suggested
from ...tm.expression import signs
from ..problems import RAW
from .queries import MODE_ORDER, Count, Panel, Report, Row

FEW = 3  # names in a row; more are counted
FEW_LENGTHS = 4  # which their chart shows at a glance
GOOD, LONG_GOOD = 0.9, 0.99  # of a task; of every length up to one
BEFORE, AFTER = 22, 44  # characters shown around the first wrong one, which a phone shows without scrolling
END = "ends here"
NAME, LONGEST = 200, 6000  # characters of a name; of a prompt or an answer
MAX_CAUSES = 40
ENOUGH = 10  # failed problems from which on a chart of them says something
PRINTED = {"-": "−", "*": "×"}
SYMBOLS = {chr(code): chr(0x2400 + code) for code in range(32)} | {"\n": "↵", "\x7f": "␡"}  # Unicode's pictures


def percent(count: Count) -> str:
    """Return an accuracy: 100% and 0% only where they are meant, a dash where nothing was evaluated."""
    if count.accuracy is None:
        return "–"
    if count.correct in (0, count.n):
        return f"{count.accuracy:.0%}"
    rounded = f"{count.accuracy:.1%}"
    return {"100.0%": ">99.9%", "0.0%": "<0.1%"}.get(rounded, rounded)


def percents(count: Count) -> str:
    """Return the 95% interval of an accuracy."""
    return "–".join(f"{100 * end:.1f}" for end in count.interval) + "%" if count.interval else ""


def in_words(count: Count) -> str:
    """Return a count as a sentence without its subject."""
    told = f"{percent(count)} right ({count.correct:,} of {count.n:,}; interval {percents(count)})"
    return told if count.n else "not evaluated"


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
    old, new = gain["old"], gain["new"]
    points = 100 * ((new.accuracy or 0) - (old.accuracy or 0))
    signed = f"{points:+.1f}".replace("-", "−") if abs(points) >= 0.05 else "0.0"
    if gain["pairs"] is not None:
        return signed, gain["pairs"]["p"] < 0.05
    apart = old.interval and new.interval and (old.interval[1] < new.interval[0] or new.interval[1] < old.interval[0])
    return signed, bool(apart)


def model(run: Row) -> str:
    """Return a run's model and the adapters that its command names, by the ends of their paths."""
    named = re.search(r"--adapters[ =](?:'([^']*)'|(\S+))", run["command"] or "") if not run["baseline"] else None
    paths = filter(None, (run["base_model"] or run["backend"], named and (named[1] or named[2])))
    return " with ".join("/".join(path.rstrip("/").split("/")[-2:]) for path in paths)


def title(run: Row) -> str:
    """Return what a run was, behind its name or model: "base: process, 7 tasks, up to 150 expressions each"."""
    modes = sorted(run["modes"] or (), key=lambda mode: ([*MODE_ORDER, mode].index(mode), mode))
    parts = [_listed(modes, "modes") + " baseline" * bool(run["baseline"]), _listed(run["tasks"] or (), "tasks")]
    if run["max_problems"]:
        parts.append(f"up to {run['max_problems']:,} expressions each")
    elif run["problems"] is not None:
        parts.append(f"{run['problems']:,} problems")
    parts.append("with the instruction" * (run["stage"] == "first"))
    return f"{run['name'] or model(run)}: {', '.join(filter(None, parts))}"


def outcome(run: str, panels: Sequence[Panel]) -> str:
    """Return how a run came out: "6 of 7 tasks at 90% or more; worst: div 28.0%"."""
    mine = [(panel, panel.totals[run]) for panel in panels if run in panel.classes and panel.totals[run].n]
    mine.sort(key=lambda pair: pair[1].accuracy or 0)
    counts, several = [count for _, count in mine], len({panel.mode for panel, _ in mine}) > 1
    each = [f"{panel.task}{f' {panel.mode}' * several} {percent(count)}" for panel, count in mine]
    if len(each) <= FEW:
        return ", ".join(each) or "nothing evaluated"
    what = f"{len(each)} {'tasks and modes' if several else 'tasks'}"
    if all(count.correct == count.n for count in counts):
        return f"all {what} at 100%"
    good = sum((count.accuracy or 0) >= GOOD for count in counts)
    return f"{good} of {what} at {GOOD:.0%} or more; worst: {each[0]}"


def left_out(report: Report) -> list[tuple[str, str]]:
    """Return which runs are left out and why, each with the command that helps; of unfinished ones the newest few."""
    num, more, told = report.older, len(report.unfinished[:-FEW]), []
    if num:
        told.append((f"{num} older run{'s' * (num > 1)} left out; name runs with:", "caef-data report --run ID"))
    for run in report.unfinished[-FEW:]:
        how = "evaluate anew, by today's rules, with" if run["rules"] is None else "go on with"  # 0.1.0 stopped it
        why = f"1 run left out: {run['run_id'][:8]} is not finished; {how}:"
        told.append((why, suggested(run["command"], "eval", "caef-data eval")))
    if more:
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
    wrong = len(commonprefix([expected, text]))
    start, end = max(wrong - BEFORE, 0), wrong + 1 + AFTER
    return [
        (
            who,
            "…" * (start > 0) + symbols(whole[start:wrong]),
            symbols(whole[wrong : wrong + 1]).replace(" ", "␣") or END,
            symbols(whole[wrong + 1 : end]) + "…" * (len(whole) > end),
        )
        for who, whole in (("expected", expected), ("answered", text))
    ]


def symbols(text: str) -> str:
    """Return a text with a symbol for every character that does not print, breaks a line or turns its direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else SYMBOLS.get(char, f"⟨U+{ord(char):04X}⟩") for char in text)


def cut(text: object, length: int = NAME) -> str:
    """Return the beginning of a long text, and how long it is."""
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[:length]}… ({len(whole):,} characters)"


def lines(text: str | None) -> list[str]:
    """Return the lines of a text, which are many where it is long."""
    return [symbols(line) for line in cut(text or "", LONGEST).split("\n")]


def _listed(names: Sequence[str], kind: str) -> str:
    if len(names) > FEW:
        return f"{len(names)} {kind}"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
