"""Entries of machines as people read them: tapes as cells with a head, registers, commands in words.

Reads any text that follows the shape of the shipped machines (docs/format.md), also of machines added
later; what does not is shown as it stands.
"""

import re
from dataclasses import dataclass

from rich.text import Text

_STATE = re.compile(r"([A-Z_0-9]+), (q\w+), *")
_APART = re.compile(r"\[(HEAD\d*)\] ((?:\|\d)+) ?")  # q0: the head stands apart, before its operand
_ITEM = re.compile(r"((?:\|\d)*)\|?(?:\[([A-Z]+)(\d*)\])?((?:\|\d)*|\d|True|False)")
_LABELS = {"HEAD": "tape", "C": "carry", "": "result"}


@dataclass(frozen=True, slots=True)
class Part:
    """A tape or a register of a state line.

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


def state_of(line: str) -> str:
    """Return the state that a state line names, or an empty string."""
    found = _STATE.match(line)
    return found[2] if found else ""


def parse_state(line: str) -> list[Part] | None:
    """Return the tapes and registers of a state line in order, or None if it has another shape."""
    found = _STATE.match(line)
    if found is None:
        return None
    rest, parts = line[found.end() :], []
    while apart := _APART.match(rest):
        parts.append(Part(_label(apart[1][:4], apart[1][4:]), apart[2].replace("|", ""), -1))
        rest = rest[apart.end() :]
    for word in rest.split():
        item = _ITEM.fullmatch(word)
        if item is None:
            return None
        left, right = item[1].replace("|", ""), item[4].replace("|", "")
        head = len(left) if item[2] == "HEAD" else None
        parts.append(Part(_label(item[2] or "", item[3] or ""), left + right, head))
    return parts


def _label(name: str, number: str) -> str:
    return f"{_LABELS.get(name, name.lower())} {number}".rstrip()


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
