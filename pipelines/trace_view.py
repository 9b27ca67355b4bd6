"""A machine's entries as people read them: tapes as cells with a head, registers, commands in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rich.text import Text

from ..tm.basic import BasicMachine
from ..tm.composer import Call, Composer
from ..tm.interpreter import Configuration, units_first


@dataclass(frozen=True, slots=True)
class Part:
    """A tape or a register.

    Attributes:
        label: its name in words, ``tape 1``.
        value: its digits, units first, or True / False; empty where nothing is written.
        head: how many digits stand to its left; -1 in front of the operand, None for a register.
    """

    label: str
    value: str
    head: int | None = None

    @property
    def number(self) -> str:
        """The value in reading order."""
        return self.value[::-1] if self.value.isdigit() else self.value


def basic_parts(machine: BasicMachine, now: Configuration) -> list[Part]:
    """Return the tapes and registers of a basic machine in a configuration; at first registers are empty."""
    apart = "" if len(now.tapes) == 1 else " {}"
    heads = enumerate(zip(now.tapes, now.heads, strict=True), 1)
    parts = [Part("tape" + apart.format(number), tape, head) for number, (tape, head) in heads]
    shown = [state for state in machine.states if state != "qH"] if now.state == "q0" else [now.state]
    names = dict.fromkeys(name for state in shown for name in machine.template(state).names)
    values = {"carry": now.carry, "out": now.output or machine.empty.get(now.state, "").strip("|"), "flag": now.flag}
    return parts + [Part(_label(name, now.state), values[name]) for name in names if name in values]


def composer_parts(machine: Composer, values: Mapping[str, int], state: str) -> list[Part]:
    """Return the operands and registers of a composer in a state; at first registers are empty."""
    names = machine.template(machine.calls[0].state if state == "q0" else state).names
    held = {name: units_first(values[name]) if name in values else "" for name in names}
    return [Part(_label(name, state), digits) for name, digits in held.items()]


def place(machine: Composer, a: int, b: int, index: int, total: int) -> tuple[int, str, Call | None]:
    """Return the turn, the state and the call of an entry of a composer."""
    if index in (0, total):
        return (0, "q0", None) if index == 0 else (machine.turns(a, b), "qH", None)
    turn, at = divmod(index - 1, len(machine.calls))
    return turn + 1, machine.calls[at].state, machine.calls[at]


def _label(name: str, state: str) -> str:
    result = "result" if state == "qH" else "output"
    return {"a": "tape 1", "b": "tape 2", "out": result, "flag": result}.get(name, name)


def brief(number: str, longest: int = 24) -> str:
    """Return a number, the middle of a long one left out."""
    if len(number) <= longest:
        return number
    digits = sum(character.isdigit() for character in number)
    return f"{number[:8]}...{number[-8:]} ({digits:,} digits)"


def tape(part: Part, room: int) -> Text:
    """Return a tape of at most ``room`` columns: the digits around the head, which is marked by ``[ ]``."""
    head = part.head if part.head is not None else 0
    first, last = min(head, 0), max(head + 1, len(part.value))
    note = ""
    if 2 * (last - first) + 1 > room:
        size = str(len(part.value))
        where = str(max(head, 0) + 1) if head < len(part.value) else "end"
        note = f"  {where:>{max(3, len(size))}}/{size}"
        cells = (room - len(note) - 9) // 2
        start = min(max(head - cells // 2, first), last - cells)
        text = Text("... " if start > first else "", "dim")
        after = " ..." if start + cells < last else ""
        first, last = start, start + cells
    else:
        text, after = Text(), ""
    for at in range(first, last + 1):
        text.append("[" if at == head else "]" if at == head + 1 else " ", "bold yellow")
        if at < last:
            digit = part.value[at] if 0 <= at < len(part.value) else " "
            text.append(digit, "bold reverse" if at == head else "dim" if at < head else "")
    return text.append(after + note, "dim")


def register(part: Part, room: int) -> Text:
    """Return a register of at most ``room`` columns: its digits, the middle of many left out."""
    value = part.value or "-"
    if not value.isdigit():
        return Text(value)
    if 2 * len(value) - 1 <= room:
        return Text(" ".join(value))
    note = f" ({len(value):,} digits)"
    cells = (room - len(note) - 5) // 4
    return Text(f"{' '.join(value[:cells])} ... {' '.join(value[-cells:])}{note}")


def state_rows(parts: list[Part], moving: bool, width: int) -> list[Text]:
    """Return the rows that show a state: one for each tape whose head moves, the other parts side by side."""
    rows: list[Text] = []
    room, packing = width - 9, False
    for part in parts:
        name = Text(f"{part.label:<8} ", "dim")
        if moving and part.head is not None:
            rows.append(Text.assemble(name, tape(part, room)))
            packing = False
            continue
        if packing:
            beside = Text.assemble(rows[-1], ("   " + part.label + " ", "dim"), register(part, width))
            if len(beside) <= width:
                rows[-1] = beside
                continue
        gap = " " if moving else ""  # a tape begins with a separator, its digits stand one column further
        rows.append(Text.assemble(name, gap, register(part, room - len(gap))))
        packing = True
    return rows


_ACTION = re.compile(r"\[([A-Z]+)(\d*)\] ?(.*)")


def command_words(line: str) -> str:
    """Return a command line in words; what has no words is left as it stands."""
    if not line.startswith("CMD"):
        return "halted"
    *actions, target = line.partition(" ")[2].split(", ")
    words = [_action(action) for action in actions]
    both = ["head 1 right", "head 2 right"]
    if all(word in words for word in both):
        words[words.index(both[0])] = "both heads right"
        words.remove(both[1])
    return "; ".join([*words, goto(target)])


def _action(action: str) -> str:
    found = _ACTION.fullmatch(action)
    if found is None:
        return action
    name, number, value = found.groups()
    thing = {"HEAD": "head", "C": "carry"}.get(name, name.lower()) + (f" {number}" if number else "")
    if value in ("RIGHT", "LEFT"):
        return f"{thing} {value.lower()}"
    if not value:
        return f"close {thing}"
    return f"{thing} := {brief(value.replace('|', '')[::-1]) if value.startswith('|') else value}"


def goto(state: str) -> str:
    """Return the words for the state that ends a command."""
    return "halt" if state == "qH" else f"go to {state}"
