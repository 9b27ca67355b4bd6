"""Renders the rows of one block of expressions for one view, as an Arrow record batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute  # noqa: F401  (binds pa.compute)

from ..schemas import row_schema
from ..tm import machine
from ..tm.columns import I64, Number, Operands
from ..tm.instructions import instruction
from ..tm.machine import Batch, Dialect, Machine, Rows
from ..tm.render import RowGroup, Template, decimal, int_array, render, string_array
from .sampling.random import U64, splitmix64, text_key
from .sampling.split import expression_hash
from .sampling.steps import sampled_rows


@dataclass(frozen=True, eq=False)
class Work:
    """One block: expressions of a task and how their rows are wanted.

    Args:
        task: the task.
        view: the view.
        dialect: the dialect of composers' prompts.
        all_steps: keep every transition in one_step.
        max_steps: longest run that is written whole.
        seed: seed of the steps kept and of the order of rows.
        operands: the expressions.
        variant: index of each expression's variant in ``variants``.
        variants: the variants' names.
    """

    task: str
    view: str
    dialect: Dialect
    all_steps: bool
    max_steps: int
    seed: int
    operands: Operands
    variant: I64
    variants: tuple[str, ...]


def render_rows(work: Work) -> pa.RecordBatch:
    """Return the rows of a block, shuffled, with the columns of ``schemas.row_schema(work.view)``."""
    found, batch, key = _opened(work)
    e, own = _VIEWS[work.view](found, batch, work, key)
    schema = row_schema(work.view)
    columns = {**_common(found, work, e), **own}
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def planned_rows(work: Work) -> pa.RecordBatch:
    """Return what tells the rows of a block apart, in their order and without their texts.

    Columns: a, b, variant; one_step adds step, and ``far``: the prompt where the step does not fit 64 bits, null
    elsewhere; aligner adds direction.
    """
    found, batch, key = _opened(work)
    own: dict[str, pa.Array] = {}
    if work.view == "one_step":
        rows = _steps(batch, work, key)
        e, steps = rows.expression, batch.steps(rows)
        own = {"step": _counts(steps), "far": pa.nulls(len(e), pa.string())}
        beyond = steps < 0
        if beyond.any():
            prompts = batch.prompts(batch.take(rows, np.flatnonzero(beyond))).text
            own["far"] = prompts.take(int_array(np.cumsum(beyond) - 1, beyond))
    elif work.view == "aligner":
        e, order = _both_ways(len(work.operands), key)
        own = {"direction": _directions(order, len(work.operands))}
    else:
        e = _order(len(work.operands), key, batch.all)
    common = _common(found, work, e)
    columns = {name: common[name] for name in ("a", "b", "variant")} | own
    return pa.record_batch(list(columns.values()), names=list(columns))


def _opened(work: Work) -> tuple[Machine, Batch, U64]:
    """Return the machine, the expressions as its columns, and the key of each expression's draws."""
    found = machine(work.task)
    key = splitmix64(expression_hash(found, work.operands) + np.uint64(text_key(f"rows {work.seed} {work.task}")))
    return found, found.batch(work.operands, work.dialect), key


def _order(size: int, key: U64, e: I64) -> I64:
    """Return a shuffle of rows that depends on their expressions alone."""
    turn = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.argsort(splitmix64(key[e] + turn), kind="stable")


def _common(found: Machine, work: Work, e: I64) -> dict[str, pa.Array]:
    operands, num_rows = work.operands, len(e)
    b, len_b = pa.nulls(num_rows, row_schema(work.view).field("b").type), np.zeros(num_rows, np.int16)
    if operands.b is not None:
        b = _repeated(operands.b, e)
        len_b = operands.b.length[e].astype(np.int16)
    return {
        "task": _constant(found.name, num_rows),
        "a": _repeated(operands.a, e),
        "b": b,
        "len_a": int_array(operands.a.length[e].astype(np.int16)),
        "len_b": int_array(len_b),
        "variant": _named(work.variant[e], work.variants),
        "instruction": _constant(instruction(found, work.view), num_rows),
    }


def _repeated(number: Number, e: I64) -> pa.DictionaryArray:
    """Return the decimal strings of the numbers at ``e``, dictionary-encoded.

    The dictionary's values must be distinct: Parquet's writer quietly writes plain strings otherwise.
    """
    rows = np.arange(len(number))
    texts = render([RowGroup(rows, Template("{x}"), {"x": decimal(number, rows)})], len(rows)).dictionary_encode()
    indices = np.frombuffer(texts.indices.buffers()[1], np.int32)
    return pa.DictionaryArray.from_arrays(int_array(indices[e]), texts.dictionary)


