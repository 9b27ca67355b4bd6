"""How an answer compares with the exact one: right or not, its first wrong place, and which of its parts are right.

The exact answer comes from ``successor``: from the prompt's text alone, so it is there off the track of every run too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import UserError, quoted
from .composer import Composer
from .machine import HALT, Machine
from .registry import machine, tasks
from .successor import entries, successor_of
from .turing import TuringMachine

ORDER = ("state", "heads", "tapes", "carry", "output", "command")


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

    @property
    def line(self) -> int | None:
        """The line of the first wrong character, from 1 on."""
        return None if self.first_wrong is None else self.expected.count("\n", 0, self.first_wrong) + 1

    @property
    def column(self) -> int | None:
        """The column of the first wrong character, from 1 on."""
        return None if self.first_wrong is None else self.first_wrong - self.expected.rfind("\n", 0, self.first_wrong)


SIGNS = "|0123456789"  # of tapes
PARTS = {"state": "state", "carry": "carry", "out": "output", "flag": "output"}  # fields of state lines


class Line:
    """A state line of one form: its literal texts stand where they belong, what is between them may be anything.

    Args:
        pieces: literal texts and, at the odd places, names of fields.
        state: the state; empty where it is a field.
        mark: how an output without digits looks.
    """

    def __init__(self, pieces: list[str], state: str = "", mark: str = "") -> None:
        self.state, self.mark = state, mark
        pattern = re.escape(pieces[0])
        for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            free = literal and literal[0] not in SIGNS + mark
            field = f"[^{re.escape(literal[0])}]*+" if free else f"[{SIGNS}]*+"  # looking for one character is fastest
            if not free and name in ("out", "flag"):
                field += f"|{re.escape(mark)}|True|False"
            pattern += f"({field}){re.escape(literal)}"
        self.match = re.compile(pattern).fullmatch
        place = {name: at for at, name in enumerate(pieces[1::2])}
        sides = [[place.get(side) for side in (f"{tape}_left", f"{tape}_right", tape)] for tape in "ab"]
        self.heads = [(left, right if whole is None else whole) for left, right, whole in sides]
        self.moved = [(left, right) for left, right in self.heads if left is not None and right is not None]
        still = [at for pair in self.heads if None in pair for at in pair if at is not None]
        self.registers = [(name, at) for name, at in place.items() if name[:2] not in ("a_", "b_", "a", "b")]
        self.single = [(PARTS.get(name, "carry"), at) for name, at in self.registers] + [("tapes", at) for at in still]

    def read(self, line: str) -> Sequence[object] | None:
        found = self.match(line)
        return found.groups() if found else None

    def compare(self, fields: Sequence[Any], wanted: Sequence[Any], parts: dict[str, bool]) -> None:
        """Note the parts in which the fields of two lines differ."""
        for part, at in self.single:
            if fields[at] != wanted[at]:
                parts[part] = False
        for left, right in self.moved:
            if fields[left] != wanted[left] or fields[right] != wanted[right]:
                parts["heads"] &= len(fields[left]) == len(wanted[left])
                parts["tapes"] &= fields[left] + fields[right] == wanted[left] + wanted[right]

    def values(self, fields: Sequence[Any]) -> dict[str, object]:
        """Return the parts of a line, told alike by all forms."""
        pairs = [["" if at is None else fields[at] for at in pair] for pair in self.heads]
        held = {name: fields[at] for name, at in self.registers}
        out = held.pop("out", ""), held.pop("flag", "")
        return {
            "state": held.pop("state", self.state),
            "heads": [len(left) for left, _ in pairs],
            "tapes": [left + right for left, right in pairs],
            "output": ("", out[1]) if out[0] == self.mark else out,
            "carry": held,
        }


class TuringLine(Line):
    """A state line of a Turing machine.

    Args:
        found: the machine.
    """

    def __init__(self, found: TuringMachine) -> None:
        self.machine, self.moved = found, []
        self.single = [("state", 0), ("heads", 1), ("tapes", 2)]

    def read(self, line: str) -> Sequence[object] | None:
        try:
            now, _ = self.machine.parse(f"{line}\n{HALT}\n")
        except UserError:
            return None
        return now.state, now.heads, now.cells


def lines_of(found: Machine) -> dict[str, Line]:
    """Return the state lines of a machine, by their states; of a composer by what is not their state."""
    if isinstance(found, TuringMachine):
        return {"": TuringLine(found)}
    if isinstance(found, Composer):
        sources = found.line, found.halted_line.replace("qH", "{state}", 1)
        texts = [re.split(r"\{(\w+)\}", source.replace("{title}", found.title)) for source in sources]
        return {"going": Line(texts[0]), "halted": Line(texts[1])}
    lines = {}
    for state, form in entries(found.name).forms.items():
        *pieces, last, _, _ = form.pieces  # the command is not read
        lines[state] = Line([*pieces, last.removesuffix("\n")], state, form.mark)
    return lines


class Judge:
    """Compares answers with exact ones.

    Args:
        found: the machine.

    Raises:
        UserError: its entries cannot be run.
    """

    def __init__(self, found: Machine) -> None:
        self.successor = found.successor if isinstance(found, TuringMachine) else successor_of(found)
        self.lines, self.at = lines_of(found), len(found.title) + 2
        has = {part for line in self.lines.values() for part, _ in line.single} | {"state", "tapes", "command"}
        has |= {"heads"} if any(line.moved for line in self.lines.values()) else set()
        self.all_right = {part: True for part in ORDER if part in has}

    def read(self, line: str) -> tuple[Line, Sequence[object]] | None:
        """Return a state line's form and fields; None where it is no state line of the machine."""
        form = self.lines.get(line[self.at : self.at + 2])
        for one in self.lines.values() if form is None else (form,):
            if (fields := one.read(line)) is not None:
                return one, fields
        return None

    def score(self, expected: str, answer: str) -> Score:
        """Compare an answer with the exact one, an entry of the machine."""
        parts = self.all_right.copy()
        if answer == expected:
            return Score(True, None, expected, parts)
        line, _, command = expected.partition("\n")
        its_line, _, its_command = answer.partition("\n")
        if its_line == line:
            parts["command"] = False
            return Score(False, first_difference(expected, answer, len(line)), expected, parts)
        found, wanted = self.read(its_line), self.read(line)
        if found is None or wanted is None:
            parts = dict.fromkeys(parts, False)
            parts["state"] = its_line.split(",", 2)[:2] == line.split(",", 2)[:2]
        elif found[0] is wanted[0]:
            found[0].compare(found[1], wanted[1], parts)
        else:
            its_values, values = (form.values(fields) for form, fields in (found, wanted))
            parts = {part: its_values.get(part) == values.get(part) for part in parts}
        parts["command"] = its_command == command
        return Score(False, first_difference(expected, answer), expected, parts)


