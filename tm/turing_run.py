"""One run of a Turing machine, as fast as Python goes, without its entries: where it ends, and after how many steps."""

from __future__ import annotations

from typing import NamedTuple

from .formats.rules import RuleTable
from .turing import Tapes

ROOM = 1 << 12  # cells that a tape grows by at first; each time twice as many


class RunEnd(NamedTuple):
    """Where a run stands.

    Args:
        steps: rules carried out.
        halted: whether no rule is left to carry out.
        state: the state.
        marks: cells that hold no blank, on all tapes.
        lacks: it has halted in a state that has rules, for lack of this one: the busy beaver lists count a step more.
    """

    steps: int
    halted: bool
    state: str
    marks: int
    lacks: bool


def run_to_end(table: RuleTable, now: Tapes, most: int) -> RunEnd:
    """Run a machine on from what it knows, for at most so many steps; ``now`` is changed."""
    steps = _one_tape(table, now, most) if table.num_tapes == 1 else 0
    while table.num_tapes > 1 and steps < most and (rule := table.rules.get((now.state, now.read))):
        now.execute(rule, table.blank)
        steps += 1
    halted = (now.state, now.read) not in table.rules
    marks = sum(symbol != table.blank for cells in now.cells for symbol in cells)
    return RunEnd(steps, halted, now.state, marks, halted and any(state == now.state for state, _ in table.rules))


def _one_tape(table: RuleTable, now: Tapes, most: int) -> int:
    """Run on a tape of bytes between two marks: whatever has no entry in the list of rules ends the loop."""
    symbols = {symbol: code for code, symbol in enumerate(table.symbols)}
    stride, mark = len(symbols) + 1, len(symbols)
    states = {state: number * stride for number, state in enumerate(table.states)}
    rules: list[tuple[int, int, int]] = [None] * (stride * len(states))  # type: ignore[list-item]
    for (state, (read,)), rule in table.rules.items():
        rules[states[state] + symbols[read]] = symbols[rule.write[0]], rule.moves[0], states[rule.next]
    tape = bytearray([mark, *(symbols[symbol] for symbol in now.cells[0]), mark])
    control, head, taken, room = states[now.state], now.heads[0] + 1, 0, ROOM
    while True:
        if head == 0:
            tape[:1], head, room, now.origin = bytes([mark]) + bytes(room), room, 2 * room, now.origin + room
        elif head == len(tape) - 1:
            tape[-1:], room = bytes(room) + bytes([mark]), 2 * room
        elif taken == most or rules[control + tape[head]] is None:
            break
        try:
            for taken in range(taken, most):  # noqa: B007, B020  it is read after the loop
                write, move, control = rules[control + tape[head]]
                tape[head] = write
                head += move
            taken = most
        except TypeError:  # no rule, or a mark
            pass
    now.state = table.states[control // stride]
    now.cells, now.heads = [[table.symbols[code] for code in tape[1:-1]]], [head - 1]
    return taken
