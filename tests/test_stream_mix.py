"""Weights of tasks and views, and operands that grow longer: tables of a declaration that concern its streams."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import caef_data
from caef_data import UserError
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.stream import Stream

Settings = dict[str, Any]
BASE: Settings = {"task": ["add", "sub"], "max": 8, "num": 4}


def stream(settings: Settings, **given: Any) -> Stream:
    return caef_data.stream({**BASE, **settings}, **given)


def longest(row: dict[str, Any]) -> int:
    return max(row["len_a"], row["len_b"])


def test_operands_grow_evenly() -> None:
    """Row i has operands of 2 digits and of 6 * i / 3,000 more at most; the next length comes with its first row."""
    made = stream({"curriculum": {"linear": {"start": 2, "rows": 3000}}})
    rows = list(islice(made, 5000))
    most = [longest(row) for row in rows]
    assert all(length <= min(8, 2 + 6 * number // 3000) for number, length in enumerate(most))
    for more in range(7):
        begin = 500 * more
        assert max(most[begin : begin + 100]) == 2 + more
    assert made.__getitems__(range(0, 5000, 37)) == rows[::37]
    assert {longest(row) for row in islice(made, 4000, 5000)} == {*range(1, 9)}
    assert most[0] < 3 < max(longest(row) for row in islice(stream({}), 50))


def test_operands_grow_in_stages() -> None:
    stages = [{"rows": 700, "max": 2}, {"rows": 300, "max": 5}]
    made = stream({"curriculum": {"staged": stages}})
    rows = list(islice(made, 2000))
    found = [max(map(longest, rows[start:end])) for start, end in ((0, 700), (700, 1000), (1000, 2000))]
    assert found == [2, 5, 8]
    assert made.__getitems__([1999, 999, 699]) == [rows[1999], rows[999], rows[699]]
    other = stream({"curriculum": {"staged": stages}})
    other.load_state_dict({"stream": made.identity, "rows": 650})
    assert list(islice(other, 100)) == rows[650:750]


def test_a_stage_has_the_shares_of_its_classes() -> None:
    settings = {"task": "add", "num": 50}
    made = stream({**settings, "curriculum": {"staged": [{"rows": 4000, "max": 4}]}})
    short = stream({**settings, "max": 4})
    found, whole = (
        Counter((row["len_a"], row["len_b"]) for row in islice(own, number))
        for own, number in ((made, 4000), (short, short.epoch_rows))
    )
    assert {*found} == {(a, b) for a in range(1, 5) for b in range(1, 5)}
    for name, count in whole.items():
        assert found[name] == pytest.approx(4000 * count / short.epoch_rows, abs=4 + 0.02 * count)


def test_quotients_stay_within_a_stage() -> None:
    """The runs of div that halt soon leave a's length to the draw."""
    made = stream({"task": "div", "curriculum": {"staged": [{"rows": 500, "max": 4}]}}, view="full")
    assert max(longest(row) for row in islice(made, 500)) <= 4


def test_a_mix_has_its_weights() -> None:
    made = stream({"mix": {"add": 3, "subtraction": 1}})
    counts = Counter(row["task"] for row in islice(made, made.epoch_rows))
    assert counts["add"] == pytest.approx(3 * counts["sub"], abs=8)
    assert list(made[0]) == list(stream({})[0])
    assert stream({"mix": {"add": 3.0, "sub": 1.0}}).identity == made.identity
    twice = stream({"mix": {"add": 1, "add-one_step": 1, "addition": 1, "sub": 1}})
    assert twice.__getitems__(range(50)) == made.__getitems__(range(50)), "weights of one task and view add up"
    [only] = {row["task"] for row in islice(stream({"mix": {"sub": 0.5}}), 100)}
    assert only == "sub"


def test_a_mix_of_views() -> None:
    made = stream({"mix": {"add": 1, "add-aligner": 1, "sub-raw": 2}})
    rows = list(islice(made, 4000))
    counts = Counter((row["task"], row["view"]) for row in rows)
    assert counts["add", "one_step"] == pytest.approx(1000, abs=100)
    assert counts["add", "aligner"] == pytest.approx(1000, abs=100)
    assert counts["sub", "raw"] == pytest.approx(2000, abs=100)
    assert len({tuple(row) for row in rows}) == 1, "all rows have the same columns"
    for row in rows:
        assert (row["step"] is None) == (row["view"] != "one_step")
        assert (row["direction"] is None) == (row["view"] != "aligner")
    raw = next(row for row in rows if row["view"] == "raw")
    assert raw["prompt"] == f"{raw['a']}-{raw['b']}="


