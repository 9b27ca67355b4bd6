"""caef-data: exact, leak-free datasets of arithmetic executed as Turing machines (CAEF, arXiv 2410.07896).

>>> import caef_data
>>> caef_data.align_out("add", 12, 9)[1]
'12+9=21'
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import build as build
    from .api import evaluate as evaluate
    from .api import plan as plan
    from .api import push as push
    from .api import results as results
    from .api import stream as stream
    from .api import verify as verify
    from .errors import UserError as UserError
    from .eval.backends.tokens import tokenize_row as tokenize_row
    from .eval.environments.environment import environment as environment
    from .tm import align_in as align_in
    from .tm import align_out as align_out
    from .tm import tasks as tasks
    from .tm import transition as transition
    from .tm import transitions as transitions
    from .tm.score import score as score
    from .tm.successor import successor as successor

__version__ = "0.2.0"

_PLACES = {
    "api": ("build", "evaluate", "plan", "push", "results", "stream", "verify"),
    "errors": ("UserError",),
    "eval.backends.tokens": ("tokenize_row",),
    "eval.environments.environment": ("environment",),
    "tm": ("align_in", "align_out", "tasks", "transition", "transitions"),
    "tm.score": ("score",),
    "tm.successor": ("successor",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}
__all__ = [*_MODULES]  # noqa: PLE0604  (their names)


def __getattr__(name: str) -> object:
    """Import what the package offers when it is asked for: nothing heavy comes with the package itself."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
