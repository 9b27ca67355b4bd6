"""The columns of built rows, view by view."""

from functools import cache

import pyarrow as pa

_NAME = pa.dictionary(pa.int16(), pa.string())
_OPERAND = pa.dictionary(pa.int32(), pa.string())

Columns = dict[str, tuple[pa.DataType, str]]  # name: type, meaning

COMMON: Columns = {
    "task": (
        _NAME,
        "The task: add, sub, mul, div, equal, greater_than, less_than, reflection, left_mask or your own.",
    ),
    "a": (_OPERAND, "First operand, a decimal string without leading zeros."),
    "b": (_OPERAND, "Second operand, a decimal string; null for a task with one operand."),
    "len_a": (pa.int16(), "Number of digits of a."),
    "len_b": (pa.int16(), "Number of digits of b; 0 for a task with one operand."),
    "variant": (
        _NAME,
        "Part of the equivalence class (len_a, len_b): any, equal, greater, ...; the family in stress.",
    ),
    "prompt": (pa.string(), "What the model reads."),
    "completion": (pa.string(), "What the model must answer; the trainer adds its end-of-text token."),
    "instruction": (_NAME, "Description of the machine; the first training stage puts it before the prompt."),
}
STEP: Columns = {
    "step": (pa.int64(), "0-based index of the transition; null where it does not fit 64 bits."),
    "n_steps": (pa.int64(), "Transitions of the whole run; null where they do not fit 64 bits."),
    "state": (_NAME, "The machine's state in the prompt."),
    "next_state": (_NAME, "The machine's state in the completion."),
    "call": (_NAME, "The task that the completion calls; null where it calls none."),
}
TRACE: Columns = {
    "n_steps": (pa.int64(), "Transitions of the run."),
    "trace": (pa.list_(pa.string()), "The completions in order; the last one equals the completion."),
}
DIRECTION: Columns = {
    "direction": (_NAME, "in: raw text to initial entry; out: halting entry to raw text with its result."),
}
SLIP: Columns = {
    "slip": (
        _NAME,
        "What is wrong in the prompt: lost_carry, head_off, wrong_digit, wrong_truth, wrong_state or wrong_count.",
    ),
}
VIEW_TEXT = {
    "one_step": "One transition a row: the machine's entry and the next one.",
    "full": "One run a row: the initial entry, the halting entry, and the trace between them.",
    "aligner": "Raw text to the machine's first entry (in), and its last entry to raw text (out).",
    "raw": "The question as people write it, and its answer.",
    "scratchpad": "The initial entry, and every later entry in one completion.",
    "commands": "The initial entry, and only the command line of every later entry, then the halting entry.",
    "slips": "One transition a row, from an entry of the run with one thing wrong in it: exactly what follows it.",
}
COLUMNS: dict[str, Columns] = {
    "one_step": {**COMMON, **STEP},
    "full": {**COMMON, **TRACE},
    "aligner": {**COMMON, **DIRECTION},
    "raw": COMMON,
    "scratchpad": COMMON,
    "commands": COMMON,
    "slips": {**COMMON, **STEP, **SLIP},
}


def described(columns: Columns) -> pa.Schema:
    """Return the Arrow schema of columns; every field carries its description as metadata."""
    return pa.schema([pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in columns.items()])


@cache
def row_schema(view: str) -> pa.Schema:
    """Return the Arrow schema of a view.

    Raises:
        KeyError: there is no such view.
    """
    return described(COLUMNS[view])
