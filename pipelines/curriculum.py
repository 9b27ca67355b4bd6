"""What a declaration says of its streams alone: the weights of tasks and views, and operands that grow longer.

    [mix]
    add = 3
    sub-aligner = 0.5

    [curriculum]
    linear = {start = 5, rows = 1_000_000}

Both are functions of a row's number: ``longest_at`` has the rows from which on operands of a length come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError, did_you_mean, is_whole, quoted
from .spelling import Spelling, literal

MOST = 10**12  # a row's number, or a weight
KINDS = {"linear": ("start", "rows"), "staged": ("rows", "max")}
SHAPES = "linear = {start = 5, rows = 1000000}, or staged = [{rows = 100000, max = 10}, ...]"
Tasks = Sequence[Any]  # ``TaskSettings``, whose file imports this one
Stages = tuple[tuple[int, int | None], ...]  # the first row of each, and its longest operands; None for all


def mix_of(given: object, tasks: Tasks, spelling: Spelling) -> dict[tuple[str, str | None], float]:
    """Return the weight of each task and view (None for that of the stream); none where no mix is given.

    Raises:
        UserError: a name is no task or view of the declaration, or a weight is none.
    """
    if given is None:
        return {}
    from .. import tm
    from .settings import ALIASES, VIEWS

    def refused(what: str, allowed: str) -> UserError:
        return spelling.refusal(f"mix {what}", "mix", allowed=allowed)

    if not isinstance(given, Mapping) or not given:
        allowed = "names of its tasks, or of a task and a view such as add-aligner, each with a number above 0"
        raise refused(f"is {literal(given)}", allowed)
    names, found = [task.task for task in tasks], dict[tuple[str, str | None], float]()
    for key, weight in given.items():
        name, dash, view = str(key).partition("-")
        task = ALIASES.get(name, name)
        if task not in names:
            near = did_you_mean(name[:60], names)
            raise refused(f"names {quoted(key)}, of which this declaration has no task{near}", ", ".join(names[:20]))
        missing = tm.machine(task).missing_views()
        views = [view for view in VIEWS if view not in missing]
        if dash and view not in views:
            why = f": {missing[view]}" if view in missing else did_you_mean(view[:60], views)
            raise refused(f"names {quoted(key)}, a view that is not there{why}", ", ".join(views))
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MOST:
            raise refused(f"gives {key} the weight {literal(weight)}", "a number above 0")
        if (task, view or None) in found:
            raise refused(f"names {task} twice", "each task and view once")
        found[task, view or None] = float(weight)
    return found


def stages_of(given: object, tasks: Tasks, spelling: Spelling) -> Stages:
    """Return the stages of a curriculum; one of all lengths where none is given.

    Raises:
        UserError: a setting that is refused, or a stage without a row.
    """
    if given is None:
        return ((0, None),)

    def refused(what: str, allowed: str = SHAPES) -> UserError:
        return spelling.refusal(what, "curriculum", allowed=allowed)

    if not isinstance(given, Mapping) or len(given) != 1:
        raise refused(f"curriculum is {literal(given)}")
    [(kind, value)] = given.items()
    if kind not in KINDS:
        raise refused(f"curriculum has the kind {quoted(kind)}{did_you_mean(str(kind)[:60], KINDS)}")
    tables = [value] if kind == "linear" else value
    if not isinstance(tables, list | tuple) or not tables or not all(isinstance(table, Mapping) for table in tables):
        raise refused(f"{kind} is {literal(value)}")
    low, high = min(task.min for task in tasks), max(task.max for task in tasks)
    if wrong := next(_wrong(tables, kind, low, high), None):
        raise refused(f"curriculum: {wrong[0]}", wrong[1])
    if kind == "linear":
        start, rows = tables[0]["start"], tables[0]["rows"]
        grown = {-(-more * rows // (high - start)): start + more for more in range(1, high - start)}
        return tuple({0: start, **grown, rows: None}.items())  # of those that begin at one row the last
    begin, stages = 0, list[tuple[int, int | None]]()
    for table in tables:
        stages.append((begin, table["max"]))
        begin += table["rows"]
    return (*stages, (begin, None))


def _wrong(tables: Iterable[Mapping[str, Any]], kind: str, low: int, high: int) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the settings of stages, and what is allowed."""
    names, longest = KINDS[kind], 0
    for table in tables:
        for name in [*table, *names]:
            value = table.get(name)
            if name not in names:
                yield f"{kind} has no setting {quoted(name)}{did_you_mean(str(name)[:60], names)}", " and ".join(names)
            elif not is_whole(value, 1, MOST):
                what = f"{kind} has no {name}" if value is None else f"{name} is {literal(value)}"
                yield what, f"{name}, a whole number from 1 to {MOST:,}"
            elif name != "rows" and not low <= value <= high:  # type: ignore[operator]
                what = f"{name} is {value:,}, and operands have {low:,} to {high:,} digits"
                yield what, f"{name} from {low:,} to {high:,}"
        most = table.get("max", 1)
        if most <= longest:
            yield f"a stage of max = {most:,} follows one of max = {longest:,}", "stages of ever longer operands"
        longest = most


def note(mix: object, curriculum: object) -> list[str]:
    """Return what a plan says of them: a build takes no account of either."""
    given = [name for name, value in (("mix", mix), ("curriculum", curriculum)) if value is not None]
    return [f"{' and '.join(given)}: of streams alone (caef_data.stream); a build writes all rows"] if given else []
