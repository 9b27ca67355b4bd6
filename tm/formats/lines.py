"""The formats of one line or a few a rule: those of the busy beaver lists and of turingmachinesimulator.com."""

import io
import re
import string

from ...errors import quoted
from .rules import LEFT, RIGHT, STAY, Rule, TableWriter

SIDES, MOVES = {"L": LEFT, "R": RIGHT}, {"<": LEFT, "-": STAY, ">": RIGHT}
HEADER = re.compile(r"(name|init|accept)\s*:(.*)")
PAIRS = "pairs of lines: a state, what each tape reads; the next state, what each writes, a move <, > or - of each"
Fields = tuple[int | None, list[str]]  # a line's number and what stands between its commas


def bbchallenge(text: str, writer: TableWriter) -> str:
    """Read such as ``1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA``, and return the first state.

    A row for each state A, B, ..., with ``_`` between rows; in a row three characters for each symbol 0, 1, ...: what
    is written, where the head goes, the next state. ``---`` is no rule. Z and H are states without rules where the
    table has no row of that name. Errors name the state and symbol, as all is one line.
    """
    writer.blank, rows = "0", text.strip().split("_")
    size, states = len(rows[0]) // 3, string.ascii_uppercase[: len(rows)]
    what = f"{len(rows):,} rows, that of the state A with {len(rows[0]):,} characters: {quoted(rows[0])}"
    allowed = "1 to 26 rows, three characters for each symbol, 2 to 10 symbols"
    writer.require(2 <= size <= 10 and len(rows) <= 26, what, None, allowed)
    pattern = re.compile(f"([0-{size - 1}])([LR])([{states}HZ])|---")
    allowed = f"a symbol 0 to {size - 1}, L or R, and a state of {states}, or H or Z to halt; or ---"
    for state, row in zip(states, rows, strict=True):
        what = f"the row of the state {state} has {len(row):,} characters: {quoted(row)}"
        writer.require(len(row) == 3 * size, what, None, f"{3 * size}, as that of the state A")
        for symbol in range(size):
            cell = row[3 * symbol : 3 * symbol + 3]
            if (found := pattern.fullmatch(cell)) is None:
                raise writer.error(f"the state {state} at symbol {symbol} has {quoted(cell)}", None, allowed)
            if cell != "---":
                writer.add(None, state, (str(symbol),), Rule((found[1],), (SIDES[found[2]],), found[3]))
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
        fields = number, [part.strip() for part in (header[2] if header else line).split(",")]
        if header:
            first, _ = headers.setdefault(header[1], fields)
            writer.require(first == number, f"{header[1]}: is there twice, first in line {first}", number)
        elif line:
            lines.append(fields)
    for pair in zip(lines[::2], [*lines[1::2], (None, list[str]())], strict=False):
        _add(writer, *pair)
    (init_line, initial), (accept_line, accepting) = (headers.get(name, (None, [""])) for name in ("init", "accept"))
    writer.require(len(initial) == 1 and initial[0], "the first state is not named", init_line, "such as init: q0")
    with_rules = dict.fromkeys(state for state, _ in writer.rules)
    for state in accepting:
        what = f"the state {quoted(state)} accepts, so the simulator halts there, but it has rules"
        writer.require(state not in with_rules, what, accept_line, "accepting states without rules")
    return writer.known(initial[0], with_rules, init_line)


def _add(writer: TableWriter, when: Fields, what: Fields) -> None:
    (number, (state, *reads)), (line, done) = when, what
    num_tapes = len(reads)
    writes, moves = done[1 : num_tapes + 1], done[num_tapes + 1 :]
    fits = num_tapes and len(done) == 2 * num_tapes + 1 and MOVES.keys() >= {*moves}
    told = f"{quoted(','.join(done))} does not say what is done for {quoted(','.join([state, *reads]))}"
    writer.require(fits, told, line or number, PAIRS)
    writer.add(number, state, tuple(reads), Rule(tuple(writes), tuple(MOVES[move] for move in moves), done[0]))
