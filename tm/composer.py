"""Composers: machines that call other machines and read their halting entries."""

from __future__ import annotations

import re
from abc import abstractmethod
from functools import lru_cache

from .basic import BasicMachine
from .columns import Operands
from .machine import HALT, Dialect, Machine, Transition, machine
from .render import Part
from .tape_engine import Content, TapeBatch
from .template import Template


class Composer(Machine):
    """A machine whose steps call basic machines by name.

    A prompt quotes the halting entry of the machine that was called, a completion the initial entry of the one to call;
    neither entry ends in an empty line, and only prompts end in a newline.
    """

    composer = True

    @abstractmethod
    def prompt(self, a: int, b: int, t: int, dialect: Dialect) -> tuple[str, str]:
        """Return the state and the text (without its last newline) before transition ``t``."""

    @abstractmethod
    def completion(self, a: int, b: int, t: int) -> tuple[str, str, str | None]:
        """Return the state, the text and the called task after transition ``t``."""

    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        state, prompt = self.prompt(a, b, t, dialect)
        next_state, completion, call = self.completion(a, b, t)
        return Transition(prompt + "\n", completion, state, next_state, call)

    def initial(self, a: int, b: int) -> str:
        return self.prompt(a, b, 0, "consistent")[1] + "\n"

    def halted(self, a: int, b: int) -> str:
        return self.completion(a, b, self.num_steps(a, b) - 1)[1]


def started(task: str, x: int, y: int) -> str:
    """Return the initial entry of a called machine, as a completion quotes it."""
    return machine(task).initial(x, y).removesuffix("\n")


def halted(task: str, x: int, y: int) -> str:
    """Return the halting entry of a called machine, as a prompt quotes it."""
    return machine(task).halted(x, y).removesuffix("\n")


def called(task: str, operands: Operands) -> TapeBatch:
    """Return the columns of a called machine."""
    found = machine(task)
    if not isinstance(found, BasicMachine):
        raise TypeError(f"a composer calls basic machines, {task} is none")
    batch = found.batch(operands, "consistent")
    if not isinstance(batch, TapeBatch):
        raise TypeError(f"{task} has no columnar form")
    return batch


def lines(*contents: Content | str) -> Content:
    """Join contents line by line; fields of the same name stay apart."""
    sources, parts = [], dict[str, Part]()
    for at, content in enumerate(contents):
        template, own = (Template(content), {}) if isinstance(content, str) else content
        sources.append(_numbered(template.source, at))
        parts.update({f"{name}{at}": part for name, part in own.items()})
    return Template("\n".join(sources)), parts


@lru_cache(maxsize=1024)
def _numbered(source: str, at: int) -> str:
    return re.sub(r"\{(\w+)\}", rf"{{\g<1>{at}}}", source)


def ended(content: Content) -> Content:
    """Return the content with a newline at its end."""
    return content[0] + Template("\n"), content[1]


def calls(task: str, state: str) -> str:
    """Return the command line of a call."""
    return f"CMD [CALL] {task.upper()}, {state}"


__all__ = ["HALT", "Composer", "called", "calls", "ended", "halted", "lines", "started"]