def test_a_mix_and_a_curriculum() -> None:
    made = stream({"mix": {"add": 1, "sub": 1}, "curriculum": {"staged": [{"rows": 1000, "max": 3}]}})
    rows = list(islice(made, 1000))
    assert max(map(longest, rows)) == 3
    assert Counter(row["task"] for row in rows)["add"] == pytest.approx(500, abs=40)


def test_a_file_has_them(tmp_path: Path) -> None:
    """They change a stream, and no build, whose plan says so."""
    path = tmp_path / "course.toml"
    plain = 'task = ["add", "sub"]\nmax = 8\nnum = 4\n'
    path.write_text(plain + "[mix]\nadd = 3\nsub-aligner = 0.5\n[curriculum]\nlinear = {start = 2, rows = 1000}\n")
    declaration = load_declaration(str(path))
    made = caef_data.stream(path)
    assert {row["view"] for row in islice(made, 200)} == {"one_step", "aligner"}
    assert max(longest(row) for row in islice(made, 150)) == 2
    (tmp_path / "plain.toml").write_text(plain)
    other = load_declaration(str(tmp_path / "plain.toml"))
    assert declaration.identity() == other.identity() and caef_data.stream(other_path := tmp_path / "plain.toml")
    assert caef_data.stream(other_path).identity != made.identity
    assert make_plan(declaration).notes == (
        "mix and curriculum: of streams alone (caef_data.stream); a build writes all rows",
        *make_plan(other).notes,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix": 3}, "mix is 3"),
        ({"mix": {}}, "mix is {}"),
        ({"mix": {"ad": 1}}, "mix names 'ad', of which this declaration has no rows .did you mean 'add'.."),
        ({"mix": {"mul": 1}}, "mix names 'mul', of which this declaration has no rows"),
        (
            {"mix": {"add-rwa": 1}},
            "mix names 'add-rwa', of which this declaration has no rows .did you mean 'add-raw'..",
        ),
        (
            {"mix": {"reflection-raw": 1}, "task": "reflection"},
            "mix names 'reflection-raw', of which this declaration has no rows",
        ),
        ({"mix": {"add": 0}}, 'mix is ."add": 0.'),
        ({"mix": {"add": "3"}}, 'mix is ."add": "3".'),
        ({"mix": {"add": float("nan")}}, 'mix is ."add": NaN.'),
        ({"mix": {"add": True}}, 'mix is ."add": true.'),
        ({"curriculum": 3}, "curriculum is 3"),
        ({"curriculum": {"linaer": {}}}, 'curriculum is ."linaer"'),
        ({"curriculum": {"linear": [1]}}, 'curriculum is ."linear": .1.'),
        ({"curriculum": {"linear": {"start": 2}}}, 'curriculum is ."linear": ."start": 2.'),
        ({"curriculum": {"linear": {"start": 2, "row": 9}}}, 'curriculum is ."linear": ."start": 2, "row": 9.'),
        (
            {"curriculum": {"linear": {"start": 9, "rows": 9}}},
            r"start is 9\n.*\n *allowed: 1 to 8: from the least",
        ),
        (
            {"task": "add", "min": 4, "curriculum": {"linear": {"start": 2, "rows": 9}}},
            r"start is 2\n.*\n *allowed: 4 to 8: from the task's min to its max",
        ),
        (
            {"min": 4, "curriculum": {"staged": [{"rows": 9, "max": 5}, {"rows": 9, "max": 10}]}},
            r"max of a stage is 10\n.*\n *allowed: 4 to 8",
        ),
        ({"curriculum": {"linear": {"start": 2, "rows": 1.5}}}, "curriculum is .*1.5"),
        ({"curriculum": {"staged": []}}, "curriculum is"),
        ({"curriculum": {"staged": [{"rows": 1, "max": 0}]}}, 'curriculum is .*"max": 0'),
        (
            {"curriculum": {"staged": [{"rows": 1, "max": 3}, {"rows": 1, "max": 3}]}},
            "operands of up to 3 digits follow those of up to 3",
        ),
        ({"curriculum": {"linear": {"start": 1, "rows": 5}, "staged": []}}, "curriculum is"),
    ],
)
def test_what_is_refused(settings: Settings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stream(settings)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('task = "add"\nmax = 3\n\n[mix]\nsub = 1\n')
    with pytest.raises(UserError, match=r"where:.*bad\.toml"):
        load_declaration(str(path))


def test_a_mix_needs_rows_of_the_split() -> None:
    with pytest.raises(UserError, match="no train rows of add-full"):
        stream({"mix": {"add": 1}, "max_steps": 1}, view="full")
