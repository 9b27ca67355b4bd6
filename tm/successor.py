"""The entry that follows any entry, from its text alone, also off the track of every run.

Nothing of the engines is used: the tests hold them to this, and the oracle backend answers with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice

from ..errors import UserError, quoted
from .basic import BasicMachine
from .composer import Composer
from .cutting import ANY_DIGIT, TAPE, Cut, cutter, formatter, shape
from .entries import MOST_SHAPES, TRIED_STEPS, entries, tried
from .interpreter import wrong_entry
from .machine import HALT, VERSIONED, Machine, Transition
from .registry import machine_of
from .turing import TuringMachine

_NUMBER, _TRUTH = (re.compile(one).fullmatch for one in (TAPE + "|0", "True|False"))


class Calls:
    """Runs the entries of a composer as texts: the result of the machine that was called goes into a register.

    Args:
        machine: the machine.
    """

    def __init__(self, machine: Composer) -> None:
        self.machine = machine
        pieces = re.split(r"\{(\w+)\}", machine.line.replace("{title}", machine.title))
        self.names = tuple(name for name in pieces[1::2] if name != "state")
        fields = {"state": "(q[0-9H]+)", **dict.fromkeys(self.names, f"({TAPE})")}
        pattern = (fields[one] if at % 2 else re.escape(one) for at, one in enumerate(pieces))
        self.match, self.first = re.compile("".join(pattern)).match, self.names.index("a")
        into = dict.fromkeys(call.into for call in machine.calls if call.into)
        names = ["state", "a", "b", *(f"{name}=''" for name in into), "**_"]
        lines = (line.replace("{title}", machine.title) for line in (machine.line, machine.halted_line))
        self.line, self.last = (formatter(line, names) for line in lines)
        self.initial = [entries(call.task).initial for call in machine.calls]
        self.after = [self._after(place) for place in range(len(machine.calls))]
        self.shapes: dict[bytes, tuple[Cut, list[str], int]] = {}

    def successor(self, prompt: str) -> str:
        """Return the entry that follows.

        Raises:
            UserError: the text is no entry of the machine, or nothing follows.
        """
        known = self.shapes.get(prompt.encode("utf-8", "replace").translate(ANY_DIGIT))
        digits: list[str] | None = None
        if known is not None:
            cut, fixed, place = known
            result, *tapes = cut(prompt)
            digits = tapes[len(self.names) :]
        if known is None or digits != fixed:
            found = self._read(prompt)
            if isinstance(found, str):
                return found
            place, result, tapes = found
        call, tapes = self.machine.calls[place], tapes[: len(self.names)]
        if call.into:
            while result[-2:] == "|0" and result != "|0":  # published entries have zeros above the number
                result = result[:-2]
            result = "|0" if result == "0" else result
        halts, follow = call.then == "qH" or not call.into and result != self.machine.goes_on, self.after[place]
        if follow is not None and not halts:
            return follow(result, "|9" * (len(tapes[self.first]) // 2), *tapes)
        held = dict(zip(self.names, tapes, strict=True)) | ({call.into: result} if call.into else {})
        return f"{self.last('qH', **held)}\n{HALT}" if halts else self._entered(held, (place + 1) % len(self.initial))

    def _after(self, place: int) -> Callable[..., str] | None:
        """Return what writes the entry behind a call; None where the next machine looks at its tapes in q0."""
        call, then = (self.machine.calls[at % len(self.machine.calls)] for at in (place, place + 1))
        called = entries(then.task)
        called.initial("|1", "|1")
        if not called.forms["q0"].lines:
            return None
        names = ("nines", *self.names)
        held = {name: f"{{{name}}}" for name in names} | {call.into: "{result}"}
        return formatter(self._entered(held, (place + 1) % len(self.machine.calls)), ("result", *names))

    def _read(self, prompt: str) -> str | tuple[int, str, list[str]]:
        """Return the place of the call that has ended, its result and the tapes; of q0 the entry that follows."""
        found = self.match(prompt)
        command, *quoted = prompt[found.end() + 1 :].split("\n") if found else [""]
        if found is None or prompt[found.end() : found.end() + 1] != "\n" or quoted[-1:] != [""]:
            raise wrong_entry(prompt, f"it is no entry of {self.machine.name} that has not halted")
        state, *tapes = found.groups()
        if state == "q0":
            held = dict(zip(self.names, tapes, strict=True))
            if len(quoted) > 1 or command != self.machine.begin.format_map(held):
                raise wrong_entry(prompt, f"the first command of {self.machine.name} is another one")
            return self._entered(held | _registers(command), 0)
        place = next((place for place, call in enumerate(self.machine.calls) if call.state == state), None)
        if place is None:
            raise wrong_entry(prompt, f"{self.machine.name} has no state {state}")
        call = self.machine.calls[place]
        if command != call.line:
            raise wrong_entry(prompt, f"in {call.state} the command is {call.line}")
        if len(quoted) != 3 or quoted[1] != HALT or not quoted[0].startswith(f"{call.task.upper()}, qH, "):
            raise wrong_entry(prompt, f"the halting entry of {call.task} must follow {call.line}")
        result = quoted[0].rpartition(" ")[2]
        if not (_NUMBER if call.into else _TRUTH)(result):
            raise wrong_entry(prompt, f"{call.task} must halt with {'a number' if call.into else 'True or False'}")
        if len(self.shapes) < MOST_SHAPES:
            end = len(prompt) - len(f"\n{HALT}\n")
            cuts = [slice(end - len(result), end), *(slice(*found.span(at + 2)) for at in range(len(tapes)))]
            quoted_operands = range(prompt.index(", qH, ", found.end()) + 6, end)
            self.shapes[shape(prompt)] = *cutter(prompt, cuts, ignored=quoted_operands), place
        return place, result, tapes

    def _entered(self, held: dict[str, str], place: int) -> str:
        call = self.machine.calls[place]
        values = {"nines": "|9" * (len(held["a"]) // 2), **held, "1": "|1"}
        quoted = self.initial[place](*(values[name] for name in call.operands))
        return f"{self.line(call.state, **held)}\n{call.line}\n{quoted}"


def _registers(command: str) -> dict[str, str]:
    """Return what a first command writes into the registers."""
    found = re.findall(r"\[(COUNT|OUTPUT)\] ?\|?([0-9|]+)", command)
    return {{"COUNT": "count", "OUTPUT": "out"}[name]: f"|{value}" for name, value in found}


@lru_cache(256)  # a machine of a declaration gives way to the next one of its name
def successor_of(found: Machine) -> Callable[[str], str]:
    """Return what gives the entries that follow those of a machine.

    Raises:
        UserError: the machine is neither a basic machine nor a composer; or a user's own, whose entries do not show all
            that it looks at.
    """
    if isinstance(found, TuringMachine):
        return found.successor
    if not isinstance(found, BasicMachine | Composer):
        raise UserError(f"entries of {found.name} cannot be run: it is no basic machine and no composer")
    follow = entries(found.name).successor if isinstance(found, BasicMachine) else Calls(found).successor
    if found.name not in VERSIONED:
        _check_shown(found, follow)
    return follow


def _small_steps(found: Machine) -> Iterator[Transition]:
    for a, b in tried(found):
        with suppress(UserError):  # a run that ends in an error
            yield from islice(found.transitions(a, b, "consistent"), TRIED_STEPS)


def _check_shown(found: Machine, follow: Callable[[str], str]) -> None:
    """Refuse a machine that goes by more than its entries show, as runs of small operands tell."""
    for step in _small_steps(found):
        try:
            shown = follow(step.prompt) == step.completion
        except UserError:
            continue  # nobody takes that for an answer
        if not shown:
            what = f"entries of {found.name} do not tell what follows them: something else follows in a run"
            allowed = "state lines that show all that decide looks at: heads, {carry}, {out}, {flag}"
            raise UserError(what, where=f"{found.source}: {quoted(step.prompt, 200)}", allowed=allowed)


def successor(prompt: str, *, task: str | None = None) -> str:
    """Return the completion of an entry, of a run or not: what its command leads to, and the next command.

    Args:
        prompt: the entry, as a one-step row has it; a composer's holds the halting entry of the machine it has called.
        task: the task; None reads it from the text.

    Raises:
        UserError: the text is no entry of the task's machine, or its machine has halted.
    """
    return successor_of(machine_of(prompt, task))(prompt)
