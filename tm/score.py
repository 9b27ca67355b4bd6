"""How an answer compares with the exact one: right or not, its first wrong place, and which of its parts are right.

The exact answer comes from ``successor``: from the prompt's text alone, so it is there off the track of every run too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import compress
from operator import add, itemgetter, ne
from typing import NamedTuple

from ..errors import UserError, quoted
from .composer import Composer
from .entries import entries
from .machine import Machine
from .registry import machine_of
from .successor import successor_of
from .turing import TuringMachine

PARTS = ("state", "heads", "tapes", "carry", "output", "command")


class Score(NamedTuple):
    """What ``score`` tells of an answer; true in a condition if the answer is right.

    Args:
        right: the answer is the expected text, to the last newline.
        first_wrong: index of its first wrong character: its length where it only stops too early; None if right.
        expected: the exact answer.
        parts: which parts are right, as far as the machine has them; all of them if and only if the answer is right.
    """

    right: bool
    first_wrong: int | None
    expected: str
    parts: dict[str, bool]

    def __bool__(self) -> bool:
        return self.right


SIGNS = "|0123456789"  # of tapes
FIELDS = ("a_left", "b_left", "a_right", "b_right", "state", "out", "flag")  # of state lines; the others are registers


class Line:
    """A state line of one form: its literal texts stand where they belong, what is between them may be anything.

    Args:
        pieces: literal texts and, at the odd places, names of fields.
        state: the state; empty where it is a field.
        mark: how an output without digits looks.
    """

    def __init__(self, pieces: list[str], state: str = "", mark: str = "") -> None:
        self.state, self.mark, names = state, mark, pieces[1::2]
        pattern = re.escape(pieces[0])
        for name, literal in zip(names, pieces[2::2], strict=True):
            free = literal and literal[0] not in SIGNS + mark
            field = f"[^{re.escape(literal[0])}]*+" if free else f"[{SIGNS}]*+"  # looking for one character is fastest
            if not free and name in ("out", "flag"):
                field += f"|{re.escape(mark)}|True|False"
            pattern += f"({field}){re.escape(literal)}"
        self.match = re.compile(pattern + "()").fullmatch  # a field that the line does not have is empty
        self.registers = [name for name in names if name not in FIELDS]
        self.fields = itemgetter(*(names.index(name) if name in names else -1 for name in (*FIELDS, *self.registers)))

    def read(self, line: str) -> tuple[object, ...] | None:
        """Return state, heads, tapes, carry and output; None where the line has another form."""
        found = self.match(line)
        if found is None:
            return None
        left1, left2, right1, right2, state, out, flag, *registers = self.fields(found.groups())
        out = "" if out == self.mark else out
        heads, tapes = (len(left1), len(left2)), (left1 + right1, left2 + right2)
        return self.state or state, heads, tapes, registers, (out, flag)


class TuringLine(Line):
    """A state line of a Turing machine, of any number of tapes."""

    def read(self, line: str) -> tuple[object, ...] | None:
        found = self.match(line)
        if found is None:
            return None
        state, *texts, _ = found.groups()
        return state, [len(left) for left in texts[::2]], [*map(add, texts[::2], texts[1::2])]


def lines_of(found: Machine) -> list[Line]:
    """Return the state lines of a machine."""
    if isinstance(found, TuringMachine):
        tapes = [text for head in found.heads for text in ("left", head, "right", " ")]
        return [TuringLine([f"{found.title}, ", "state", ", ", *tapes[:-1], ""])]
    if isinstance(found, Composer):
        sources = found.line, found.halted_line.replace("qH", "{state}", 1)
        texts = [re.sub(r"\{(a|b)\}", r"{\1_right}", source).replace("{title}", found.title) for source in sources]
        return [Line(re.split(r"\{(\w+)\}", text)) for text in texts]
    lines = []
    for state, form in entries(found.name).forms.items():
        *pieces, last, _, _ = form.pieces  # the command is not read
        lines.append(Line([*pieces, last.removesuffix("\n")], state, form.mark))
    return lines


class Judge:
    """Compares answers with exact ones.

    Args:
        found: the machine.
    """

    def __init__(self, found: Machine) -> None:
        self.machine = found
        self.any_line, self.at = lines_of(found), len(found.title) + 2
        self.lines = {line.state: (line,) for line in self.any_line if line.state}
        turing, registers = isinstance(found, TuringMachine), any(line.registers for line in self.any_line)
        has = {"heads": not isinstance(found, Composer), "carry": registers and not turing, "output": not turing}
        self.all_right = {part: True for part in PARTS if has.get(part, True)}

    @cached_property
    def successor(self) -> Callable[[str], str]:
        """What gives the entries that follow; raises UserError where its entries cannot be run."""
        return successor_of(self.machine)

    def read(self, line: str) -> tuple[object, ...] | None:
        """Return what a state line says; None where it is no state line of the machine."""
        for form in self.lines.get(line[self.at : self.at + 2], self.any_line):
            if (found := form.read(line)) is not None:
                return found
        return None

    def score(self, expected: str, answer: str) -> Score:
        """Compare an answer with the exact one, an entry of the machine."""
        parts = self.all_right.copy()
        if answer == expected:
            return Score(True, None, expected, parts)
        if not isinstance(answer, str):
            raise UserError(f"the answer must be a text, not {quoted(answer)}")
        line, _, command = expected.partition("\n")
        its_line, _, its_command = answer.partition("\n")
        if its_command != command:
            parts["command"] = False
        if its_line == line:
            parts["command"] = False
            return Score(False, first_difference(expected, answer, len(line)), expected, parts)
        wanted, found = self.read(line), self.read(its_line)
        if found is None or wanted is None:
            state = its_line.split(",", 2)[:2] == line.split(",", 2)[:2]
            parts = {**dict.fromkeys(parts, False), "state": state, "command": parts["command"]}
        else:
            for part in compress(PARTS, map(ne, wanted, found)):
                parts[part] = False
        return Score(False, first_difference(line, its_line), expected, parts)


def text_score(expected: str, answer: str) -> Score:
    """Compare an answer with the exact one, of which no parts are told."""
    right = answer == expected
    return Score(right, None if right else first_difference(expected, answer), expected, {})


def first_difference(one: str, other: str, low: int = 0) -> int:
    """Return how many characters two texts have in common from their beginning; ``low`` of them are known."""
    high = min(len(one), len(other))
    while low < high and (first := one[low : low + 64]) == (second := other[low : low + 64]):
        low += 64
    if low >= high:
        return high
    if first.isascii() and second.isascii():
        changed = int.from_bytes(first.encode(), "little") ^ int.from_bytes(second.encode(), "little")
        return low + ((changed & -changed).bit_length() - 1) // 8 if changed else high
    return next((at for at, (sign, its) in enumerate(zip(first, second, strict=False), low) if sign != its), high)


@lru_cache(256)
def judge_of(found: Machine) -> Judge:
    """Return what compares the answers of a machine."""
    return Judge(found)


def score(prompt: str, answer: str, *, task: str | None = None) -> Score:
    """Compare an answer to a one-step prompt with the exact one: ``right``, ``first_wrong``, ``expected``, ``parts``.

    The verdict is that of ``caef-data eval``: an answer is right if it is the expected text, to the character. One
    newline more or less at the end makes it wrong. So give the text as the model wrote it, up to the EOS token.

    ``parts`` has a key for each part that the machine has, and no key for the others:

    - ``state``: the machine's name and the state.
    - ``heads``: where they stand. Not for composers, whose heads do not move.
    - ``tapes``: what is on them.
    - ``carry``: the carry of ``add``; the counter of ``mul`` and ``div``. Not for machines without such a register.
    - ``output``: what is written. Not for Turing machines, which write on their tapes.
    - ``command``: all that stands below the state line: the command, and the entry of a machine that is called.

    Where the words of the state line do not stand where they belong (heads, registers), only ``state`` of it can be
    right.

    Args:
        prompt: an entry, of a run or not, as ``successor`` takes it.
        answer: any text.
        task: the task; None reads it from the prompt.

    Raises:
        UserError: the prompt is no entry of the task's machine, or nothing follows it; the answer is no text.
    """
    judge = judge_of(machine_of(prompt, task))
    return judge.score(judge.successor(prompt), answer)
