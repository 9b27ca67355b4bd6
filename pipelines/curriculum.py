"""What a declaration says of its streams alone: the weights of tasks and views, and operands that grow longer.

    [mix]
    add = 3
    sub-aligner = 0.5

    [curriculum]
    linear = {start = 5, rows = 1_000_000}

Both are functions of a row's number: ``longest_at`` has the rows from which on operands of a length come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import did_you_mean, is_whole, quoted
from .spelling import Spelling, literal

MOST = 10**12  # a row's number, or a weight
KINDS = {"linear": ("start", "rows"), "staged": ("rows", "max")}


class Task(Protocol):
    """What is asked of the settings of a task."""

    @property
    def task(self) -> str:
        """Its name."""

    @property
    def min(self) -> int:
        """Digits of its shortest operands."""

    @property
    def max(self) -> int:
        """Digits of its longest operands."""


Stages = tuple[tuple[int, int | None], ...]  # the first row of each, and its longest operands; None for all


def mix_of(given: object, tasks: Sequence[Task], spelling: Spelling) -> dict[tuple[str, str | None], float]:
    """Return the weight of each task and view (None for that of the stream); none where no mix is given.

    Raises:
        UserError: a name is no task or view of the declaration, or a weight is none.
    """
    if given is None:
        return {}
    from .. import tm
    from .settings import ALIASES, VIEWS

    allowed = "names of its tasks, or of a task and a view such as add-aligner, each with a number above 0"
    if not isinstance(given, Mapping) or not given:
        raise spelling.refusal(f"mix is {literal(given)}", "mix", allowed=allowed)
    names, found = [task.task for task in tasks], dict[tuple[str, str | None], float]()
    for key, weight in given.items():
        name, dash, view = str(key).partition("-")
        task = ALIASES.get(name, name)
        if task not in names:
            what = f"mix names {quoted(key)}, of which this declaration has no task{did_you_mean(name[:60], names)}"
            raise spelling.refusal(what, "mix", allowed=", ".join(names[:20]))
        missing = tm.machine(task).missing_views()
        views = [view for view in VIEWS if view not in missing]
        if dash and view not in views:
            why = f": {missing[view]}" if view in missing else did_you_mean(view[:60], views)
            raise spelling.refusal(
                f"mix names {quoted(key)}, a view that is not there{why}", "mix", allowed=", ".join(views)
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MOST:
            raise spelling.refusal(f"mix gives {key} the weight {literal(weight)}", "mix", allowed="a number above 0")
        if (task, view or None) in found:
            raise spelling.refusal(f"mix names {task} twice", "mix", allowed="each task and view once")
        found[task, view or None] = float(weight)
    return found


def stages_of(given: object, tasks: Sequence[Task], spelling: Spelling) -> Stages:
    """Return the stages of a curriculum; one of all lengths where none is given.

    Raises:
        UserError: a setting that is refused, or a stage without a row.
    """
    if given is None:
        return ((0, None),)
    allowed = "linear = {start = 5, rows = 1000000}, or staged = [{rows = 100000, max = 10}, ...]"
    if not isinstance(given, Mapping) or len(given) != 1:
        raise spelling.refusal(f"curriculum is {literal(given)}", "curriculum", allowed=allowed)
    [(kind, value)] = given.items()
    if kind not in KINDS:
        near = did_you_mean(str(kind)[:60], KINDS)
        raise spelling.refusal(f"curriculum has the kind {quoted(kind)}{near}", "curriculum", allowed=allowed)
    tables = [value] if kind == "linear" else value
    if not isinstance(tables, list | tuple) or not tables or not all(isinstance(table, Mapping) for table in tables):
        raise spelling.refusal(f"{kind} is {literal(value)}", "curriculum", allowed=allowed)
    checked = [_numbers(table, kind, spelling) for table in tables]
    low, high = min(task.min for task in tasks), max(task.max for task in tasks)
    for name, length in [(name, table[name]) for table in checked for name in ("start", "max") if name in table]:
        if not low <= length <= high:
            what = f"curriculum: {name} is {length:,}, and operands have {low:,} to {high:,} digits"
            raise spelling.refusal(what, "curriculum", allowed=f"{name} from {low:,} to {high:,}")
    if kind == "staged":
        return _staged(checked, spelling)
    start, rows = checked[0]["start"], checked[0]["rows"]
    grown = [(-(-more * rows // (high - start)), start + more) for more in range(1, high - start)]
    return _distinct([(0, start), *grown, (rows, None)])


def _staged(tables: Iterable[dict[str, int]], spelling: Spelling) -> Stages:
    begin, stages = 0, list[tuple[int, int | None]]()
    for table in tables:
        if stages and table["max"] <= (stages[-1][1] or 0):
            what = f"curriculum: a stage of max = {table['max']:,} follows one of max = {stages[-1][1]:,}"
            raise spelling.refusal(what, "curriculum", allowed="stages of ever longer operands")
        stages.append((begin, table["max"]))
        begin += table["rows"]
    return (*stages, (begin, None))


def _distinct(stages: Iterable[tuple[int, int | None]]) -> Stages:
    """Return the stages that have a row: of those that begin at one row the last."""
    return tuple(dict(stages).items())


def _numbers(table: Mapping[str, Any], kind: str, spelling: Spelling) -> dict[str, int]:
    """Return the numbers of a stage, all of them there, and nothing else."""
    names = KINDS[kind]
    for name in [*table, *names]:
        if name not in names:
            what = f"curriculum: {kind} has no setting {quoted(name)}{did_you_mean(str(name)[:60], names)}"
            raise spelling.refusal(what, "curriculum", allowed=" and ".join(names))
        value = table.get(name)
        if not is_whole(value, 1, MOST):
            what = f"curriculum: {kind} has no {name}" if value is None else f"curriculum: {name} is {literal(value)}"
            raise spelling.refusal(what, "curriculum", allowed=f"{name}, a whole number from 1 to {MOST:,}")
    return dict(table)


def note(mix: object, curriculum: object) -> list[str]:
    """Return what a plan says of them: a build takes no account of either."""
    given = [name for name, value in (("mix", mix), ("curriculum", curriculum)) if value is not None]
    return [f"{' and '.join(given)}: of streams alone (caef_data.stream); a build writes all rows"] if given else []
