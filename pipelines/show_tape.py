"""The run of a Turing machine on a word, for people: its entries, or a picture of the tape where there are many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from ..errors import UserError, quoted
from ..tm.machine import HALT
from ..tm.turing import Tapes, TuringMachine
from ..tm.turing_engine import RunEnd, run_to_end

MOST_ENTRIES = 60  # longer runs are shown as a picture
LINES = 40  # of a picture
MOST_STEPS = 10**7  # of a run that is looked at
SHADES = " ░▒▓█"  # how many of the cells that one character stands for hold a symbol
BLANK, HEAD = "·", "bold reverse"


def print_words(
    machine: TuringMachine, words: Sequence[str], console: Console, max_steps: int, *, as_json: bool
) -> None:
    """Print the runs of a machine on words: for people, or one line of JSON each.

    Raises:
        UserError: a run is too long for JSON.
    """
    for word in words:
        if as_json:
            _print_json(machine, word, max_steps)
        else:
            _print_run(machine, word, console)


def _print_json(machine: TuringMachine, word: str, max_steps: int) -> None:
    end = run_to_end(machine.table, machine.start(word), max_steps)
    if not end.halted:
        raise UserError(
            f"{machine.name} does not halt within {max_steps:,} steps",
            where=f"the word {quoted(word)}",
            allowed="--json gives whole runs of up to --max-steps steps",
            next_step="leave --json out to see a picture of the run, or raise --max-steps",
        )
    steps = [[step.prompt, step.completion] for step in machine.transitions(word)]
    row = {"task": machine.name, "a": word, "b": None, "steps": steps, "aligner_in": None, "aligner_out": None}
    print(json.dumps(row))


def _print_run(machine: TuringMachine, word: str, console: Console) -> None:
    """Print a run: all entries of a short one; else a picture of the first tape, a line for every so many steps."""
    end = run_to_end(machine.table, machine.start(word), MOST_STEPS)
    console.print(Text(f"{machine.title} on {word or 'a blank tape'}: {_told(machine, word, end)}"), soft_wrap=True)
    if end.halted and end.steps <= MOST_ENTRIES:
        for number, (state, tapes, command) in enumerate(_entries(machine, word)):
            console.print(
                Text(f"{number:>4} {state}  ", "bold cyan"), tapes, Text(f"  {command}", "green"), soft_wrap=True
            )
        return
    lines = list(_picture(machine, word, end.steps))
    first, last = min(start for _, start, _, _ in lines), max(start + len(cells) for _, start, cells, _ in lines)
    width = max(console.width - 14, 20)
    each = -(-(last - first) // width)
    for steps, start, cells, head in lines:
        console.print(
            Text(f"{steps:>12,} "), _squeezed(cells, start - first, head - first, each), sep="", soft_wrap=True
        )
    if each > 1:
        console.print(f"a character stands for {each:,} cells: {SHADES[1:]} tell how many of them hold a symbol")


def _told(machine: TuringMachine, word: str, end: RunEnd) -> str:
    if not end.halted:
        return f"goes on after {end.steps:,} steps, in state {end.state}, with {end.marks:,} cells that are not blank"
    answer = f", answer {machine.answer(word) or 'nothing'}" if machine.output and end.steps <= MOST_ENTRIES else ""
    return f"halts after {end.steps:,} steps in state {end.state}, {end.marks:,} cells are not blank{answer}"


def _entries(machine: TuringMachine, word: str) -> Iterator[tuple[str, Text, str]]:
    """Yield state, tapes and command of each entry."""
    now = machine.start(word)
    while True:
        rule = machine.table.rules.get((now.state, now.read))
        command = machine.command(rule, now.read)
        yield now.state, _tapes(machine, now), "halts" if command == HALT else command.removeprefix("CMD ")
        if rule is None:
            return
        now.execute(rule, machine.table.blank)


def _tapes(machine: TuringMachine, now: Tapes) -> Text:
    """Return the tapes, the cell under each head in brackets."""
    text = Text()
    for tape, (cells, head) in enumerate(zip(now.cells, now.heads, strict=True)):
        text.append("   " * (tape > 0))
        for place, symbol in enumerate(cells):
            text.append(f"[{symbol}]" if place == head else f" {symbol} ", HEAD if place == head else "")
    return text


def _picture(machine: TuringMachine, word: str, steps: int) -> Iterator[tuple[int, int, list[str], int]]:
    """Yield, ``LINES`` times over a run: steps so far, place of the first cell, the cells, place of the head.

    Places count from the cell where the head began.
    """
    now, taken, blank = machine.start(word), 0, machine.table.blank
    for line in range(LINES + 1):
        until = steps * line // LINES
        run_to_end(machine.table, now, until - taken)
        taken = until
        [cells, *_], [head, *_] = now.cells, now.heads
        held = [place for place, symbol in enumerate(cells) if symbol != blank or place == head]
        shown = [BLANK if symbol == blank else symbol[0] for symbol in cells[held[0] : held[-1] + 1]]
        yield taken, held[0] - now.origin, shown, head - now.origin


def _squeezed(cells: list[str], start: int, head: int, each: int) -> Text:
    """Return a line of a picture; a character stands for ``each`` cells."""
    text = Text(" " * (start // each))
    if each == 1:
        text.append("".join(cells))
        text.stylize(HEAD, head, head + 1)
        return text
    by_place: dict[int, int] = {}
    for place, symbol in enumerate(cells, start):
        by_place[place // each] = by_place.get(place // each, 0) + (symbol != BLANK)
    for place in range(start // each, (start + len(cells) - 1) // each + 1):
        text.append(SHADES[-(-by_place.get(place, 0) * (len(SHADES) - 1) // each)])
    text.stylize(HEAD, head // each, head // each + 1)
    return text
