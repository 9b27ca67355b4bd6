"""The text of the busy beaver lists: ``1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA``.

A row for each state A, B, ..., with ``_`` between rows; in a row three characters for each symbol 0, 1, ...: what is
written, where the head goes, the next state. ``---`` is no rule. Z and H are states without rules where the table has
no row of that name.
"""

import re
import string

from ...errors import quoted
from .rules import LEFT, RIGHT, Rule, TableWriter

CELL = re.compile(r"([0-9])([LR])([A-Z])", re.ASCII)


def read(text: str, writer: TableWriter) -> str:
    """Read a text; its first state is returned. Errors name the state and symbol, as all is one line."""
    writer.blank, rows = "0", text.strip().split("_")
    size, rest = divmod(len(rows[0]), 3)
    if rest or not 2 <= size <= 10 or len(rows) > 26:
        what = f"{len(rows):,} rows, that of the state A with {len(rows[0]):,} characters: {quoted(rows[0])}"
        raise writer.error(what, None, "1 to 26 rows, three characters for each symbol, 2 to 10 symbols")
    states = string.ascii_uppercase[: len(rows)]
    for state, row in zip(states, rows, strict=True):
        if len(row) != 3 * size:
            what = f"the row of the state {state} has {len(row):,} characters: {quoted(row)}"
            raise writer.error(what, None, f"{3 * size}, as that of the state A")
        for symbol in range(size):
            cell = row[3 * symbol : 3 * symbol + 3]
            found = CELL.fullmatch(cell)
            if found and int(found[1]) < size and found[3] in f"{states}HZ":
                move = LEFT if found[2] == "L" else RIGHT
                writer.add(None, state, (str(symbol),), Rule((found[1],), (move,), found[3]))
            elif cell != "---":
                allowed = f"a symbol 0 to {size - 1}, L or R, and a state of {states}, or H or Z to halt; or ---"
                raise writer.error(f"the state {state} at symbol {symbol} has {quoted(cell)}", None, allowed)
    return "A"
