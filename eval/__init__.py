"""Evaluates adapters: model calls and their verdicts, result tables, SQL over them, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pipelines.settings import Declaration
    from .token_counts import TokenCounter


def counter_of(declaration: Declaration) -> TokenCounter | None:
    """Return what counts the tokens of a declaration, if it names a tokenizer."""
    if declaration.tokenizer is None:
        return None
    from .token_counts import TokenCounter  # inside: most declarations name none

    return TokenCounter(declaration.tokenizer)


def resolved(declaration: Declaration) -> Declaration:
    """Return a declaration whose tasks say what its budget came to, if it has one.

    Raises:
        UserError: the budget cannot be met, or its tokens cannot be counted.
    """
    if not declaration.unresolved:
        return declaration
    from ..pipelines.resolve_budget import resolve_budget

    return resolve_budget(declaration, counter_of(declaration))
