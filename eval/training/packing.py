"""Rows of tokens as a batch without much padding: several in a line, none of which sees another."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .rows import Spelled

NOT_LEARNT = -100  # a label that the loss leaves out
Batch = dict[str, torch.Tensor]


def pack(rows: Sequence[Spelled], *, together: bool = True, width: int = 0) -> Batch:
    """Return rows as ``input_ids``, ``position_ids`` and ``labels``, shape (lines, width of the longest row).

    Positions begin at 0 in each row: from that the library's models know the rows of a line, and let none see another.
    What is left of a line is one row more, of which nothing is learnt. The label of a position is the token that must
    follow it.

    Args:
        rows: prompts and completions.
        together: put several rows in a line; else one.
        width: of lines, at least.
    """
    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    width = max(width, *lengths)
    lines = _lines(lengths, width) if together else [[row] for row in range(len(rows))]
    shape = len(lines), width
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, NOT_LEARNT)
    positions = torch.zeros(shape, dtype=torch.long)
    for line, members in enumerate(lines):
        start = 0
        for prompt, answer in (rows[row] for row in members):
            border, end = start + len(prompt), start + len(prompt) + len(answer)
            ids[line, start:end] = torch.tensor([*prompt, *answer])
            positions[line, start:end] = torch.arange(end - start)
            labels[line, border - 1 : end - 1] = torch.tensor(answer)
            start = end
        positions[line, start:] = torch.arange(width - start)
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


def _lines(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Return the rows of each line: the longest first, each into the line that it fills best."""
    lines, free = list[list[int]](), list[int]()
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        fits = [line for line, room in enumerate(free) if room >= lengths[row]]
        if not fits:
            lines.append([])
            free.append(width)
            fits = [len(lines) - 1]
        best = min(fits, key=lambda line: free[line])
        lines[best].append(row)
        free[best] -= lengths[row]
    return lines
