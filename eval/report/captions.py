"""A report's numbers in words: accuracies, what a run was and how it came out, problems and texts for people.

The page's template may call all of them.
Texts come from results and may be anything: what does not print or turns the reading direction becomes a symbol.
"""

from __future__ import annotations

import re
from os.path import commonprefix

from ...errors import suggested
from ...tm.expression import signs
from ..problems import RAW
from .queries import Count, Report, Row

FEW = 3  # runs that are not finished, of which each is named
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


def points(gain: Row) -> str:
    """Return what a run gained over the other in points of accuracy."""
    change = 100 * ((gain["new"].accuracy or 0) - (gain["old"].accuracy or 0))
    return f"{change:+.1f}".replace("-", "−") if abs(change) >= 0.05 else "0.0"


def model(run: Row) -> str:
    """Return a run's model and the adapters that its command names, by the ends of their paths."""
    named = re.search(r"--adapters[ =](?:'([^']*)'|(\S+))", run["command"] or "") if not run["baseline"] else None
    paths = filter(None, (run["base_model"] or run["backend"], named and (named[1] or named[2])))
    return " with ".join("/".join(path.rstrip("/").split("/")[-2:]) for path in paths)


def title(run: Row) -> str:
    """Return a run's name or model, and how much was asked in which way."""
    asked = f"up to {run['max_problems']:,} expressions a task" if run["max_problems"] else ""
    told = "with the instruction" * (run["stage"] == "first")
    return ", ".join(filter(None, (run["name"] or model(run), run["strategy"], asked, told)))


def left_out(report: Report) -> list[tuple[str, str]]:
    """Return which runs are left out and why, each with the command that helps; of unfinished ones the newest few."""
    num, more, told = report.older, len(report.unfinished[:-FEW]), []
    if num:
        told.append((f"{num} older run{'s' * (num > 1)} left out; name runs with:", "caef-data report --run ID"))
    for run in report.unfinished[-FEW:]:
        why = f"1 run left out: {run['run_id'][:8]} is not finished; go on with:"
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
