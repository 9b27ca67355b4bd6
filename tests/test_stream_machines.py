"""Streams and environments of a Turing machine whose name another one takes, in the same process."""

from collections.abc import Callable
from typing import Any

import pytest

import caef_data
from caef_data import UserError
from caef_data.pipelines.declaration import declared
from caef_data.pipelines.plan import make_plan

FIRST, SECOND = "1RB1LB_1LA1RZ", "0RB1RZ_0LA1LB"


def brings(table: str) -> dict[str, Any]:
    return {"max": 4, "num": 3, "machine": [{"name": "named", "format": "bbchallenge", "table": table}]}


def test_rows_are_those_of_their_machine_or_none() -> None:
    stream, env = caef_data.stream(brings(FIRST)), caef_data.environment(brings(FIRST))
    rows, running, turn = stream.__getitems__(range(20)), iter(stream), env.reset(0)
    assert next(running) == rows[0]
    caef_data.plan(brings(SECOND))
    asked: list[Callable[[], Any]] = [lambda: stream[0], lambda: next(iter(stream)), lambda: list(running), env.reset]
    for ask in (*asked, lambda: env.step("x"), lambda: stream.shard(1, 2)[0]):
        with pytest.raises(UserError, match="the machine named is another one by now"):
            ask()
    caef_data.plan(brings(FIRST))
    assert stream.__getitems__(range(20)) == rows and env.reset(0).prompt == turn.prompt


def test_a_plan_renders_its_machine_or_nothing() -> None:
    """A build of one process looks up the machine block by block."""
    first = declared(brings(FIRST))
    [config, *_] = make_plan(first).configs
    [numbers, *_] = config.blocks(0)
    block = config.render(numbers)
    caef_data.plan(brings(SECOND))
    for ask in (lambda: config.render(numbers), lambda: make_plan(first)):
        with pytest.raises(UserError, match="the machine named is another one by now"):
            ask()
    caef_data.plan(brings(FIRST))
    assert config.render(numbers).equals(block)
