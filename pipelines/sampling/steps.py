"""Which transitions of each expression are kept: the same few of every run, and random ones from between.

The turns of a loop of any length are drawn by integer arithmetic only: a floating-point logarithm differs in its last
bit from one processor to the next, rows must not.
"""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from ...tm.classes import Place
from ...tm.columns import I64, U64, Bool, Number, compare, length_of, stacked, widen
from ...tm.composer import CallBatch, Places
from ...tm.machine import Batch, Rows, walk_rows
from .random import digit_planes, random_below, random_u64

LOOP_KEEP_ALL = 10  # a composer's runs of at most this many transitions keep all of them
LOOP_RANDOM = 3  # rows kept of a longer one beside the first and the last: one uniform, the others log-uniform
PARTS = 4096  # table entries a decade
LEADING = 15  # digits of a table entry


def sampled_rows(batch: Batch, key: U64) -> Rows:
    """Return the rows that are kept of a batch; ``key`` (n,) seeds each expression's draws."""
    if isinstance(batch, CallBatch):
        return _of_loops(batch, key)
    return _of_walks(batch, key)


def _steps(batch: Batch, rows: I64) -> Callable[[Place], I64]:
    """Return what gives the step that a place means, of each of these expressions."""
    origins = {"first": np.zeros_like(rows), "len_a": batch.operands.a.length[rows], "end": batch.num_steps[rows]}
    return lambda place: origins[place[0]] + place[1]


def _of_walks(batch: Batch, key: U64) -> Rows:
    """Return the rows that a rule keeps: expressions in order, transitions of each in no particular order."""
    rule, whole = batch.machine.kept_steps, batch.num_steps <= batch.machine.kept_steps.keep_all
    kept, rest = np.flatnonzero(whole), np.flatnonzero(~whole)
    all_of, step = walk_rows(batch.num_steps[kept]), _steps(batch, rest)
    parts = [(kept[all_of.expression], all_of.index), *((rest, step(place)) for place in rule.fixed)]
    for salt, (low, high, count) in enumerate(rule.ranges):
        drawn = _distinct(step(low), step(high), count, key[rest], salt)
        parts += [(rest[here], chosen[here]) for chosen, here in drawn]
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _distinct(low: I64, high: I64, count: int, key: U64, salt: int) -> Iterator[tuple[I64, Bool]]:
    """Yield ``count`` columns of distinct integers of [low, high] with the mask of rows that have so many.

    The j-th draw picks one of the numbers not drawn yet: a rank among them, moved past each earlier draw at or below.
    """
    size = np.maximum(high - low + 1, 0)
    drawn = np.empty((0, len(low)), np.int64)
    for j in range(count):
        here = size > j
        rank = random_below(random_u64(key, salt * 64 + j), np.maximum(size - j, 1)).astype(np.int64)
        for earlier in np.sort(drawn, axis=0):
            rank += rank >= earlier
        # Rows that have run out repeat nothing: their rank lies past every real one and is masked.
        drawn = np.concatenate([drawn, np.where(here, rank, size + j)[None]])
        yield low + rank, here


def rows_in_turn(batch: Batch, expression: I64, key: U64, turn: I64, *, every: bool) -> Rows:
    """Return rows of expressions; as ``turn`` goes on by one, all that are kept of one come one after the other.

    Args:
        batch: the expressions.
        expression: that of each row.
        key: seeds each expression's draws, and says where it begins.
        turn: how many rows of its expression went before each row.
        every: all transitions are kept, not those that ``sampled_rows`` gives.
    """
    begin = random_u64(key, 1)[expression]
    if every and not isinstance(batch, CallBatch):  # of long runs they are too many to be listed
        count = batch.num_steps[expression]
        return Rows(expression, (random_below(begin, count).astype(np.int64) + turn) % count)
    kept = batch.every() if every else sampled_rows(batch, key)
    order, each = np.argsort(kept.expression, kind="stable"), np.bincount(kept.expression, minlength=len(key))
    first, count = (np.cumsum(each) - each)[expression], each[expression]
    return batch.take(kept, order[first + (random_below(begin, count).astype(np.int64) + turn) % count])


def _of_loops(batch: CallBatch, key: U64) -> Rows:
    """Return the rows that are kept of a composer's runs."""
    num_steps, machine = batch.num_steps, batch.machine
    whole = (num_steps >= 0) & (num_steps <= LOOP_KEEP_ALL)
    kept, rest = batch.walked(np.flatnonzero(whole)), np.flatnonzero(~whole)
    limit = batch.turns.take(rest)
    nothing = Number(np.zeros((1, len(rest)), np.uint8))
    parts = [
        (kept.expression, kept.index.at, kept.index.turn),
        (rest, np.full(len(rest), len(machine.calls) - 1), nothing),
        (rest, np.full(len(rest), machine.leaves), limit),
        *((rest, at, turn) for at, turn in _random_places(key[rest], limit, len(machine.calls))),
    ]
    expressions, ats, turns = zip(*parts, strict=True)
    return Rows(np.concatenate(expressions), Places(np.concatenate(ats), stacked(turns)))


