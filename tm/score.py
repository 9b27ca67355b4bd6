"""How an answer compares with the exact one: right or not, its first wrong place, and which of its parts are right.

The exact answer comes from ``successor``: from the prompt's text alone, so it is there off the track of every run too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import UserError, quoted
from .composer import Composer
from .machine import Machine
from .registry import machine, tasks
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


_CELLS = "[|0-9]*+"
_LINE = re.compile(  # a blank stands before the tapes, or behind the heads
    rf"(\w+, \w+), ( )?({_CELLS})\[HEAD1?\](?(2)| ?)({_CELLS})(?: ?({_CELLS})\[HEAD2\](?(2)| ?)({_CELLS}))?"
    rf" (\[C(?:OUNT)?\]{_CELLS} )?(?:\[OUTPUT\])?({_CELLS}|True|False)(?:\[OUTPUT\])?"
)


class Judge:
    """Compares answers of a machine with exact ones; raises UserError where its entries cannot be run."""

    def __init__(self, found: Machine) -> None:
        turing, lines = isinstance(found, TuringMachine), getattr(found, "states", {"": getattr(found, "line", "")})
        self.successor = found.successor if isinstance(found, TuringMachine) else successor_of(found)
        self.heads = re.compile("|".join(map(re.escape, found.heads))) if isinstance(found, TuringMachine) else None
        carry = any(register in line for line in lines.values() for register in ("[COUNT]", "{carry}"))
        has = {"heads": not isinstance(found, Composer), "carry": carry and not turing, "output": not turing}
        self.all_right = {part: True for part in PARTS if has.get(part, True)}

    def read(self, line: str) -> tuple[object, ...] | None:
        """Return state, heads, tapes, carry and output of a state line; None where it is none of the machine."""
        if self.heads is not None:
            title, state, tapes = (*line.split(", ", 2), "", "")[:3]
            texts = self.heads.split(tapes)
            return (title, state), [*map(len, texts)], "".join(texts)
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        state, _, left1, right1, left2, right2, carry, out = found.groups("")
        return state, (len(left1), len(left2)), (left1 + right1, left2 + right2), carry, out

    def score(self, expected: str, answer: str) -> Score:
        """Compare an answer with the exact one, an entry of the machine."""
        parts = self.all_right.copy()
        if answer == expected:
            return Score(True, None, expected, parts)
        line, _, command = expected.partition("\n")
        its_line, _, its_command = answer.partition("\n")
        if its_line == line:  # then the command is wrong, be it by a newline
            parts["command"], at = False, len(line)
            return Score(False, at + first_difference(expected[at:], answer[at:]), expected, parts)
        wanted, found = self.read(line), self.read(its_line)
        pairs = zip(PARTS, wanted, found, strict=False) if wanted and found else ()
        wrong = [part for part, right, its in pairs if right != its and part in parts]
        if not wrong:  # words do not stand where they belong: of the state line the state alone can be right
            wrong = [*parts][its_line.split(",", 2)[:2] == line.split(",", 2)[:2] : -1]
        for part in wrong if its_command == command else (*wrong, "command"):
            parts[part] = False
        return Score(False, first_difference(line, its_line), expected, parts)


def text_score(expected: str, answer: str) -> Score:
    """Compare an answer with the exact one, of which no parts are told."""
    right = answer == expected
    return Score(right, None if right else first_difference(expected, answer), expected, {})


def first_difference(one: str, other: str) -> int:
    """Return how many characters two texts have in common from their beginning."""
    high = min(len(one), len(other))
    if one.isascii() and other.isascii():
        ours, theirs = (int.from_bytes(text[:high].encode(), "little") for text in (one, other))
        changed = ours ^ theirs
        return ((changed & -changed).bit_length() - 1) // 8 if changed else high
    return next((at for at, (sign, its) in enumerate(zip(one, other, strict=False)) if sign != its), high)


_JUDGES: dict[str, Judge] = {}  # by the name that a prompt begins with, and by task


def judge_of(task: str) -> Judge:
    """Return what compares the answers of a task; raises UserError where there is none."""
    judge = _JUDGES.get(task)
    if judge is None:
        found = machine(task)
        judge = Judge(found)
        if not isinstance(found, TuringMachine):  # another one may take its name
            _JUDGES[task] = _JUDGES[found.title] = judge
    return judge


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
    if not isinstance(prompt, str) or not isinstance(answer, str) or task is not None and not isinstance(task, str):
        named = {"prompt": prompt, "answer": answer, "task": "" if task is None else task}
        name, value = next(pair for pair in named.items() if not isinstance(pair[1], str))
        raise UserError(f"the {name} must be a text, not {quoted(repr(value))}")
    name = prompt.partition(",")[0] if task is None else task
    judge = _JUDGES.get(name)
    if judge is None:
        if task is None and name.lower() not in tasks():
            raise UserError(
                "the prompt names no machine",
                where=quoted(prompt, 200),
                allowed="an entry as a one-step row has it; caef-data show --task add 1 2 prints some",
                next_step="compare answers to other rows with their completions: caef_data.environment(view=...) does",
            )
        judge = judge_of(name if task is not None else name.lower())
    return judge.score(judge.successor(prompt), answer)
