r"""A hand-written grammar of the entries of the nine machines: text -> configuration -> the same text.

Used only to check rows. It is written from the description of the format (docs/format.md) and shares nothing
with the machines that make the rows, so that a slip there cannot hide itself here.

    >>> command = "CMD: [OUTPUT] 0, [OUTPUT], [C], qH"
    >>> entry = parse(f"ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]\n{command}\n")
    >>> entry.tapes[0].left, entry.tapes[0].right, entry.carry
    ('|2', '|1', '1')
    >>> entry.text().startswith("ADD, q1,  |2[HEAD1]|1")
    True
"""

import re
from dataclasses import dataclass

from ...errors import clip

HALT = "No command to execute. Halt state."
MACHINES = {
    "add": "ADD",
    "equal": "EQUAL",
    "greater_than": "GREATER_THAN",
    "less_than": "LESS_THAN",
    "reflection": "REFLECTION",
    "left_mask": "LEFT_MASK",
    "sub": "SUB",
    "mul": "MUL",
    "div": "DIV",
}
TASKS = {machine: task for task, machine in MACHINES.items()}
COMPOSERS = frozenset({"SUB", "MUL", "DIV"})

_START = "[HEAD1] <right1>[HEAD2] <right2> "
_HEADS = "<left1>[HEAD1]<right1> <left2>[HEAD2]<right2> "
_MASK = "<left1>[HEAD]<right1> "
_COMPOSED = "[HEAD1]<right1> [HEAD2]<right2> "
_COUNTING = {
    "q0": " " + _COMPOSED + "[COUNT] [OUTPUT]",
    **dict.fromkeys(("q1", "q2", "q3"), " " + _COMPOSED + "[COUNT]<count> [OUTPUT]<result>"),
    "qH": " " + _COMPOSED + "[COUNT]<count> <result>",
}
_COMPARING = {
    "q0": " " + _START + "[OUTPUT]",
    "q1": "  " + _HEADS + "[OUTPUT]<truth>",
    "qH": "  " + _HEADS + "<truth>",
}
# What follows "NAME, qX,", byte for byte: literals, and fields in angle brackets.
LAYOUTS: dict[str, dict[str, str]] = {
    "ADD": {
        "q0": " " + _START + "[C] [OUTPUT]",
        "q1": "  " + _HEADS + "[C]<carry> <digits>[OUTPUT]",
        "qH": "  " + _HEADS + "[C]<carry> <result>",
    },
    "EQUAL": _COMPARING,
    "GREATER_THAN": _COMPARING,
    "LESS_THAN": _COMPARING,
    "REFLECTION": {
        "q0": " " + _START + "[OUTPUT]",
        "q1": "  " + _HEADS + "<digits>[OUTPUT]",
        "q2": "  " + _HEADS + "<stripped>[OUTPUT]",
        "qH": "  " + _HEADS + "<result>",
    },
    "LEFT_MASK": {
        "q0": " [HEAD] <right1> [OUTPUT]",
        "q1": "  " + _MASK + "<digits>[OUTPUT]",
        "q2": "  " + _MASK + "<digits>[OUTPUT]",
        "qH": "  " + _MASK + "<masked>",
    },
    "SUB": {
        **dict.fromkeys(("q0", "q1", "q2", "q3", "q4"), " " + _COMPOSED),  # the trailing space is part of it
        "qH": " " + _COMPOSED + "<result>",
    },
    "MUL": _COUNTING,
    "DIV": _COUNTING,
}