def text_score(expected: str, answer: str) -> Score:
    """Compare an answer with the exact one, of which no parts are told."""
    right = answer == expected
    return Score(right, None if right else first_difference(expected, answer), expected, {})


def first_difference(one: str, other: str, low: int = 0) -> int:
    """Return how many characters two texts have in common from their beginning; ``low`` of them are known."""
    high = min(len(one), len(other))
    if one[low:high] == other[low:high]:
        return high
    while (first := one[low : low + 64]) == (second := other[low : low + 64]):
        low += 64
    if first.isascii() and second.isascii():
        changed = int.from_bytes(first.encode(), "little") ^ int.from_bytes(second.encode(), "little")
        return low + ((changed & -changed).bit_length() - 1) // 8
    return low + next(at for at, (sign, its) in enumerate(zip(first, second, strict=False)) if sign != its)


_JUDGES: dict[str, Judge] = {}  # by the name that a prompt begins with, and by task


def judge_of(task: str) -> Judge:
    """Return what compares the answers of a task.

    Raises:
        UserError: there is no such task, or its entries cannot be run.
    """
    if task in _JUDGES:
        return _JUDGES[task]
    found = machine(task)
    if isinstance(found, TuringMachine):  # another one may take its name
        return Judge(found)
    return _JUDGES.setdefault(task, Judge(found))


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
    if not isinstance(prompt, str) or not isinstance(answer, str):
        name, text = ("answer", answer) if isinstance(prompt, str) else ("prompt", prompt)
        raise UserError(f"the {name} must be a text, not {quoted(repr(text))}")
    name = prompt.partition(",")[0] if task is None else task
    judge = _JUDGES.get(name)
    if judge is None:
        if task is None and name.lower() not in tasks():
            told = "an entry as a one-step row has it; caef-data show --task add 1 2 prints some"
            raise UserError("the prompt names no machine", where=quoted(prompt, 200), allowed=told)
        judge = judge_of(name if task is not None else name.lower())
        if task is None and name.lower() in _JUDGES:
            _JUDGES[name] = judge
    return judge.score(judge.successor(prompt), answer)
