"""The formats of one line or a few a rule: those of the busy beaver lists and of turingmachinesimulator.com."""

import io
import re
import string

from ...errors import quoted
from .rules import LEFT, MOST_RULES, RIGHT, STAY, Rule, TableWriter

CELL = re.compile(r"([0-9])([LR])([A-Z])", re.ASCII)
MOVES = {"<": LEFT, "-": STAY, ">": RIGHT}
MOST_TAPES = 16
HEADER = re.compile(r"(name|init|accept)\s*:(.*)")
Fields = tuple[int | None, list[str]]  # a line's number and what stands between its commas


def bbchallenge(text: str, writer: TableWriter) -> str:
    """Read such as ``1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA``, and return the first state.

    A row for each state A, B, ..., with ``_`` between rows; in a row three characters for each symbol 0, 1, ...: what
    is written, where the head goes, the next state. ``---`` is no rule. Z and H are states without rules where the
    table has no row of that name. Errors name the state and symbol, as all is one line.
    """
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
                rule = Rule((found[1],), (LEFT if found[2] == "L" else RIGHT,), found[3])
                writer.add(None, state, (str(symbol),), rule)
            elif cell != "---":
                allowed = f"a symbol 0 to {size - 1}, L or R, and a state of {states}, or H or Z to halt; or ---"
                raise writer.error(f"the state {state} at symbol {symbol} has {quoted(cell)}", None, allowed)
    return "A"


def turingmachinesimulator(text: str, writer: TableWriter) -> str:
    """Read ``name:``, ``init:``, ``accept:``, then pairs of lines, and return the first state.

    The first line of a pair is the state and what the heads read, ``q0,0``; the second one the next state, what is
    written and where the heads go, ``q1,_,>``. With several tapes all reads stand first, then all writes, then all
    moves. ``//`` begins a comment, the blank is ``_``. The site halts where it enters a state of ``accept:``.
    """
    writer.blank, headers, lines = "_", dict[str, Fields](), list[Fields]()
    for number, whole in enumerate(io.StringIO(text, newline=None), 1):
        line = whole.partition("//")[0].strip()
        header = HEADER.fullmatch(line)
        if header and header[1] in headers:
            raise writer.error(f"{header[1]}: is there twice, first in line {headers[header[1]][0]}", number)
        fields = number, [part.strip() for part in (header[2] if header else line).split(",")]
        if header:
            headers[header[1]] = fields
        elif line:
            lines.append(fields)
        if len(lines) > 2 * MOST_RULES:
            raise writer.error("this table is too large", number, f"{MOST_RULES:,} rules at most")
    (init_line, initial), (accept_line, accepting) = (headers.get(name, (None, [""])) for name in ("init", "accept"))
    if len(initial := [*filter(None, initial)]) != 1:
        raise writer.error("the first state is not named", init_line, "a line such as init: q0")
    for index in range(0, len(lines), 2):
        _add(writer, lines[index : index + 2], len(lines[0][1]) - 1)
    with_rules = dict.fromkeys(state for state, _ in writer.rules)
    if wrong := next((state for state in accepting if state in with_rules), None):
        what = f"the state {quoted(wrong)} accepts, so the simulator halts there, but it has rules"
        raise writer.error(what, accept_line, "accepting states without rules")
    return writer.known(initial[0], with_rules, init_line)


def _add(writer: TableWriter, pair: list[Fields], num_tapes: int) -> None:
    number, (state, *reads) = pair[0]
    seen = quoted(",".join([state, *reads]))
    if len(reads) != num_tapes or not 1 <= num_tapes <= MOST_TAPES:
        allowed = f"1 to {MOST_TAPES}, one a tape, in all rules alike"
        raise writer.error(f"{seen} reads {len(reads):,} symbols", number, allowed)
    if len(pair) < 2:
        allowed = "a line with the next state, symbols and moves after it"
        raise writer.error(f"nothing says what is done for {seen}", number, allowed)
    line, (then, *actions) = pair[1]
    writes, moves = actions[:num_tapes], actions[num_tapes:]
    if len(moves) != num_tapes or not set(moves) <= set(MOVES):
        allowed = "the next state, then a symbol for each tape, then a move for each tape: <, > or -"
        raise writer.error(f"{quoted(','.join([then, *actions]))} does not say what is done", line, allowed)
    writer.add(number, state, tuple(reads), Rule(tuple(writes), tuple(MOVES[move] for move in moves), then), line)
