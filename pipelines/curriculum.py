"""What a declaration says of its streams alone: the weights of tasks and views, and operands that grow longer.

    [mix]
    add = 3
    sub-aligner = 0.5

    [curriculum]
    linear = {start = 5, rows = 1_000_000}

Both are functions of a row's number: ``stages_of`` has the rows from which on operands of a length come.
"""

from __future__ import annotations

from itertools import accumulate, pairwise, product
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..errors import did_you_mean, quoted
from .spelling import PLAIN, Spelling, literal

NAMED = "names of its tasks, or of a task and a view such as add-aligner, each with a number above 0"
SHAPES = "linear = {start = 5, rows = 1000000}, or staged = [{rows = 100000, max = 10}, ...]"
Declared = Any  # a ``Declaration``, whose file imports this one
Whole = Annotated[int, Meta(ge=1, le=10**12)]
Mix = Annotated[dict[str, Annotated[float, Meta(gt=0, le=10**12)]], Meta(min_length=1, description=NAMED)]


class _Stage(msgspec.Struct, forbid_unknown_fields=True):
    rows: Whole
    max: Whole


class _Linear(msgspec.Struct, forbid_unknown_fields=True):
    start: Whole
    rows: Whole


class _Curriculum(msgspec.Struct, forbid_unknown_fields=True):
    linear: _Linear | None = None
    staged: Annotated[tuple[_Stage, ...], Meta(min_length=1)] | None = None


Curriculum = Annotated[_Curriculum, Meta(description=SHAPES)]


def mix_of(declaration: Declared, view: str = "one_step", spelling: Spelling = PLAIN) -> dict[tuple[str, str], float]:
    """Return the weight of each task and view, ``view`` where none is named; nothing where no mix is given.

    Raises:
        UserError: a name is no task or view of the declaration.
    """
    from .. import tm
    from .settings import ALIASES, VIEWS

    known, found = dict[str, tuple[str, str]](), dict[tuple[str, str], float]()
    for task in (own.task for own in declaration.tasks):
        names = [task, *(name for name, short in ALIASES.items() if short == task)]
        views = [own for own in VIEWS if own not in tm.machine(task).missing_views()]
        known |= {name: (task, view) for name in names}
        known |= {f"{name}-{own}": (task, own) for name, own in product(names, views)}
    for name, weight in (declaration.mix or {}).items():
        if name not in known:
            what = f"mix names {quoted(name)}, of which this declaration has no rows{did_you_mean(name[:60], known)}"
            raise spelling.refusal(what, "mix", allowed=", ".join([*known][:20]))
        found[known[name]] = found.get(known[name], 0) + float(weight)
    return found


def stages_of(declaration: Declared, spelling: Spelling = PLAIN) -> tuple[tuple[int, int | None], ...]:
    """Return the first row of each stage of a curriculum, and its longest operands; None for all.

    Raises:
        UserError: lengths that do not grow, or that no operand has.
    """
    if declaration.curriculum is None:
        return ((0, None),)
    course = msgspec.convert(declaration.curriculum, _Curriculum)
    linear, staged = course.linear, course.staged or ()
    if bool(linear) == bool(staged):
        what = f"curriculum is {literal(declaration.curriculum)}: one of linear and staged is expected"
        raise spelling.refusal(what, "curriculum", allowed=SHAPES)
    low, high = min(task.min for task in declaration.tasks), max(task.max for task in declaration.tasks)
    longest = [linear.start] if linear else [stage.max for stage in staged]
    if outside := [most for most in longest if not low <= most <= high]:
        what = f"curriculum: {'start' if linear else 'max of a stage'} is {outside[0]:,}"
        span = "the task's min to its max" if len(declaration.tasks) == 1 else "the least min to the largest max"
        raise spelling.refusal(what, "curriculum", allowed=f"{low:,} to {high:,}: from {span}")
    for before, most in pairwise(longest):
        if before >= most:
            what = f"curriculum: operands of up to {most:,} digits follow those of up to {before:,}"
            raise spelling.refusal(what, "curriculum", allowed=f"ever longer operands, of {low:,} to {high:,} digits")
    if not linear:
        return tuple(zip(accumulate((stage.rows for stage in staged), initial=0), [*longest, None], strict=True))
    start, rows = linear.start, linear.rows
    grown = {-(-more * rows // (high - start)): start + more for more in range(1, high - start)}
    return tuple({0: start, **grown, rows: None}.items())  # of those that begin at one row the last
