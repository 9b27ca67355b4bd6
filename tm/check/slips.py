"""What a row with a slip must hold: the second account of it, from the entry of the run in closed form.

The slip is looked for in what differs from that entry, and the entry that follows is worked out from the parts of the
slipped one. The rules are written here once more: nothing of the machines, the interpreter or ``successor`` is used.
"""

import re
from typing import NamedTuple

from ...errors import quoted
from .entries import HALT, Add, first_lines, number, tape

_TAPE = r"((?:\|[0-9])*)"
_BASIC = re.compile(
    rf"\A([A-Z_]+), (q[12]),  {_TAPE}\[HEAD1?\]{_TAPE}(?: {_TAPE}\[HEAD2\]{_TAPE})?(?: \[C\]([01]))? "
    rf"(?:{_TAPE}\|?\[OUTPUT\]|\[OUTPUT\](True|False))\nCMD:? (.+)\n\Z"
)
_COMPOSED = re.compile(
    rf"(SUB|MUL|DIV), (q[1-4]), \[HEAD1\]{_TAPE} \[HEAD2\]{_TAPE} (?:\[COUNT\]{_TAPE} \[OUTPUT\]{_TAPE})?"
)
# What is before a slip, the place itself, and what is behind it: in a basic machine's line, and in a composer's prompt
_PLACES = {
    "lost_carry": re.compile(r"(.*\[C\])([01])( .*)"),
    "wrong_digit": re.compile(r"(?s)(.* )((?:\|[0-9])+|0)(\[OUTPUT\]|\n[^\n]*\n)"),
    "wrong_truth": re.compile(r"(?s)(.*[ \]])(True|False)(|\n[^\n]*\n)"),
    "wrong_state": re.compile(r"(?s)(.* )(q[12H])(\n)"),
    "wrong_count": re.compile(r"(?s)(.*\[COUNT\])((?:\|[0-9])+)( .*)"),
}
_MOVES = r"(\|[0-9])(\[HEAD%s\])", r"(\[HEAD%s\])(\|[0-9])"
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


def _follows(found: str) -> str:
    """Return what follows a composer's prompt."""
    line, _, end, *_ = found.split("\n")
    [(name, state, a, b, count, out)], result = _COMPOSED.findall(line), end.rpartition(" ")[2]
    if result not in ("True", "False"):
        result = tape(number(result[::-2] or "0"))  # without zeros above the number
    out, count = result if state == "q2" else out, result if state == "q3" else count
    registers = "" if name == "SUB" else f"[COUNT]{count} [OUTPUT]{out}"
    if name + state == "SUBq4" or result == str(name == "DIV"):
        last = result if name == "SUB" else f"[COUNT]{count} {out}"
        return f"{name}, qH, [HEAD1]{a} [HEAD2]{b} {last}\n{HALT}"
    then, called, after, x, y = {
        "SUBq1": ("q2", "ADD", "q3", a, result),
        "SUBq2": ("q3", "ADD", "q4", result, "|1"),
        "SUBq3": ("q4", "LEFT_MASK", "qH", result, ""),
        "MULq1": ("q2", "ADD", "q3", a, out),
        "MULq2": ("q3", "ADD", "q1", count, "|1"),
        "MULq3": ("q1", "LESS_THAN", "q2", count, b),
        "DIVq1": ("q2", "ADD", "q3", out, "|1"),
        "DIVq2": ("q3", "ADD", "q1", b, count),
        "DIVq3": ("q1", "GREATER_THAN", "q2", count, a),
    }[name + state]
    line = f"{name}, {then}, [HEAD1]{a} [HEAD2]{b} {registers}"
    return f"{line}\nCMD [CALL] {called}, {after}\n{first_lines(called, x, y)}"


def _is_slip(slip: str, right: str, found: str) -> bool:
    """Tell whether two prompts differ by a slip; of basic machines' lines, but for a wrong state."""
    name, state, calls = right.partition(",")[0], right.partition(", ")[2][:2], _CALLS.get(right[:3])
    if calls and slip == "wrong_state":
        (line, _, rest), other = right.split("\n", 2), "q3" if state == "q2" else "q2"
        wanted = f"{name}, {other}{line[7:]}\nCMD [CALL] ADD, {calls[other]}\n{rest}"
        return state in calls and found == wanted
    if slip == "head_off":
        moved = {re.sub(move % head, r"\2\1", right) for move in _MOVES for head in ("", 1, 2)}
        return state == "q1" and not calls and found in moved - {right}
    at, its = (_PLACES[slip].fullmatch(text) if slip in _PLACES else None for text in (right, found))
    if at is None or its is None or state == "q0" or at.group(1, 3) != its.group(1, 3):
        return False
    was, wrong = "|0" if at[2] == "0" and calls else at[2], its[2]
    if slip in ("wrong_digit", "wrong_count"):  # of a number that a composer reads the first digit is not made 0
        places = [place for place, (x, y) in enumerate(zip(was, wrong, strict=False)) if x != y]
        zeroed = bool(calls) and 2 < len(wrong) and places == [len(wrong) - 1] and wrong[-1] == "0"
        return len(was) == len(wrong) and len(places) == 1 and not zeroed
    return was != wrong and (slip != "lost_carry" or wrong == "0") and (wrong != "q2" or name in _STRIPS)


def after_slip(slip: str, right: str, found: str) -> tuple[str, str] | str:
    """Return the prompt that a row must have, and its completion; or what is wrong with it.

    Args:
        slip: its name.
        right: the entry of the run.
        found: the row's prompt.
    """
    composed, parts = right[:3] in _CALLS, _BASIC.findall(found)
    whole = composed or slip == "wrong_state"  # else the command is given for the slipped line
    texts = (right, found) if whole else (right.partition("\n")[0], found.partition("\n")[0])
    if not _is_slip(slip, *texts) or not (composed or parts):
        return f"the prompt is not the entry of its step with the slip {quoted(slip, 30)}"
    if composed:
        return found, _follows(found)
    [(name, state, left, first, left2, second, *others)] = parts
    now = Entry(name, state, ((left, first), (left2, second))[: 1 if name == "LEFT_MASK" else 2], *others)
    now = now if slip == "wrong_state" else now._replace(command=_decided(now))
    return now.text(), _executed(now).text()
