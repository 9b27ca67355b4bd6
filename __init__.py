"""caef-data: exact, leak-free datasets of arithmetic executed as Turing machines (CAEF, arXiv 2410.07896)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import UserError as UserError
    from .eval.training import tokenize_row as tokenize_row

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Import what the package offers when it is asked for: nothing heavy comes with the package itself."""
    if name == "UserError":
        from .errors import UserError

        return UserError
    if name == "tokenize_row":
        from .eval.training import tokenize_row

        return tokenize_row
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
