"""Rows of a declaration by their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, did_you_mean, quoted
from ...pipelines.declaration import declaration_of, load_declaration
from ...pipelines.plan import split_configs
from ...pipelines.settings import VIEWS, Declaration
from ...tm import machine

Declared = str | Path | Mapping[str, object] | Declaration


def declared(declaration: Declared) -> Declaration:
    """Return the declaration of a name, a path or a dict; raises UserError where it is refused."""
    if isinstance(declaration, Declaration):
        return declaration
    if isinstance(declaration, Mapping):
        return declaration_of(dict(declaration), "the declaration")
    if not isinstance(declaration, str | Path):
        raise UserError(f"this is no declaration: {quoted(repr(declaration))}", allowed="a name, a path or a dict")
    return load_declaration(str(declaration))


class Rows:
    """The rows of a split and view, in the order of a build.

    Args:
        declaration: what the rows are of.
        split: the split.
        view: the view.

    Raises:
        UserError: the declaration has no such rows.
    """

    def __init__(self, declaration: Declaration, split: str, view: str) -> None:
        if view not in VIEWS:
            raise UserError(f"view is {quoted(view)}{did_you_mean(view, VIEWS)}", allowed=", ".join(VIEWS))
        tasks = [
            one for one in declaration.tasks if split in one.splits and view not in machine(one.task).missing_views()
        ]
        configs = [one for task in tasks for one in split_configs(task, split, [view])[0]]
        if not configs:
            raise UserError(
                f"this declaration has no {split} rows of {view}", next_step="caef-data plan shows what it has"
            )
        batches = [one.render(np.arange(len(one.population))) for one in configs]
        self.rows: list[dict[str, Any]] = [row for batch in batches for row in batch.to_pylist()]
        self.epoch_rows = len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number % len(self.rows)]
