"""Entries that no correct run holds: an entry of a run with one slip in it, and exactly what follows.

A model reads its own last answer. What is wrong in its state line it also decides by: such an entry has the command
that the machine gives for the slipped line. Only ``wrong_state`` stands in the command itself. Of a composer's entry
what it was told by the called machine or its own register is wrong. The initial entry is no answer and has no slip.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..errors import UserError
from .basic import BasicMachine
from .composer import Composer
from .entries import entries
from .interpreter import Configuration
from .machine import Machine
from .successor import successor_of

SLIPS = ("lost_carry", "head_off", "wrong_digit", "wrong_truth", "wrong_state", "wrong_count")  # docs/columns.md
Options = dict[str, Callable[[], str]]  # the slips that an entry can have, each with what writes it


class Slipped(NamedTuple):
    """An entry with a slip, and the one that follows it, as the columns of a row say it."""

    slip: str
    prompt: str
    completion: str
    state: str
    next_state: str
    call: str | None


class Draw:
    """Takes small numbers off a 64-bit key."""

    def __init__(self, key: int) -> None:
        self.key = key

    def below(self, size: int) -> int:
        self.key, value = divmod(self.key, size)
        return value

    def digit(self, tape: str, least: int = 0) -> str:
        """Return a tape or a row of digits with another digit at one place; the last one is not below ``least``."""
        width = 2 if tape[0] == "|" else 1
        at = width * (self.below(len(tape) // width) + 1) - 1
        others = "0123456789"[least if at == len(tape) - 1 else 0 :].replace(tape[at], "")
        return f"{tape[:at]}{others[self.below(len(others))]}{tape[at + 1 :]}"


def slipped(machine: Machine, prompt: str, key: int, far: bool = False) -> Slipped:
    """Return an entry of a run with a slip, drawn among those that it can have.

    Args:
        machine: one of the nine.
        prompt: the entry, as a one-step row has it, but the first one of a run.
        key: 64 bits that decide.
        far: the number of its step does not fit 64 bits, and must be told from the entry: its registers stay.
    """
    at, draw = len(machine.title) + 2, Draw(key)
    state = prompt[at : at + 2]
    options, calls = Options(), dict[str, str]()
    if isinstance(machine, BasicMachine):
        options = _of_basic(machine, state, prompt, draw)
    elif isinstance(machine, Composer) and state != "q0":
        options, calls = _of_composer(machine, state, prompt, draw, far), {one.state: one.task for one in machine.calls}
    while options:
        rare = "lost_carry" in options and draw.below(2)  # half of the rows where there is a carry to lose
        slip = "lost_carry" if rare else list(options)[draw.below(len(options))]
        prompt = options.pop(slip)()
        try:
            completion = successor_of(machine)(prompt)
        except UserError:
            continue  # nothing follows, as where LEFT_MASK must take back a digit and has none
        following = completion[at : at + 2]
        return Slipped(slip, prompt, completion, prompt[at : at + 2], following, calls.get(following))
    raise ValueError(f"this entry of {machine.name} has no slip: {prompt!r}")


def _of_basic(machine: BasicMachine, state: str, prompt: str, draw: Draw) -> Options:
    forms = entries(machine.name).forms
    match = forms[state].match(prompt) if state != "q0" else None
    if match is None:
        return {}
    told = {name: text.replace("|", "") for name, text in match.groupdict().items() if name != "command"}
    lefts = [told.get(f"{name}_left", "") for name in "ab"[: 1 if machine.unary else 2]]
    tapes = [left + told.get(f"{name}_right", "") for name, left in zip("ab", lefts, strict=False)]
    heads = tuple(map(len, lefts))
    now = Configuration(state, tuple(tapes), heads, told.get("carry", ""), told.get("out", ""), told.get("flag", ""))
    stem, _, then = prompt[:-1].rpartition(" ")
    others = [one for one in machine.states if one not in ("q0", then)]
    places = [(head, at + way) for head, at in enumerate(heads) for way in (-1, 1) if 0 <= at + way <= len(tapes[head])]

    def moved() -> str:
        head, at = places[draw.below(len(places))]
        return machine.entry(replace(now, heads=(*heads[:head], at, *heads[head + 1 :])))

    options: Options = {}
    if now.carry == "1":
        options["lost_carry"] = lambda: machine.entry(replace(now, carry="0"))
    if places and "a_right" in forms[state].shown:
        options["head_off"] = moved
    if now.output:
        options["wrong_digit"] = lambda: machine.entry(replace(now, output=draw.digit(now.output)))
    if now.flag:
        options["wrong_truth"] = lambda: machine.entry(replace(now, flag=str(now.flag == "False")))
    if others:
        options["wrong_state"] = lambda: f"{stem} {others[draw.below(len(others))]}\n"
    return options


def _of_composer(machine: Composer, state: str, prompt: str, draw: Draw, far: bool) -> Options:
    line, command, quoted, *halt = prompt.split("\n")
    start, _, result = quoted.rpartition(" ")
    call = next(one for one in machine.calls if one.state == state)
    others = [one for one in machine.calls if one.task == call.task and one is not call]
    count = re.search(r"\[COUNT\](\S+)", line)

    def told(wrong: str) -> str:
        return "\n".join([line, command, f"{start} {wrong}", *halt])

    def elsewhere() -> str:
        other = others[draw.below(len(others))]
        return "\n".join([line.replace(f", {state}, ", f", {other.state}, ", 1), other.line, quoted, *halt])

    options: Options = {}
    if result in ("True", "False"):
        options["wrong_truth"] = lambda: told(str(result == "False"))
    else:
        tape = "|0" if result == "0" else result  # LEFT_MASK gives a bare 0
        options["wrong_digit"] = lambda: told(draw.digit(tape, len(tape) > 2))
    if others and not far:
        options["wrong_state"] = elsewhere
    if count and not far and "[HEAD1]|0 " not in line:  # 0 * b is 0 after any number of turns: another step's entry
        digits, begin, end = count[1], *count.span(1)
        options["wrong_count"] = lambda: f"{prompt[:begin]}{draw.digit(digits, len(digits) > 2)}{prompt[end:]}"
    return options
