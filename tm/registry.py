"""The tasks: every machine by its name."""

from __future__ import annotations

from ..errors import UserError, did_you_mean, quoted
from .machine import REGISTRY, VERSIONED, Machine


def register(found: Machine) -> None:
    """Make a machine a task.

    Raises:
        UserError: another one has its name.
    """
    known = REGISTRY.get(found.name)
    if known is not None and (type(known) is not type(found) or known.identity() != found.identity()):
        theirs = "is a task of caef-data" if known.name in VERSIONED else f"is another machine's, of {known.source}"
        raise UserError(
            f"the name {quoted(found.name)} {theirs}",
            where=found.source,
            next_step="give this machine another name (in Python: or start it anew)",
        )
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
