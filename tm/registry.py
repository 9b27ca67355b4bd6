"""The tasks: every machine by its name."""

from __future__ import annotations

from ..errors import UserError, did_you_mean, quoted
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