def _random_places(key: U64, limit: Number, calls: int) -> list[tuple[I64, Number]]:
    """Draw distinct places before the last turn: one uniform, the others uniform in the turn's logarithm."""
    drawn: list[tuple[I64, Number]] = []
    for j in range(LOOP_RANDOM):
        at, turn = np.zeros(len(key), np.int64), _zeros(limit)
        todo, attempt = np.arange(len(key)), 0
        while len(todo):
            salt = random_u64(key[todo], 1000 * j + attempt)
            _put(turn, todo, (log_uniform if j else uniform)(limit.take(todo), salt))
            at[todo] = random_below(random_u64(salt, 1), np.full(len(todo), calls)).astype(np.int64)
            repeats = np.zeros(len(todo), np.bool_)
            for earlier_at, earlier in drawn:
                same = (earlier.planes[:, todo] == turn.planes[:, todo]).all(axis=0)
                repeats |= same & (at[todo] == earlier_at[todo])
            todo, attempt = todo[repeats], attempt + 1
        drawn.append((at, turn))
    return drawn


def _zeros(like: Number) -> Number:
    return Number(np.zeros_like(like.planes), np.ones_like(like.length))


def _put(numbers: Number, rows: I64, values: Number) -> None:
    """Put values at rows of a wider column."""
    numbers.planes[:, rows] = widen(values.planes, numbers.width)
    numbers.length[rows] = values.length


def uniform(limit: Number, key: U64) -> Number:
    """Return integers of [1, limit), shape (n,); every limit must be at least 2."""
    drawn, todo, attempt = _zeros(limit), np.arange(len(key)), 0
    while len(todo):
        high = limit.take(todo)
        planes = digit_planes(random_u64(key[todo], 2 * attempt + 2), high.width)
        planes *= np.arange(high.width)[:, None] < high.length
        first = (high.length - 1, np.arange(len(todo)))
        word = random_u64(key[todo], 2 * attempt + 3)
        planes[first] = random_below(word, high.planes[first].astype(np.int64) + 1).astype(np.uint8)
        values = Number(planes, length_of(planes, high.length))
        _put(drawn, todo, values)
        todo, attempt = todo[(compare(values, high) >= 0) | values.is_zero()], attempt + 1
    return drawn


@cache
def _powers() -> I64:
    """Return 10**(LEADING - 1 + j / PARTS) rounded down, j = 0..PARTS."""
    from decimal import Decimal, localcontext  # inside: only the runs of mul and div need it

    with localcontext() as context:
        context.prec = 60
        ratio = Decimal(10) ** (Decimal(1) / PARTS)
        power, powers = Decimal(10) ** (LEADING - 1), []
        for _ in range(PARTS):
            powers.append(int(power))
            power *= ratio
    return np.array([*powers, 10**LEADING], np.int64)


def log_uniform(limit: Number, key: U64) -> Number:
    """Return integers of [1, limit), uniform in their logarithm (rounded down); every limit must be at least 2."""
    rows = np.arange(len(key))
    leading = np.zeros(len(key), np.int64)
    for back in range(1, LEADING + 1):
        place = limit.length - back
        leading = leading * 10 + np.where(place >= 0, limit.digit(rows, np.maximum(place, 0)), 0)
    decades = (limit.length - 1) * PARTS + np.searchsorted(_powers(), leading, "right") - 1
    # The exponent in 1/PARTS of a decade, with 20 more bits to interpolate between the table's entries.
    exponent = (random_u64(key, 1) >> np.uint64(32)) * decades.astype(np.uint64)
    entry = (exponent >> np.uint64(32)).astype(np.int64)
    between = ((exponent & np.uint64(0xFFFFFFFF)) >> np.uint64(12)).astype(np.int64)
    low, high = _powers()[entry % PARTS], _powers()[entry % PARTS + 1]
    mantissa = low + ((high - low) * (between >> 4) >> 16)
    # Leading digits from the mantissa, random ones below.
    length = entry // PARTS + 1
    planes = digit_planes(random_u64(key, 2), limit.width)
    planes *= np.arange(limit.width)[:, None] < length
    for back in range(1, LEADING + 1):
        here = np.flatnonzero(length >= back)
        planes[length[here] - back, here] = mantissa[here] // 10 ** (LEADING - back) % 10
    over = compare(Number(planes, length), limit) >= 0  # only where the table's rounding meets the limit itself
    planes[:, over] = 0
    planes[0, over] = 1
    length[over] = 1
    return Number(planes, length)
