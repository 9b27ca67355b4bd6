"""The entry that follows any entry of a basic machine, from its text alone, also off the track of every run.

The text is read into tapes, registers and command; the command is executed by ``interpreter.execute``, and the
machine's own ``decide`` gives the next one. Each distinct command is executed once, each distinct view decided once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import product
from typing import NamedTuple

from ..errors import UserError
from .basic import BasicMachine
from .cutting import ANY_DIGIT, TAPE, Cut, cutter, formatter, shape
from .interpreter import Configuration, check_command, execute, wrong_entry
from .machine import HALT, Machine
from .registry import machine
from .table import Control, Untabulated, View

SLOTS = ("a_left", "a_right", "b_left", "b_right", "carry", "out", "flag", "command")  # of an entry that is read
PARTS = ("a_left", "a_passed", "a_right", "b_left", "b_passed", "b_right", *SLOTS[4:])  # of the one that follows
PATTERNS = {"carry": "[0-9]?", "flag": "True|False|", "command": r"[^\n]*"}
INSIDE = 5  # where the heads of an example stand: off both ends
MOST_SHAPES = 5_000  # of a state: a few MB
TRIED, TRIED_STEPS = (*range(12), 19, 90, 99, 100, 102, 999), 100  # operands and steps of a user's own machine


class Other(NamedTuple):
    """What few commands do.

    Args:
        dropped: characters taken off the output.
        flag: the truth value written; None leaves it.
        mark: how no output looks before.
        left: which heads go left.
    """

    dropped: int
    flag: str | None
    mark: str
    left: tuple[bool, bool]


class Effect(NamedTuple):
    """What a command does to the texts of an entry.

    Args:
        moves: characters that each head passes.
        carry: what is written to it; None leaves it.
        written: what is added to the output.
        other: what few commands do; None for the others.
        form: the entry that follows.
    """

    moves: tuple[int, int]
    carry: str | None
    written: str
    other: Other | None
    form: Form


class Form:
    """The entry of one state: how its text is read and written.

    Args:
        machine: the machine.
        state: the state.
    """

    def __init__(self, machine: BasicMachine, state: str) -> None:
        self.state, self.mark = state, machine.empty.get(state, "")
        template = machine.template(state)
        pieces, pattern, self.shown = [], [], set[str]()
        self.pieces = [""]  # literal texts and, at the odd places, what stands between them
        for at, (literal, name) in enumerate(template.pieces):
            pieces.append(literal)
            self.pieces[-1] += literal
            pattern.append(re.escape(literal))
            shown = f"{{{name}}}".replace("_left}", f"_left}}{{{str(name)[:1]}_passed}}")
            if name in ("a", "b"):  # the head stands where its token does: behind the whole tape or before it
                shown = f"{{{name}_left}}{{{name}_passed}}{{{name}_right}}"  # wherever a command has left it
                after = template.pieces[at + 1][0]
                behind = after.startswith(("[HEAD]", "[HEAD1]") if name == "a" else "[HEAD2]")
                name = f"{name}_{'left' if behind else 'right'}"
            if name and name != "mark":
                pieces.append(shown)
                self.shown.add(name)
                self.pieces += name, ""
                marked = self.mark and name == "out"
                allowed = rf"(?:\|[0-9])++|{re.escape(self.mark)}" if marked else PATTERNS.get(name, TAPE)
                pattern.append(f"(?P<{name}>{allowed})")
        self.text = formatter("".join(pieces) + "\n", PARTS)
        self.shapes: dict[bytes, tuple[Cut, list[str], tuple[int, int]]] = {}
        self.match = re.compile("".join(pattern) + "\n").fullmatch
        self.effects: dict[str, Effect] = {}
        self.lines: dict[tuple[str, ...], str] = {}


class Entries:
    """Runs the entries of a basic machine as texts.

    Args:
        machine: the machine.
    """

    def __init__(self, machine: BasicMachine) -> None:
        self.machine, self.heads, self.at = machine, 1 if machine.unary else 2, len(machine.title) + 2
        self.forms = {state: Form(machine, state) for state in machine.states}
        lines = [] if machine.table is None else machine.table.lines
        goes_left = not lines or any(re.search(r"HEAD\d?\] LEFT", line) for line in lines)
        self.prefix = machine.line(machine.start(0, 0)).partition(" ")[0] + " "
        self.outside = frozenset(self._outside()) if goes_left else frozenset()

    def _outside(self) -> Iterator[str]:
        """Yield the states in which a head of a small run stands before its tape."""
        for a, b in tried(self.machine):
            now, steps = self.machine.start(a, b), 0
            with suppress(UserError):  # a run that ends in an error
                while now.state != "qH" and steps < TRIED_STEPS:
                    now, steps = execute(now, self.machine.line(now)), steps + 1
                    if min(now.heads) < 0:
                        yield now.state

    def successor(self, prompt: str) -> str:
        """Return the entry that follows.

        Raises:
            UserError: the text is no entry of the machine, or nothing follows.
        """
        form, effect = self.forms.get(prompt[self.at : self.at + 2]), None
        known = form.shapes.get(prompt.encode("utf-8", "replace").translate(ANY_DIGIT)) if form is not None else None
        if form is not None and known is not None:  # the heads have moved in what it cuts
            cut, fixed, moves = known
            left1, passed1, right1, left2, passed2, right2, carry, out, flag, command, *digits = cut(prompt)
            effect = form.effects.get(command)
        if effect is None or effect[0] != moves or digits != fixed:
            found = self._read(prompt)
            if isinstance(found, str):
                return found
            effect, (left1, passed1, right1, left2, passed2, right2, carry, out, flag) = found
        _, held, written, other, form = effect
        if other is not None:
            out, flag = _other(other, out, flag)
            passed1, right1 = ("", passed1 + right1) if other.left[0] else (passed1, right1)
            passed2, right2 = ("", passed2 + right2) if other.left[1] else (passed2, right2)
        if held is not None:
            carry = held
        out += written
        key = right1[1:2], right2[1:2], carry, out[-1:], flag
        line = form.lines.get(key)
        if line is None:
            line = self._line(form, key, (left1 + passed1, right1, left2 + passed2, right2, out))
        return form.text(left1, passed1, right1, left2, passed2, right2, carry, out or form.mark, flag, line)

    def initial(self, first: str, second: str = "") -> str:
        """Return the initial entry of operands that are given as tapes, without its last newline."""
        form, key = self.forms["q0"], ("", "", "", "", "")
        line = form.lines.get(key) or self._line(form, key, ("", first, "", second, ""))
        return form.text("", "", first, "", "", second, "", form.mark, "", line)[:-1]

    def _read(self, prompt: str) -> str | tuple[Effect, Sequence[str]]:
        """Read an entry; return what its command does and its texts where the heads have moved, or what follows it."""
        form, match = next(((one, match) for one in self.forms.values() if (match := one.match(prompt))), (None, None))
        if form is None or match is None:
            raise wrong_entry(prompt, f"it is no entry of {self.machine.name}")
        cuts = [slice(*match.span(slot)) if slot in form.shown else slice(0, 0) for slot in SLOTS]
        *_, command = texts = [prompt[one] for one in cuts]
        if form.state in self.outside and not all(texts[: 2 * self.heads : 2]):
            return self._placed(prompt, form, texts)
        effect = form.effects.get(command)
        if effect is None:
            effect = form.effects[command] = self._effect(form.state, command)
        moved: list[slice] = []
        for head, move in enumerate(effect.moves):
            left, right = cuts[2 * head : 2 * head + 2]
            if not left.start - left.stop <= move <= right.stop - right.start:
                raise wrong_entry(texts[2 * head] + texts[2 * head + 1], "the command moves a head off its tape")
            on, off = right.start + max(move, 0), left.stop + min(move, 0)
            passed = slice(right.start, on) if move > 0 else slice(off, left.stop)
            moved += slice(left.start, off), passed, slice(on, right.stop)
        cuts = [*moved, *cuts[4:]]
        if len(form.shapes) < MOST_SHAPES:
            form.shapes[shape(prompt)] = *cutter(prompt, cuts, form.mark, range(self.at, self.at + 2)), effect.moves
        return effect, [prompt[one] for one in cuts[:-1]]

    def _placed(self, prompt: str, form: Form, texts: Sequence[str]) -> str:
        """Return what follows an entry with a head on its first digit or before it: the entry's command tells which."""
        left1, right1, left2, right2, carry, out, flag, command = (text.replace("|", "") for text in texts)
        tapes, out = (left1 + right1, left2 + right2)[: self.heads], "" if texts[5] == form.mark else out
        places = [[len(left)] if left else [0, -1] for left in (left1, left2)[: self.heads]]
        follow = set[str]()
        for now in (Configuration(form.state, tapes, heads, carry, out, flag) for heads in product(*places)):
            with suppress(UserError):  # the machine has no command there
                if self.machine.line(now) == command:
                    follow.add(self.machine.entry(execute(now, command)))
        if len(follow) != 1:
            raise wrong_entry(prompt, "it does not show whether a head stands on its first digit or before it")
        return follow.pop()

    def _effect(self, state: str, command: str) -> Effect:
        """Execute a command once, on an example."""
        if command == HALT:
            raise wrong_entry(command, "the machine has halted, nothing follows")
        try:
            check_command(command, self.heads, [one for one in self.forms if one != "q0"], (self.prefix,))
        except ValueError as error:
            raise wrong_entry(command, str(error)) from None
        then = command.rpartition(" ")[2]
        place = -1 if state == "q0" else INSIDE
        now = Configuration(state, ("",) * self.heads, (place,) * self.heads, "*", "*" * INSIDE, "*")
        after = execute(now, command)
        if min(after.heads) < 0 and then != "qH":
            raise wrong_entry(command, "entries do not show that a head has not entered its tape")
        move1, move2 = (*(2 * (head - max(place, 0)) for head in after.heads), 0)[:2]
        kept = len(after.output) - len(after.output.lstrip("*"))
        carry, flag = (None if one == "*" else one for one in (after.carry, after.flag))
        other = Other(2 * (INSIDE - kept), flag, self.forms[state].mark, (move1 < 0, move2 < 0))
        written = "".join(f"|{digit}" for digit in after.output[kept:])
        usual = other == (0, None, "", (False, False))
        return Effect((move1, move2), carry, written, None if usual else other, self.forms[then])

    def _line(self, form: Form, key: tuple[str, ...], texts: tuple[str, ...]) -> str:
        """Return the command line of a view."""
        first, second, carry, last, flag = key
        try:
            try:
                view = View(Control(form.state, carry, flag), self.heads, {0: first, 1: second, 2: last})
                return form.lines.setdefault(key, self.machine.line(view))
            except Untabulated:  # it looks at whole tapes
                left1, right1, left2, right2, out = (text.replace("|", "") for text in texts)
                heads = (-1, -1) if form.state == "q0" else (len(left1), len(left2))
                tapes = left1 + right1, left2 + right2
                now = Configuration(form.state, tapes[: self.heads], heads[: self.heads], carry, out, flag)
                return self.machine.line(now)
        except UserError as error:
            raise wrong_entry(form.state, f"{self.machine.name} has no command here: {error.what}") from error


def _other(other: Other, out: str, flag: str) -> tuple[str, str]:
    out = "" if out == other.mark else out
    if len(out) < other.dropped:
        raise wrong_entry(out, "the command takes back a digit, and none is written")
    return out[: len(out) - other.dropped], flag if other.flag is None else other.flag


def tried(found: Machine) -> list[tuple[int, int]]:
    """Return small operands of a machine."""
    pairs = product(TRIED, TRIED[:1] if found.unary else TRIED)
    return [pair for pair in pairs if found.domain_error(*pair) is None]


def entries(task: str) -> Entries:
    """Return the interpreter of a basic machine's entries."""
    found = machine(task)
    if not isinstance(found, BasicMachine):
        raise TypeError(f"{task} is no basic machine")
    return _entries_of(found)


_entries_of = cache(Entries)  # by the machine: a notebook that runs a cell again defines another one of the name