_TAPE = "digits, each after a '|'"
# field -> (what it may look like, how to name that). Possessive: linear on any input.
_FIELDS: dict[str, tuple[re.Pattern[str], str]] = {
    **{name: (re.compile(r"(?:\|[0-9])*+"), _TAPE) for name in ("left1", "right1", "left2", "right2", "digits")},
    **{name: (re.compile(r"(?:\|[0-9])++"), "one or more " + _TAPE) for name in ("count", "result")},
    "carry": (re.compile(r"[01]"), "a carry of 0 or 1"),
    "truth": (re.compile(r"True|False"), "True or False"),
    "stripped": (re.compile(r"(?:\|[0-9])++|\|"), _TAPE + ", or a lone '|'"),
    "masked": (re.compile(r"(?:\|[0-9])++|0"), _TAPE + ", or a bare 0"),
}
_HEAD_ACTIONS = r"\[HEAD1\] RIGHT|\[HEAD2\] RIGHT"
_COMPARE_ACTIONS = _HEAD_ACTIONS + r"|\[OUTPUT\] (?:True|False)|\[OUTPUT\]"
# machine -> the actions its commands are made of, apart from the state that ends every command.
_ACTIONS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "ADD": _HEAD_ACTIONS + r"|\[C\] [01]|\[C\]|\[OUTPUT\] [0-9]|\[OUTPUT\] RIGHT|\[OUTPUT\]",
        "EQUAL": _COMPARE_ACTIONS,
        "GREATER_THAN": _COMPARE_ACTIONS,
        "LESS_THAN": _COMPARE_ACTIONS,
        "REFLECTION": _HEAD_ACTIONS + r"|\[OUTPUT\] [0-9]|\[OUTPUT\] (?:RIGHT|LEFT)|\[OUTPUT\]",
        "LEFT_MASK": r"\[HEAD\] RIGHT|\[OUTPUT\] [0-9]|\[OUTPUT\] (?:RIGHT|LEFT)",
        "SUB": r"\[CALL\] (?:REFLECTION|ADD|LEFT_MASK)",
        "MUL": r"\[CALL\] (?:LESS_THAN|ADD)|\[COUNT\] 1|\[OUTPUT\](?:\|[0-9])++",
        "DIV": r"\[CALL\] (?:GREATER_THAN|ADD)|\[COUNT\](?:\|[0-9])++|\[OUTPUT\] 0",
    }.items()
}
_PIECES = {
    machine: {
        state: tuple(re.split(r"<(\w+)>", layout)) for state, layout in states.items()
    }  # literal, field, literal, ...
    for machine, states in LAYOUTS.items()
}
_NAME = re.compile(r"([A-Z_]+), (q[0-9H]),")


class ParseError(ValueError):
    """A text is not an entry of any machine: says what was expected, where, and what was found."""

    def __init__(self, expected: str, line: int, column: int, found: str) -> None:
        """``line`` and ``column`` count from 1; ``found`` is what stands there."""
        self.expected, self.line, self.column, self.found = expected, line, column, found
        shown = clip(found, 40) if found else "the end of the line"
        super().__init__(f"line {line}, column {column}: expected {expected}, found {shown}")

    def __reduce__(self) -> tuple[object, ...]:
        return ParseError, (self.expected, self.line, self.column, self.found)


@dataclass(frozen=True, slots=True)
class Tape:
    """An operand as it stands in the text, cut at the head: ``|d`` per digit, least significant first."""

    left: str
    right: str

    @property
    def written(self) -> str:
        """The whole tape, head left out."""
        return self.left + self.right

    @property
    def under(self) -> str:
        """The digit under the head, or nothing when the head stands behind the operand."""
        return self.right[1:2]

    @property
    def number(self) -> str:
        """The operand as a decimal string in reading order."""
        return self.written[::-2]

    @property
    def head(self) -> int:
        """How many digits stand to the left of the head."""
        return len(self.left) // 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A configuration and its command.

    Attributes:
        machine: its name in the text, ``ADD``.
        state: ``q0`` ... ``qH``.
        tapes: one (left_mask) or two operands.
        carry: the digit of ``[C]``, None where there is none.
        count: the digits of ``[COUNT]``, written like a tape, None where there are none.
        output: what is written so far, as it stands in the text; None in q0 and in SUB before the end.
        command: the command's actions, the next state last; empty when the machine has halted.
        call: the entry of the called machine (initial in completions, halting in prompts), if any.
        ended: whether a newline ends the text (completions of composers have none).

    """

    machine: str
    state: str
    tapes: tuple[Tape, ...]
    carry: str | None = None
    count: str | None = None
    output: str | None = None
    command: tuple[str, ...] = ()
    call: "Entry | None" = None
    ended: bool = True

    def state_line(self) -> str:
        """Return the first line, without its newline."""
        fields = {"carry": self.carry, "count": self.count}
        for index, tape in enumerate(self.tapes, 1):
            fields[f"left{index}"], fields[f"right{index}"] = tape.left, tape.right
        pieces = _PIECES[self.machine][self.state]
        parts = [(fields.get(piece, self.output) or "") if at % 2 else piece for at, piece in enumerate(pieces)]
        return f"{self.machine}, {self.state},{''.join(parts)}"

    def command_line(self) -> str:
        """Return the second line, without its newline."""
        if not self.command:
            return HALT
        return ("CMD: " if self.machine == "ADD" else "CMD ") + ", ".join(self.command)

    def text(self) -> str:
        """Return the entry as it stands in a row; ``parse(text).text() == text``."""
        lines = [self.state_line(), self.command_line()]
        if self.call is not None:
            lines += [self.call.state_line(), self.call.command_line()]
        return "\n".join(lines) + ("\n" if self.ended else "")


def unparse(entry: Entry) -> str:
    """Return ``entry.text()``."""
    return entry.text()


def parse(text: str) -> Entry:
    """Parse a prompt or a completion of any of the nine machines.

    Raises:
        ParseError: the text is not an entry.

    """
    ended = text.endswith("\n")
    lines = (text[:-1] if ended else text).split("\n")
    machine, state, fields = _state_line(lines[0], 1)
    if len(lines) < 2:
        raise ParseError("a second line with the command", 2, 1, "")
    command = _command_line(lines[1], 2, machine, state)
    if machine not in COMPOSERS and not ended:
        raise ParseError("a newline after the command", 2, len(lines[1]) + 1, "")
    call, used = None, 2
    if machine in COMPOSERS and command and command[0].startswith("[CALL]"):
        call, used = _called(lines, command[0].removeprefix("[CALL] ")), 4
    if len(lines) > used:
        raise ParseError("nothing more", used + 1, 1, lines[used] or "\n")
    return _entry(machine, state, fields, command, call, ended)


def _called(lines: list[str], name: str) -> Entry:
    """Parse lines 3 and 4 of a composer's entry: the initial or the halting entry of the machine ``name``."""
    if len(lines) < 4:
        raise ParseError(f"the state line and the command of {name}", len(lines) + 1, 1, "")
    machine, state, fields = _state_line(lines[2], 3)
    if machine != name or state not in ("q0", "qH"):
        raise ParseError(f"'{name}, q0,' or '{name}, qH,'", 3, 1, lines[2])
    return _entry(machine, state, fields, _command_line(lines[3], 4, machine, state), None, False)


