"""Batches keep their limits, and pad little, whatever the rows."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caef_data.eval.backends.greedy import FILL, fit

SIZES = st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 900)), min_size=1, max_size=60)


def batches(sizes: Sequence[tuple[int, int]], **limits: float) -> list[list[tuple[int, int]]]:
    found, left = [], list(sizes)
    while left:
        number = fit(left, **limits)
        assert 1 <= number <= len(left)
        found.append(left[:number])
        left = left[number:]
    return found


def computed(batch: Sequence[tuple[int, int]]) -> int:
    return len(batch) * max(length for length, _ in batch)


@given(SIZES, st.integers(1, 20_000), st.integers(1, 5000), st.floats(0, 1))
def test_limits_hold_in_any_order(sizes: list[tuple[int, int]], tokens: int, projected: int, fill: float) -> None:
    for batch in batches(sizes, tokens=tokens, projected=projected, fill=fill):
        if len(batch) > 1:
            assert computed(batch) <= tokens
            assert sum(needed for _, needed in batch) <= projected
            assert sum(length for length, _ in batch) >= fill * computed(batch)


@given(SIZES, st.integers(1, 20_000))
def test_no_batch_could_take_the_next_row_too(sizes: list[tuple[int, int]], tokens: int) -> None:
    found = batches(sizes, tokens=tokens, fill=0)
    for batch, after in zip(found, found[1:], strict=False):
        assert computed([*batch, after[0]]) > tokens


@pytest.mark.parametrize("number", [2, 10, 1000])
def test_few_rows_of_very_mixed_lengths_pad_little(number: int) -> None:
    sizes = sorted(((1 + 1999 * i * i // number**2, 1) for i in range(number)), reverse=True)
    found = batches(sizes, tokens=16_384)
    assert sum(length for length, _ in sizes) / sum(map(computed, found)) >= FILL
    if number == 1000:
        assert len(found) <= 150, "rows of nearly equal lengths go together"


def test_rows_of_one_length_fill_the_budget() -> None:
    assert fit([(100, 50)] * 30, tokens=2048) == 20
    assert fit([(100, 50)] * 30, tokens=2048, projected=501) == 10
    assert fit([(100, 50)] * 3, tokens=99) == 1
    assert fit([], tokens=99) == 0
