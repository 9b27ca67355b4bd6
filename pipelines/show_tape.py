"""A long run of a Turing machine for people: a picture of its first tape, a line for every so many steps."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from ..tm.turing import TuringMachine, run_to_end

LINES = 40
SHADES = " ░▒▓█"  # how many of the cells that one character stands for hold a symbol
BLANK, HEAD = "·", "bold reverse"


def print_picture(machine: TuringMachine, word: str, steps: int, console: Console) -> None:
    """Print the tape ``LINES`` times over a run of so many steps; wide ones in characters that stand for many cells.

    Places are counted from the one where the head began.
    """
    now, blank, taken = machine.start(word), machine.table.blank, 0
    lines: list[tuple[int, dict[int, str], int]] = []  # steps so far, cells, head
    for line in range(LINES + 1):
        run_to_end(machine.table, now, steps * line // LINES - taken)
        taken = steps * line // LINES
        head = now.heads[0] - now.origin
        cells = {place - now.origin: symbol for place, symbol in enumerate(now.cells[0]) if symbol != blank}
        lines.append((taken, cells, head))
    places = [place for _, cells, head in lines for place in (*cells, head)]
    first, width = min(places), max(places) - min(places) + 1
    each = -(-width // max(console.width - 14, 20))
    for count, cells, head in lines:
        text = Text()
        for start in range(first, max((*cells, head)) + 1, each):
            held = [cells[place][0] for place in range(start, start + each) if place in cells]
            here = start <= head < start + each
            blanks = BLANK if here or min(cells, default=head) < start else " "
            shown = (held or [blanks])[0] if each == 1 else SHADES[-(-len(held) * (len(SHADES) - 1) // each)]
            text.append(shown, HEAD if here else "")
        console.print(Text(f"{count:>12,} "), text, sep="", soft_wrap=True)
    if each > 1:
        console.print(f"a character stands for {each:,} cells: {SHADES[1:]} tell how many of them hold a symbol")
