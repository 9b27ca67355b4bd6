"""What a row with a slip must hold: the second account of it, from the entry of the run in closed form.

Both entries are taken apart, the slip is looked for in what differs, and the entry that follows is worked out from the
parts. The rules are written here once more: nothing of the machines, the interpreter or ``successor`` is used.
"""

import re
from typing import NamedTuple

from ...errors import quoted
from .entries import HALT, Add, first_lines, number, tape

_CELLS, _COUNT = r"((?:\|[0-9])*)", re.compile(r"(.*\[COUNT\])(\S+)( .*)")
_BASIC = re.compile(
    rf"([A-Z_]+), (q[12]),  {_CELLS}\[HEAD1?\]{_CELLS}(?: {_CELLS}\[HEAD2\]{_CELLS})?(?: \[C\]([01]))? "
    rf"(?:{_CELLS}\|?\[OUTPUT\]|\[OUTPUT\](True|False))\nCMD:? (.+)\n"
)
_COMPOSED = re.compile(
    rf"(SUB|MUL|DIV), (q[1-4]), \[HEAD1\]{_CELLS} \[HEAD2\]{_CELLS} (?:\[COUNT\]{_CELLS} \[OUTPUT\]{_CELLS})?"
)
_SUMS = {(x, y, str(carry)): command for (x, y, _), (carry, command) in Add.steps.items()}
_BOTH = "[HEAD1] RIGHT, [HEAD2] RIGHT, "
_CALLS = {"SUB": {"q2": "q3", "q3": "q4"}, "MUL": {"q2": "q3", "q3": "q1"}, "DIV": {"q2": "q3", "q3": "q1"}}  # of ADD
_STRIPS = ("REFLECTION", "LEFT_MASK")  # they have a q2, and after q1 their heads are shown behind the tapes


class Entry(NamedTuple):
    """The parts of a basic machine's entry; ``heads`` are what is written on each head's left and right."""

    name: str
    state: str
    heads: tuple[tuple[str, str], ...]
    carry: str
    out: str
    flag: str
    command: str

    @classmethod
    def read(cls, text: str) -> "Entry | None":
        match = _BASIC.fullmatch(text)
        if match is None:
            return None
        name, state, left, right, left2, right2, *others = match.groups("")
        return cls(name, state, ((left, right), (left2, right2))[: 1 if name == "LEFT_MASK" else 2], *others)

    def text(self) -> str:
        tokens = ("[HEAD1]", "[HEAD2]") if len(self.heads) == 2 else ("[HEAD]",)
        behind = self.state != "q1" and self.name in _STRIPS
        pairs = [(left + right, "") if behind else (left, right) for left, right in self.heads]
        shown = " ".join(f"{left}{token}{right}" for token, (left, right) in zip(tokens, pairs, strict=True))
        empty = {"REFLECTIONq2": "|", "REFLECTIONqH": "|0", "LEFT_MASKqH": "0"}.get(self.name + self.state, "")
        out = "" if self.state == "qH" else "[OUTPUT]"
        out = f"{out}{self.flag}" if self.flag else f"{self.out or empty}{out}"
        command = HALT if self.state == "qH" else f"CMD{':' * (self.name == 'ADD')} {self.command}"
        return f"{self.name}, {self.state},  {shown}{self.carry and f' [C]{self.carry}'} {out}\n{command}\n"


def _decided(now: Entry) -> str:
    """Return the command that the machine gives, without its first word."""
    (x, y), name = (*(right[1:2] for _, right in now.heads), "")[:2], now.name
    if name == "ADD":
        return _SUMS[x, y, now.carry] if x or y else f"[OUTPUT] {now.carry}, [OUTPUT], [C], qH"
    if now.state == "q2":
        return "[OUTPUT] LEFT, q2" if now.out[-1:] == "0" else "[OUTPUT], qH" if name == "REFLECTION" else "qH"
    if name == "LEFT_MASK":
        return f"[HEAD] RIGHT, [OUTPUT] {x}, [OUTPUT] RIGHT, q1" if x else "[OUTPUT] LEFT, [OUTPUT] 0, q2"
    if name == "REFLECTION":
        move = "[HEAD2] RIGHT, " if y else ""
        return f"[HEAD1] RIGHT, {move}[OUTPUT] {9 - int(y or 0)}, [OUTPUT] RIGHT, q1" if x else "q2"
    if name == "EQUAL":
        return f"{_BOTH}q1" if x and x == y else f"{'' if x == y else '[OUTPUT] False, '}[OUTPUT], qH"
    large, small = (x, y) if name == "GREATER_THAN" else (y, x)  # no digit is less than any
    writes = "" if x == y else f"[OUTPUT] {large > small}, "
    return f"{_BOTH}{writes}q1" if x and y else f"{writes}[OUTPUT], qH"


def _executed(now: Entry) -> Entry:
    """Return the entry that a command leads to."""
    *actions, state = now.command.split(", ")
    digit, heads, carry, out, flag = "", list(now.heads), now.carry, now.out, now.flag
    for action in actions:
        token, _, value = action.partition(" ")
        if token == "[C]":
            carry = value or carry
        elif token != "[OUTPUT]":
            left, right = heads[token == "[HEAD2]"]
            heads[token == "[HEAD2]"] = left + right[:2], right[2:]
        elif value == "LEFT":
            out = out[:-2]
        elif value in ("True", "False"):
            flag = value
        elif value.isdigit():
            digit = f"|{value}"
        elif value or digit != "|0":  # closing the output drops a 0
            out, digit = out + digit, ""
    then = now._replace(state=state, heads=tuple(heads), carry=carry, out=out, flag=flag)
    return then if state == "qH" else then._replace(command=_decided(then))


