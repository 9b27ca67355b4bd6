"""Renders the rows of one block of expressions for one view, as an Arrow record batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas import row_schema
from ..tm import machine
from ..tm.columns import I64, U64, Number, Operands
from ..tm.instructions import instruction
from ..tm.machine import Batch, Rows
from ..tm.render import RowGroup, Template, int_array, render, string_array
from .sampling.random import GOLDEN, splitmix64, text_key
from .sampling.split import expression_hash
from .sampling.steps import sampled_rows
from .settings import TaskSettings

SLIP_KEY = text_key("slips")
STEP_VIEWS = ("one_step", "slips")  # they hold steps of any run
Columns = dict[str, pa.Array]


@dataclass(frozen=True, eq=False)
class Work:
    """One block: expressions of a task and how their rows are wanted.

    Args:
        settings: the task, its dialect, and which steps are kept.
        view: the view.
        operands: the expressions.
        variant: index of each expression's variant in ``variants``.
        variants: the variants' names.
    """

    settings: TaskSettings
    view: str
    operands: Operands
    variant: I64
    variants: tuple[str, ...]

    @cached_property
    def batch(self) -> Batch:
        """The expressions as columns of their machine."""
        own = machine(self.settings.task)
        if own.spec():  # another declaration may have taken its name; code stays, wherever its file is by now
            own = self.settings.machine()
        return own.batch(self.operands, self.settings.dialect)

    @cached_property
    def key(self) -> U64:
        """The key of each expression's draws."""
        salt = text_key(f"rows {self.settings.seed} {self.settings.task}")
        return splitmix64(expression_hash(self.batch.machine, self.operands) + np.uint64(salt))

    @cached_property
    def steps(self) -> Rows:
        """The transitions that are kept, in their order; of slips without the first ones of runs, which have none."""
        batch = self.batch
        kept = batch.every() if self.settings.steps == "all" else sampled_rows(batch, self.key)
        rows = batch.take(kept, self._shuffled(kept.expression))
        return batch.take(rows, np.flatnonzero(batch.steps(rows))) if self.view == "slips" else rows

    @cached_property
    def order(self) -> I64:
        """The order of expressions; for the aligner, of all inputs followed by all outputs."""
        return self._shuffled(np.tile(self.batch.all, 2 if self.view == "aligner" else 1))

    @cached_property
    def expressions(self) -> I64:
        """The expression of each row."""
        return self.steps.expression if self.view in STEP_VIEWS else self.order % len(self.operands)

    def _shuffled(self, expressions: I64) -> I64:
        """Return a shuffle of rows that depends on their expressions alone."""
        turn = np.arange(len(expressions), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return np.argsort(splitmix64(self.key[expressions] + turn), kind="stable")


def render_rows(work: Work) -> pa.RecordBatch:
    """Return the rows of a block, shuffled, with the columns of ``schemas.row_schema(work.view)``."""
    schema = row_schema(work.view)
    columns = {**_VIEWS[work.view](work), **_common(work)}
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def planned_rows(work: Work) -> pa.RecordBatch:
    """Return what tells the rows of a block apart, in their order and without their texts.

    Columns: a, b, variant; one_step adds step, and ``far``: the prompt where the step does not fit 64 bits, null
    elsewhere; slips adds step, slip and prompt; aligner adds direction.
    """
    common = _common(work)
    columns: dict[str, pa.Array] = {name: common[name] for name in ("a", "b", "variant")}
    if work.view == "one_step":
        rows, steps = work.steps, work.batch.steps(work.steps)
        columns |= {"step": _counts(steps), "far": pa.nulls(len(rows), pa.string())}
        beyond = steps < 0
        if beyond.any():
            prompts = work.batch.prompts(work.batch.take(rows, np.flatnonzero(beyond))).text
            columns["far"] = prompts.take(int_array(np.cumsum(beyond) - 1, beyond))
    elif work.view == "slips":
        made = _slips(work)
        columns |= {name: made[name] for name in ("step", "slip", "prompt")}
    elif work.view == "aligner":
        columns["direction"] = _directions(work)
    return pa.record_batch(list(columns.values()), names=list(columns))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose dictionaries are the texts that they stand for."""
    kinds = {field.name: field.type for field in schema}
    return pa.schema(
        [(name, kind.value_type if pa.types.is_dictionary(kind) else kind) for name, kind in kinds.items()]
    )


def python_values(column: pa.Array) -> list[Any]:
    """Return a column as Python values: of dictionaries many times as fast as ``to_pylist``."""
    if pa.types.is_dictionary(column.type):
        values = np.array([*column.dictionary.to_pylist(), None], object)
        return list(values[column.indices.fill_null(-1).to_numpy()].tolist())
    if column.null_count or pa.types.is_nested(column.type):
        return list(column.to_pylist())
    return list(column.to_numpy(zero_copy_only=False).tolist())


def _common(work: Work) -> Columns:
    operands, expressions, num_rows = work.operands, work.expressions, len(work.expressions)
    b, len_b = pa.nulls(num_rows, row_schema(work.view).field("b").type), np.zeros(num_rows, np.int16)
    if operands.b is not None:
        b = _repeated(work, operands.b)
        len_b = operands.b.length[expressions].astype(np.int16)
    return {
        "task": _constant(work.settings.task, num_rows),
        "a": _repeated(work, operands.a),
        "b": b,
        "len_a": int_array(operands.a.length[expressions].astype(np.int16)),
        "len_b": int_array(len_b),
        "variant": _named(work.variant[expressions], work.variants),
        "instruction": _constant(instruction(work.batch.machine, work.view), num_rows),
    }


def _repeated(work: Work, number: Number) -> pa.DictionaryArray:
    """Return the operands of all rows as texts, dictionary-encoded.

    The dictionary's values must be distinct: Parquet's writer quietly writes plain strings otherwise.
    """
    rows = np.arange(len(number))
    texts = render(
        [RowGroup(rows, Template("{x}"), {"x": work.batch.machine.written(number, rows)})], len(rows)
    ).dictionary_encode()
    indices = np.frombuffer(texts.indices.buffers()[1], np.int32)
    return pa.DictionaryArray.from_arrays(int_array(indices[work.expressions]), texts.dictionary)


def _constant(text: str, num_rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(int_array(np.zeros(num_rows, np.int16)), string_array([text]))


def _named(index: I64, names: Sequence[str | None]) -> pa.DictionaryArray:
    """Return a column of few names; None becomes null."""
    distinct = list(dict.fromkeys(name for name in names if name is not None)) or [""]
    code = np.array([distinct.index(name) if name is not None else -1 for name in names], np.int16)[index]
    return pa.DictionaryArray.from_arrays(int_array(code, code >= 0), string_array(distinct))


def _counts(values: I64) -> pa.Array:
    """Return int64 values, null where they are negative."""
    return int_array(values, values >= 0)


def _one_step(work: Work) -> Columns:
    batch, rows = work.batch, work.steps
    prompts, completions = batch.prompts(rows), batch.completions(rows)
    return {
        "prompt": prompts.text,
        "completion": completions.text,
        "step": _counts(batch.steps(rows)),
        "n_steps": _counts(batch.num_steps[rows.expression]),
        "state": _named(prompts.state, prompts.states),
        "next_state": _named(completions.state, completions.states),
        "call": _named(completions.call, completions.calls),
    }


def _slips(work: Work) -> Columns:
    """Return the kept steps, with a slip each."""
    from ..tm.slips import Slipped, slipped  # inside: they read entries, which no other view needs

    batch, rows = work.batch, work.steps
    steps = batch.steps(rows)
    keys = splitmix64(work.key[rows.expression] + steps.astype(np.uint64) * np.uint64(GOLDEN) + np.uint64(SLIP_KEY))
    prompts = zip(batch.prompts(rows).text.to_pylist(), keys.tolist(), (steps < 0).tolist(), strict=True)
    drawn = [slipped(batch.machine, *of_row) for of_row in prompts]
    made = {name: [getattr(one, name) for one in drawn] for name in Slipped._fields}
    coded = {name: _named(np.arange(len(rows)), made[name]) for name in ("slip", "state", "next_state", "call")}
    texts = {name: string_array(made[name]) for name in ("prompt", "completion")}
    return {**coded, **texts, "step": _counts(steps), "n_steps": _counts(batch.num_steps[rows.expression])}


def _traces(work: Work) -> pa.ListArray:
    """Return the completions of whole runs, a list a run."""
    steps = work.batch.num_steps
    if not ((steps >= 0) & (steps <= work.settings.max_steps)).all():
        raise ValueError(f"{work.settings.task}: a run of more than {work.settings.max_steps} transitions was planned")
    completions = work.batch.completions(work.batch.every()).text
    ends = np.concatenate([[0], np.cumsum(steps)])
    return pa.ListArray.from_arrays(int_array(ends.astype(np.int32)), completions)


def _full(work: Work) -> Columns:
    rows = int_array(work.order)
    return {
        "trace": _traces(work).take(rows),
        "prompt": work.batch.initial().take(rows),
        "completion": work.batch.halted().take(rows),
        "n_steps": int_array(work.batch.num_steps[work.order]),
    }


def _joined(work: Work, shortened: Callable[[str], str]) -> Columns:
    """Return runs whose completion is all entries of the trace, each but the last one shortened."""
    traces, texts = _traces(work), []
    for row in work.order.tolist():
        *entries, last = (entry.removesuffix("\n") for entry in traces[row].as_py())
        texts.append("\n".join([*map(shortened, entries), last]) + "\n")
    return {"prompt": work.batch.initial().take(int_array(work.order)), "completion": string_array(texts)}


def _aligner(work: Work) -> Columns:
    rows, batch = int_array(work.order), work.batch
    return {
        "prompt": pa.concat_arrays([_question(work), batch.halted()]).take(rows),
        "completion": pa.concat_arrays([batch.initial(), _question(work, "{answer}")]).take(rows),
        "direction": _directions(work),
    }


def _directions(work: Work) -> pa.Array:
    return _named((work.order >= len(work.operands)).astype(np.int64), ("in", "out"))


def _raw(work: Work) -> Columns:
    rows = int_array(work.order)
    return {"prompt": _question(work).take(rows), "completion": _text(work, "{answer}").take(rows)}


def _question(work: Work, answer: str = "") -> pa.Array:
    """Return the raw texts, followed by an answer where the template asks for it."""
    second = "" if work.operands.b is None else f"{work.batch.machine.sign}{{b}}"
    return _text(work, f"{{a}}{second}={answer}")


def _text(work: Work, template: str) -> pa.Array:
    """Return a template of ``a``, ``b`` and ``answer`` for every expression."""
    batch = work.batch
    written = (batch.machine.written(number, batch.all) for number in work.operands.numbers)
    fields = dict(zip("ab", written, strict=False))
    return render([RowGroup(batch.all, Template(template), {**fields, "answer": batch.answer()})], len(batch.all))


_VIEWS: dict[str, Callable[[Work], Columns]] = {
    "one_step": _one_step,
    "slips": _slips,
    "full": _full,
    "aligner": _aligner,
    "raw": _raw,
    "scratchpad": partial(_joined, shortened=lambda entry: entry),
    "commands": partial(_joined, shortened=lambda entry: entry.split("\n")[1]),
}
