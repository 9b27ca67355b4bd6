"""What an evaluation does in columns is what plain Python gives: numbers in bytes, requests told apart, operands."""

import random
import sqlite3
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from caef_data.eval.dataset_rows import wrong_row
from caef_data.eval.plan import PlanWriter
from caef_data.eval.tables import ahead
from caef_data.tm.check.entries import PROBLEMS, operand_error


def test_requests_are_told_apart_by_both_halves_of_their_keys() -> None:
    chance, writer, known = random.Random(1), PlanWriter(sqlite3.connect(":memory:")), dict[tuple[int, int], int]()
    for _ in range(60):
        drawn = {(chance.randrange(2**20), 2 * chance.randrange(2**20)) for _ in range(chance.choice((1, 7, 300)))}
        drawn |= set(chance.sample(sorted(known), min(20, len(known))))
        keys = np.array(sorted(drawn, key=lambda key: key[::-1]), np.uint64).T
        near = keys + np.array([[1], [0]], np.uint64)  # the second half is another request's
        assert writer._find(keys).tolist() == [known.get((int(one), int(two)), -1) for one, two in keys.T]
        assert (writer._find(near) == -1).all()
        new = [place for place, (one, two) in enumerate(keys.T.tolist()) if (one, two) not in known]
        numbers = np.arange(len(known), len(known) + len(new))
        writer._note(keys[:, new], numbers)
        known |= dict(zip(map(tuple, keys[:, new].T.tolist()), numbers.tolist(), strict=True))
    assert len(writer.runs) < 10 and sum(len(numbers) for _, numbers in writer.runs) == len(known) > 4_000


@pytest.mark.parametrize("task", PROBLEMS)
def test_wrong_operands_are_found_among_right_ones(task: str) -> None:
    texts = ("0", "7", "07", "12", "99", "x", "-1", "1\n", "٣", "", None)
    for a, b in product(texts, texts):
        rows: dict[str, Any] = {"a": ["99", a], "b": ["7", b], "len_a": [2, len(a or "")], "len_b": [1, len(b or "")]}
        if task == "left_mask":
            rows["b"][0], rows["len_b"][0] = None, 0
        types = {"a": pa.string(), "b": pa.string(), "len_a": pa.int16(), "len_b": pa.int16()}
        batch = pa.RecordBatch.from_pydict(rows, schema=pa.schema(types))
        assert wrong_row(task, "full", "consistent", batch, {}) == operand_error(task, a, b)  # type: ignore[arg-type]
        rows["len_a"][1] += 1
        batch = pa.RecordBatch.from_pydict(rows, schema=pa.schema(types))
        assert wrong_row(task, "full", "consistent", batch, {}) is not None


def test_what_is_made_ahead_comes_in_order_and_so_does_its_failure() -> None:
    assert list(ahead(range(100))) == list(range(100)) and list(ahead([])) == []
    taken = []
    with pytest.raises(ZeroDivisionError):
        for one in ahead(6 // (3 - place) for place in range(9)):
            taken.append(one)
    assert taken == [2, 3, 6]
