"""The plain interpreter: a configuration of tapes, heads and registers, and what a command line does to it.

Nothing here knows a machine, a column or a template. The tape engine executes each distinct command of a machine once
with it; tests hold the engine to walks of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ..errors import UserError, did_you_mean, quoted


def tape_text(digits: str) -> str:
    """Return the tape of digits given units first: ``"21"`` -> ``"|2|1"``."""
    return "|" + "|".join(digits) if digits else ""


def units_first(number: int) -> str:
    """Return the digits of a number, units first."""
    return str(number)[::-1]


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that a basic machine knows between two steps; ``decide`` is given one, or a view of one.

    Args:
        state: ``q0`` ... ``qH``.
        tapes: the operands' digits, units first.
        heads: position of each head: -1 before it has entered its tape, else the number of digits to its left.
        carry: the register ``[C]``.
        output: digits written so far, units first.
        flag: the truth value written to the output.
        pending: a digit written but not yet moved past.
    """

    state: str
    tapes: tuple[str, ...]
    heads: tuple[int, ...]
    carry: str = ""
    output: str = ""
    flag: str = ""
    pending: str = ""

    def read(self, head: int) -> str:
        """Return the digit under a head, an empty string past either end."""
        position = self.heads[head]
        return self.tapes[head][position : position + 1] if position >= 0 else ""

    @property
    def symbol(self) -> str:
        """The digit under the first head."""
        return self.read(0)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The digit under each head."""
        return tuple(self.read(head) for head in range(len(self.tapes)))

    @property
    def last(self) -> str:
        """The digit that the output ends with, an empty string where nothing is written."""
        return self.output[-1:]

    def parts(self) -> dict[str, str]:
        """Return the named parts that state lines are made of."""
        parts = {"carry": self.carry, "out": tape_text(self.output), "flag": self.flag}
        for name, tape, head in zip("ab", self.tapes, self.heads, strict=False):
            at = max(head, 0)
            parts[name] = tape_text(tape)
            parts[f"{name}_left"], parts[f"{name}_right"] = tape_text(tape[:at]), tape_text(tape[at:])
        return parts


def check_command(command: str, tapes: int, states: Collection[str], begins: tuple[str, ...]) -> None:
    """Raise ValueError, which says why, where a text is no command line of a machine of so many tapes."""
    *actions, then = command.partition(" ")[2].split(", ")
    if not command.startswith(begins) or then not in states:
        where = f"must begin with {begins[-1]!r} and end with one of the states {', '.join(states)}"
        raise ValueError(f"it {where}{did_you_mean(then, states)}")
    heads = ("[HEAD]",) if tapes == 1 else ("[HEAD1]", "[HEAD2]")
    known = [f"{one} {way}" for one in (*heads, "[OUTPUT]") for way in ("RIGHT", "LEFT")]
    known += ["[C]", "[OUTPUT]", *(f"[OUTPUT] {value}" for value in (*"0123456789", "True", "False"))]
    for action in actions:
        if action not in known and not re.fullmatch(r"\[C\] [0-9]+", action):
            raise ValueError(f"{quoted(action)} is no action{did_you_mean(action, known)}")


def execute(now: Configuration, command: str) -> Configuration:
    """Return the configuration that a command line leads to.

    A digit is written under the output head and stays when the head moves right or when the output is closed, except
    that closing it drops a leading 0; moving the head left takes the last digit back.
    """
    state, heads, carry = now.state, list(now.heads), now.carry
    output, flag, pending = now.output, now.flag, now.pending
    for action in command.removeprefix("CMD").lstrip(": ").split(", "):
        target, _, value = action.partition(" ")
        if target in ("[HEAD]", "[HEAD1]", "[HEAD2]"):
            heads[target == "[HEAD2]"] += 1 if value == "RIGHT" else -1
        elif target == "[C]":
            carry = value or carry
        elif target != "[OUTPUT]":
            state = target
        elif value == "RIGHT" or (not value and pending not in ("", "0")):
            output, pending = output + pending, ""
        elif value == "LEFT":
            output = output[:-1]
        elif value in ("True", "False"):
            flag = value
        else:
            pending = value
    return Configuration(state, now.tapes, tuple(heads), carry, output, flag, pending if state != "qH" else "")


def wrong_entry(text: str, why: str, see: str = "caef-data show --task add 1 2 prints entries") -> UserError:
    """Return the error of an entry, or a part of one, that nothing follows; ``see`` says what prints entries."""
    return UserError(f"nothing follows this entry: {why}", where=quoted(text, 200), next_step=see)
