"""``caef-data show --expressions``: the traces of expressions in a file, each with its split."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ..errors import UserError, printable_path, quoted
from .expression_file import in_order, read_expressions
from .show import Run, print_trace, show_json


def show_expressions(  # noqa: PLR0913
    file: str,
    others: Sequence[str],
    console: Console,
    dialect: str,
    *,
    nested: bool,
    max_steps: int,
    as_json: bool,
) -> None:
    """Print traces as ``show.show`` does, in the file's order.

    Raises:
        UserError: something else is to be shown, too; the file cannot be read, or holds what is no expression; or a
            trace is too long for JSON.
    """
    if others:
        raise UserError(
            f"{quoted(' '.join(others))} and --expressions are two things to show", next_step="leave out one of them"
        )
    own = read_expressions(file)
    for line, task, a, b, split in in_order(own):
        if as_json:
            try:
                print(json.dumps({**show_json(task, a, b, dialect, max_steps), "line": line, "split": split}))
            except UserError as error:
                where, more = f"{printable_path(file)}, line {line:,}", {"allowed": error.allowed}
                raise UserError(error.what, where=where, next_step=error.next_step, **more) from None
        else:
            console.print(Text(f"line {line:,}, split {split}, {Run.of(task, a, b, dialect).machine.name}", "dim"))
            print_trace(console, task, a, b, dialect=dialect, nested=nested)
            console.print()
    if not as_json and (repeated := sum(one.repeated for one in own.values())):
        console.print(Text(f"{repeated:,} more lines repeat one of these", "dim"))