def _constant(text: str, num_rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(int_array(np.zeros(num_rows, np.int16)), string_array([text]))


def _named(index: I64, names: Sequence[str | None]) -> pa.DictionaryArray:
    """Return a column of few names; None becomes null."""
    known = list(dict.fromkeys(name for name in names if name is not None)) or [""]
    code = np.array([known.index(name) if name is not None else -1 for name in names], np.int16)[index]
    return pa.DictionaryArray.from_arrays(int_array(code, code >= 0), string_array(known))


def _counts(values: I64) -> pa.Array:
    """Return int64 values, null where they are negative."""
    return int_array(values, values >= 0)


View = tuple[I64, dict[str, pa.Array]]


def _one_step(found: Machine, batch: Batch, work: Work, key: U64) -> View:
    rows = _steps(batch, work, key)
    prompts, completions = batch.prompts(rows), batch.completions(rows)
    return rows.expression, {
        "prompt": prompts.text,
        "completion": completions.text,
        "step": _counts(batch.steps(rows)),
        "n_steps": _counts(batch.num_steps[rows.expression]),
        "state": _named(prompts.state, prompts.states),
        "next_state": _named(completions.state, completions.states),
        "call": _named(completions.call, completions.calls),
    }


def _steps(batch: Batch, work: Work, key: U64) -> Rows:
    """Return the transitions that are kept, in their order."""
    rows = batch.every() if work.all_steps else sampled_rows(batch, key)
    return batch.take(rows, _order(len(rows), key, rows.expression))


def _runs(found: Machine, batch: Batch, work: Work) -> tuple[I64, Rows, I64]:
    """Return the expressions whose runs are written whole, their transitions, and where each run begins."""
    steps = batch.num_steps
    kept = (steps >= 0) & (steps <= work.max_steps)
    if not kept.all():
        # Only runs that halt are walked: the batch is rendered for these alone.
        raise ValueError(f"{found.name}: a run of more than {work.max_steps} transitions was planned")
    rows = batch.every()
    return np.arange(len(steps)), rows, np.concatenate([[0], np.cumsum(steps)])


def _full(found: Machine, batch: Batch, work: Work, key: U64) -> View:
    e, rows, ends = _runs(found, batch, work)
    order = _order(len(e), key, e)
    at = int_array(order)
    completions = batch.completions(rows).text
    trace = pa.ListArray.from_arrays(int_array(ends.astype(np.int32)), completions).take(at)
    return order, {
        "prompt": batch.initial().take(at),
        "completion": batch.halted().take(at),
        "n_steps": int_array(batch.num_steps[order]),
        "trace": trace,
    }


def _joined(shorten: Callable[[str], str]) -> Callable[[Machine, Batch, Work, U64], View]:
    def view(found: Machine, batch: Batch, work: Work, key: U64) -> View:
        e, rows, ends = _runs(found, batch, work)
        order = _order(len(e), key, e)
        at = int_array(order)
        entries = batch.completions(rows).text.to_pylist()
        texts = []
        for row in order.tolist():
            own = [entry.removesuffix("\n") for entry in entries[ends[row] : ends[row + 1]]]
            texts.append("\n".join([*(shorten(entry) for entry in own[:-1]), own[-1]]) + "\n")
        return order, {
            "prompt": batch.initial().take(at),
            "completion": string_array(texts),
        }

    return view


def _aligner(found: Machine, batch: Batch, work: Work, key: U64) -> View:
    num = len(work.operands)
    question, solved = _question(found, batch), _question(found, batch, "{answer}")
    e, order = _both_ways(num, key)
    at = int_array(order)
    return e, {
        "prompt": pa.concat_arrays([question, batch.halted()]).take(at),
        "completion": pa.concat_arrays([batch.initial(), solved]).take(at),
        "direction": _directions(order, num),
    }


def _both_ways(num: int, key: U64) -> tuple[I64, I64]:
    """Return the expression of each aligner row, and the row's place among all inputs, followed by all outputs."""
    e = np.tile(np.arange(num), 2)
    order = _order(2 * num, key, e)
    return e[order], order


def _directions(order: I64, num: int) -> pa.Array:
    return _named((order >= num).astype(np.int64), ("in", "out"))


def _raw_view(found: Machine, batch: Batch, work: Work, key: U64) -> View:
    order = _order(len(work.operands), key, batch.all)
    answers = render([RowGroup(batch.all, Template("{answer}"), {"answer": batch.answer()})], len(order))
    at = int_array(order)
    return order, {"prompt": _question(found, batch).take(at), "completion": answers.take(at)}


def _question(found: Machine, batch: Batch, answer: str = "") -> pa.Array:
    """Return the raw texts of a batch, followed by an answer where the template asks for it."""
    a, b = batch.operands.a, batch.operands.second
    parts = {"a": decimal(a, batch.all), "b": decimal(b, batch.all), "answer": batch.answer()}
    return render([RowGroup(batch.all, Template(f"{{a}}{found.sign}{{b}}={answer}"), parts)], len(batch.all))


_VIEWS: dict[str, Callable[[Machine, Batch, Work, U64], View]] = {
    "one_step": _one_step,
    "full": _full,
    "aligner": _aligner,
    "raw": _raw_view,
    "scratchpad": _joined(lambda entry: entry),
    "commands": _joined(lambda entry: entry.split("\n")[1]),
}
