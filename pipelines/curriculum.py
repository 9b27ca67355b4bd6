"""What a declaration says of its streams alone: the weights of tasks and views, and operands that grow longer.

    [mix]
    add = 3
    sub-aligner = 0.5

    [curriculum]
    linear = {start = 5, rows = 1_000_000}

Both are functions of a row's number: ``stages_of`` has the rows from which on operands of a length come.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..errors import did_you_mean, quoted
from .spelling import Spelling, literal

SHAPES = "linear = {start = 5, rows = 1000000}, or staged = [{rows = 100000, max = 10}, ...]"
Tasks = Sequence[Any]  # ``TaskSettings``, whose file imports this one
Stages = tuple[tuple[int, int | None], ...]  # the first row of each, and its longest operands; None for all
Whole = Annotated[int, Meta(ge=1, le=10**12)]
Weights = Annotated[dict[str, Annotated[float, Meta(gt=0, le=10**12)]], Meta(min_length=1)]


class _Stage(msgspec.Struct, forbid_unknown_fields=True):
    rows: Whole
    max: Whole


class _Linear(msgspec.Struct, forbid_unknown_fields=True):
    start: Whole
    rows: Whole


class _Curriculum(msgspec.Struct, forbid_unknown_fields=True):
    linear: _Linear | None = None
    staged: Annotated[tuple[_Stage, ...], Meta(min_length=1)] | None = None


def mix_of(given: object, tasks: Tasks, spelling: Spelling) -> dict[tuple[str, str | None], float]:
    """Return the weight of each task and view (None for that of the stream); none where no mix is given.

    Raises:
        UserError: a name is no task or view of the declaration, or a weight is none.
    """
    if given is None:
        return {}
    from .. import tm
    from .settings import ALIASES, VIEWS

    known, found = dict[str, tuple[str, str | None]](), dict[tuple[str, str | None], float]()
    for task in (own.task for own in tasks):
        views = [view for view in VIEWS if view not in tm.machine(task).missing_views()]
        known |= {task: (task, None)} | {f"{task}-{view}": (task, view) for view in views}
    try:
        weights = msgspec.convert(given, Weights)
    except msgspec.ValidationError:
        allowed = "names of its tasks, or of a task and a view such as add-aligner, each with a number above 0"
        raise spelling.refusal(f"mix is {literal(given)}", "mix", allowed=allowed) from None
    for key, weight in weights.items():
        task, dash, view = key.partition("-")
        name = f"{ALIASES.get(task, task)}{dash}{view}"
        if name not in known:
            what = f"mix names {quoted(key)}, of which this declaration has no rows{did_you_mean(name[:60], known)}"
            raise spelling.refusal(what, "mix", allowed=", ".join([*known][:20]))
        found[known[name]] = found.get(known[name], 0) + weight
    return found


def stages_of(given: object, tasks: Tasks, spelling: Spelling) -> Stages:
    """Return the stages of a curriculum; one of all lengths where none is given.

    Raises:
        UserError: a setting that is refused, or a stage without a row.
    """
    if given is None:
        return ((0, None),)
    try:
        course = msgspec.convert(given, _Curriculum)
        wrong = "" if (course.linear is None) != (course.staged is None) else "one of linear and staged is expected"
    except msgspec.ValidationError as error:
        wrong = quoted(error, 200)
    if wrong:
        raise spelling.refusal(f"curriculum is {literal(given)}: {wrong}", "curriculum", allowed=SHAPES)
    linear, staged = course.linear, course.staged or ()
    low, high = min(task.min for task in tasks), max(task.max for task in tasks)
    longest = [linear.start] if linear else [stage.max for stage in staged]
    for before, most in pairwise([low - 1, *longest]):
        if not before < most <= high:
            what = f"curriculum: operands of up to {most:,} digits follow those of up to {before:,}"
            raise spelling.refusal(what, "curriculum", allowed=f"ever longer operands, of {low:,} to {high:,} digits")
    if linear is None:
        return tuple(zip(accumulate((stage.rows for stage in staged), initial=0), [*longest, None], strict=True))
    start, rows = linear.start, linear.rows
    grown = {-(-more * rows // (high - start)): start + more for more in range(1, high - start)}
    return tuple({0: start, **grown, rows: None}.items())  # of those that begin at one row the last
