"""The tasks: every machine by its name."""

from __future__ import annotations

from ..errors import UserError, did_you_mean, quoted
from .interpreter import wrong_entry
from .machine import REGISTRY, VERSIONED, Machine


def register(found: Machine) -> None:
    """Make a machine of a declaration or a dataset a task; it takes the place of an earlier one of its name.

    Settings that were made with the earlier one know that: see ``TaskSettings.identity``.

    Raises:
        UserError: a machine that is code has its name.
    """
    known = REGISTRY.get(found.name)
    if known is not None and not known.spec():
        theirs = "is a task of caef-data" if known.name in VERSIONED else f"is a machine's of {known.source}"
        what, advice = f"the name {quoted(found.name)} {theirs}", "give this machine another name"
        raise UserError(what, where=found.source, next_step=advice)
    REGISTRY[found.name] = found


def machine(name: str) -> Machine:
    """Return the machine of a task; raises UserError for an unknown one."""
    if name not in REGISTRY:
        raise UserError(
            f"there is no task {quoted(name)}{did_you_mean(name, REGISTRY)}", allowed=", ".join(sorted(REGISTRY))
        )
    return REGISTRY[name]


def tasks() -> tuple[str, ...]:
    """Return the names of all registered tasks, sorted."""
    return tuple(sorted(REGISTRY))


def machine_of(prompt: str, task: str | None) -> Machine:
    """Return the machine of a task, or that whose name a prompt begins with; raises UserError where there is none."""
    name = prompt.partition(",")[0].lower() if task is None else task
    found = REGISTRY.get(name)
    if found is None and task is None:
        raw = "; it is a raw text, as caef_data.environment(view=...) takes it" if "=" in prompt[-2:] else ""
        raise wrong_entry(prompt, f"it must begin with the name of a machine: {', '.join(tasks()).upper()}{raw}")
    return found or machine(name)