def _one_digit(right: str, found: str, least: str = "0") -> bool:
    """Tell whether one digit of a tape differs; as the last of several it is not below ``least``."""
    places = [at for at, (x, y) in enumerate(zip(right, found, strict=False)) if x != y]
    if len(right) != len(found) or len(places) != 1 or not places[0] % 2:
        return False
    return found[places[0]] >= (least if 2 < len(found) == places[0] + 1 else "0")


def _is_slip(slip: str, right: Entry, found: Entry) -> bool:
    """Tell whether a basic machine's entries differ by a slip, their commands aside."""
    changed = {name for name in Entry._fields if getattr(right, name) != getattr(found, name)} - {"command"}
    moved = [abs(len(one[0]) - len(other[0])) for one, other in zip(right.heads, found.heads, strict=True)]
    kept = all("".join(one) == "".join(other) for one, other in zip(right.heads, found.heads, strict=True))
    (stem, _, state), (start, _, then) = right.command.rpartition(" "), found.command.rpartition(" ")
    states = ("q1", "qH", "q2")[: 2 + (right.name in _STRIPS)]
    return {
        "lost_carry": changed == {"carry"} and found.carry == "0",
        "head_off": right.state == "q1" and changed == {"heads"} and kept and sorted(moved)[-2:] in ([2], [0, 2]),
        "wrong_digit": changed == {"out"} and _one_digit(right.out, found.out),
        "wrong_truth": changed == {"flag"},
        "wrong_state": not changed and stem == start and state != then and then in states,
    }.get(slip, False)


def _follows(found: str) -> str:
    """Return what follows a composer's prompt."""
    line, _, quoted, *_ = found.split("\n")
    result, match = quoted.rpartition(" ")[2], _COMPOSED.fullmatch(line)
    name, state, a, b, count, out = match.groups() if match else ("", "", "", "", "", "")
    if result not in ("True", "False"):
        result = tape(number(result[::-2] or "0"))  # without zeros above the number
    out, count = result if state == "q2" else out, result if state == "q3" else count
    if name == "SUB":
        halted, registers = (state == "q4"), ""
        then, called, after, x, y = {
            "q1": ("q2", "ADD", "q3", a, result),
            "q2": ("q3", "ADD", "q4", result, "|1"),
        }.get(state, ("q4", "LEFT_MASK", "qH", result, ""))
    else:
        halted, registers = result == str(name == "DIV"), f"[COUNT]{count} [OUTPUT]{out}"
        then, called, after, x, y = {
            "q1": ("q2", "ADD", "q3", *((a, out) if name == "MUL" else (out, "|1"))),
            "q2": ("q3", "ADD", "q1", *((count, "|1") if name == "MUL" else (b, count))),
        }.get(state, ("q1", *(("LESS_THAN", "q2", count, b) if name == "MUL" else ("GREATER_THAN", "q2", count, a))))
    if halted:
        last = result if name == "SUB" else f"[COUNT]{count} {out}"
        return f"{name}, qH, [HEAD1]{a} [HEAD2]{b} {last}\n{HALT}"
    return (
        f"{name}, {then}, [HEAD1]{a} [HEAD2]{b} {registers}\nCMD [CALL] {called}, {after}\n{first_lines(called, x, y)}"
    )


def _is_composed_slip(slip: str, right: str, found: str) -> bool:
    """Tell whether a composer's prompts differ by a slip."""
    (line, command, quoted, *rest), lines = right.split("\n"), found.split("\n")
    (start, _, result), told = quoted.rpartition(" "), lines[2].rpartition(" ")[2] if len(lines) == 5 else ""
    if slip in ("wrong_digit", "wrong_truth"):
        truth = {result, told} == {"True", "False"}
        wrong = truth if slip == "wrong_truth" else _one_digit("|0" if result == "0" else result, told, "1")
        return lines == [line, command, f"{start} {told}", *rest] and wrong
    if slip == "wrong_count":
        one, counted = _COUNT.fullmatch(line), _COUNT.fullmatch(lines[0])
        if one is None or counted is None or one.group(1, 3) != counted.group(1, 3):
            return False
        return lines[1:] == [command, quoted, *rest] and _one_digit(one[2], counted[2], "1")
    name, state = line[:3], line[5:7]
    if slip != "wrong_state" or state not in _CALLS[name]:
        return False
    other = "q3" if state == "q2" else "q2"
    return lines == [f"{name}, {other}{line[7:]}", f"CMD [CALL] ADD, {_CALLS[name][other]}", quoted, *rest]


def after_slip(slip: str, right: str, found: str) -> tuple[str, str] | str:
    """Return the prompt that a row must have, and its completion; or what is wrong with it.

    Args:
        slip: its name.
        right: the entry of the run.
        found: the row's prompt.
    """
    no_slip = f"the prompt is not the entry of its step with the slip {quoted(slip, 30)}"
    if right[:3] in _CALLS:
        return (found, _follows(found)) if _is_composed_slip(slip, right, found) else no_slip
    one, other = Entry.read(right), Entry.read(found)
    if one is None or other is None or one.name != other.name or not _is_slip(slip, one, other):
        return no_slip
    now = other if slip == "wrong_state" else other._replace(command=_decided(other))
    return now.text(), _executed(now).text()
