"""The text of turingmachinesimulator.com: ``name:``, ``init:``, ``accept:``, then pairs of lines.

The first line of a pair is the state and what the heads read, ``q0,0``; the second one the next state, what is written
and where the heads go, ``q1,_,>``. With several tapes all reads stand first, then all writes, then all moves. ``//``
begins a comment, and the blank is ``_``. The site halts where it enters a state of ``accept:``.
"""

import io
import re

from ...errors import quoted
from .rules import LEFT, MOST_RULES, RIGHT, STAY, Rule, TableWriter

MOVES = {"<": LEFT, "-": STAY, ">": RIGHT}
MOST_TAPES = 16
HEADER = re.compile(r"(name|init|accept)\s*:(.*)")
Fields = tuple[int | None, list[str]]  # a line's number and what stands between its commas


def read(text: str, writer: TableWriter) -> str:
    """Read a text; its first state is returned."""
    writer.blank, headers, lines = "_", dict[str, Fields](), list[Fields]()
    for number, whole in enumerate(io.StringIO(text, newline=None), 1):
        line = whole.partition("//")[0].strip()
        if header := HEADER.fullmatch(line):
            if header[1] in headers:
                raise writer.error(f"{header[1]}: is there twice, first in line {headers[header[1]][0]}", number)
            headers[header[1]] = number, [part.strip() for part in header[2].split(",") if part.strip()]
        elif line:
            if len(lines) > 2 * MOST_RULES:
                raise writer.error("this table is too large", number, f"{MOST_RULES:,} rules at most")
            lines.append((number, [part.strip() for part in line.split(",")]))
    init_line, initial = headers.get("init", (None, []))
    if len(initial) != 1:
        raise writer.error("the first state is not named", init_line, "a line such as init: q0")
    for index in range(0, len(lines), 2):
        _add(writer, lines[index : index + 2], len(lines[0][1]) - 1)
    with_rules = dict.fromkeys(state for state, _ in writer.rules)
    accept_line, accepting = headers.get("accept", (None, []))
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
    rule = Rule(tuple(writes), tuple(MOVES[move] for move in moves), then)
    writer.add(number, state, tuple(reads), rule, line)