def _entry(
    machine: str,
    state: str,
    fields: dict[str, str],
    command: tuple[str, ...],
    call: Entry | None,
    ended: bool,
) -> Entry:
    tapes = tuple(
        Tape(fields.pop(f"left{index}", ""), fields.pop(f"right{index}"))
        for index in (1, 2)
        if f"right{index}" in fields
    )
    carry, count = fields.pop("carry", None), fields.pop("count", None)
    output = next(iter(fields.values()), None)
    return Entry(machine, state, tapes, carry, count, output, command, call, ended)


def _state_line(line: str, number: int) -> tuple[str, str, dict[str, str]]:
    """Parse one state line into machine, state and the fields of its layout."""
    name = _NAME.match(line)
    if name is None:
        raise ParseError("a machine's name and state, such as 'ADD, q0,'", number, 1, line)
    machine, state = name.group(1), name.group(2)
    if machine not in LAYOUTS:
        raise ParseError(f"one of the machines {', '.join(LAYOUTS)}", number, 1, line)
    if state not in LAYOUTS[machine]:
        raise ParseError(f"one of {machine}'s states {', '.join(LAYOUTS[machine])}", number, name.start(2) + 1, state)
    at, fields = name.end(), {}
    for index, piece in enumerate(_PIECES[machine][state]):
        if index % 2 == 0:
            at = _literal(line, number, at, piece)
            continue
        pattern, what = _FIELDS[piece]
        found = pattern.match(line, at)
        if found is None:
            raise ParseError(what, number, at + 1, line[at : at + 80])
        fields[piece], at = found.group(), found.end()
    if at != len(line):
        raise ParseError("the end of the line", number, at + 1, line[at : at + 80])
    for which in ("1", "2"):
        if "right" + which in fields and not fields.get("left" + which, "") + fields["right" + which]:
            raise ParseError(f"at least one digit in operand {which}", number, line.find("[HEAD") + 1, line)
    return machine, state, fields


def _literal(line: str, number: int, at: int, literal: str) -> int:
    if line.startswith(literal, at):
        return at + len(literal)
    same = 0  # point at the first character that differs
    while same < len(literal) and line[at + same : at + same + 1] == literal[same]:
        same += 1
    raise ParseError(ascii(literal[same:]), number, at + same + 1, line[at + same : at + same + 80])


def _command_line(line: str, number: int, machine: str, state: str) -> tuple[str, ...]:
    """Parse one command line into its actions, the next state last; empty for the halting line."""
    if state == "qH":
        if line != HALT:
            raise ParseError(repr(HALT), number, 1, line)
        return ()
    at = _literal(line, number, 0, "CMD: " if machine == "ADD" else "CMD ")
    actions = line[at:].split(", ")
    for action in actions[:-1]:
        if _ACTIONS[machine].fullmatch(action) is None:
            raise ParseError(f"an action of {machine}", number, at + 1, line[at : at + 80])
        at += len(action) + 2
    if actions[-1] not in LAYOUTS[machine]:
        what = f"one of {machine}'s states {', '.join(LAYOUTS[machine])}"
        raise ParseError(what, number, at + 1, line[at : at + 80])
    return tuple(actions)
