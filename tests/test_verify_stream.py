"""caef-data verify --stream: rows of a declaration's streams, checked by what has no part in making them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import caef_data
from caef_data.pipelines.stream import Stream
from caef_data.pipelines.terminal import Meter, open_console
from caef_data.pipelines.verify_stream import check_stream
from caef_data.tests.commands import call, call_json

PLAIN = 'task = ["sub", "left_mask"]\nmax = 3\nnum = 2\n'
MACHINE = '[[machine]]\nname = "walks"\nformat = "bbchallenge"\ntable = "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"\n'


@pytest.mark.parametrize(
    ("text", "views"),
    [
        (PLAIN + 'splits = ["train", "stress"]\nviews = ["one_step", "full"]\n', 2 * ["one_step", "full"]),
        (
            PLAIN + "[mix]\nsub-raw = 1\nleft_mask = 1\n[curriculum]\nlinear = {start = 1, rows = 300}\n",
            2 * ["raw", "one_step"],
        ),
        ("max = 5\nnum = 5\nmax_steps = 200\n" + MACHINE, ["one_step"]),
        ('task = "add"\nmax = 3\nrows = 2000\nviews = ["raw"]\nsplits = ["train"]\n', ["raw"]),
    ],
)
def test_streams_are_right(tmp_path: Path, text: str, views: list[str]) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    found = call_json("verify", "--stream", 60, path, "--json")
    assert found["ok"] and [view for one in found["streams"] for view in one["views"]] == views
    assert all(one["rows"] == 60 and not one["num_findings"] for one in found["streams"])


@pytest.mark.parametrize(("task", "num", "most"), [("mul", 5, 10), ("mul", 1, 20), ("div", 1, 8)])
def test_whole_runs_are_of_up_to_max_steps(task: str, num: int, most: int) -> None:
    stream = caef_data.stream(task=task, max=2, num=num, max_steps=most, view="full")
    some = stream.__getitems__(range(3 * stream.epoch_rows))  # few: what an epoch draws may be too long as a whole
    assert max(row["n_steps"] for row in some) <= most
    assert not check_stream(stream, 30, Meter(open_console(), "")).findings


TWO = '[[task]]\ntask = "add"\n[[task]]\ntask = "sub"\nsplits = ["train"]\n[mix]\nadd = 1\nsub = 1\n'
STRESS = 'splits = ["train", "stress"]\nviews = ["one_step"]\n[curriculum]\nlinear = {start = 1, rows = 9}\n'


@pytest.mark.parametrize(
    ("text", "of", "why"),
    [
        (f'splits = ["train", "test"]\n{TWO}', "test", "this declaration has no test rows of sub-one_step"),
        (
            f'task = "div"\n{STRESS}',
            "stress one_step",
            "curriculum: there are no stress rows of operands of up to 1 digits to begin with",
        ),
    ],
)
def test_a_split_without_a_stream_is_told(tmp_path: Path, text: str, of: str, why: str) -> None:
    """A mix, or a curriculum, may want rows that one split lacks."""
    note = f"{of} is not checked: {why}"
    (path := tmp_path / "own.toml").write_text(f"max = 3\nnum = 1\n{text}")
    code, said = call("verify", "--stream", 20, path)
    assert code == 0 and f"{note}\n" in said and "train one_step: 20 rows checked, 0 findings" in said
    found = call_json("verify", "--stream", 20, path, "--json")
    assert (found["ok"], found["notes"], [one["split"] for one in found["streams"]]) == (True, [note], ["train"])


def test_a_mix_without_rows_is_an_error(tmp_path: Path) -> None:
    tasks = '[[task]]\ntask = "add"\nsplits = ["test"]\n[[task]]\ntask = "sub"\nsplits = ["train"]\n'
    (path := tmp_path / "own.toml").write_text(f"max = 3\nnum = 1\n{tasks}[mix]\nadd = 1\nsub = 1\n")
    code, said = call("verify", "--stream", 20, path)
    assert code == 2 and "this declaration has no test rows of sub-one_step" in said


def of_test(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of another split, which is right for itself."""
    return caef_data.stream({"task": "sub", "max": 3, "num": 2}, split="test")[row["step"]]


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda row: {**row, "completion": row["completion"] + " "}, "completion of step"),
        (lambda row: {**row, "len_b": 4}, "len_b: expected"),
        (lambda row: {**row, "instruction": "Guess."}, "not the instruction of sub"),
        (of_test, "stands in train, the split function says test"),
        (lambda row: {**row, "task": "add"}, "it is of add and one_step, of which the stream has no rows"),
    ],
)
def test_a_wrong_row_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forge: Callable[[Any], Any], message: str
) -> None:
    path, own = tmp_path / "own.toml", Stream.__getitems__
    path.write_text('task = "sub"\nmax = 3\nnum = 2\nviews = ["one_step"]\nsplits = ["train"]\n')

    def forged(self: Stream, numbers: Any) -> Any:
        rows = own(self, numbers)
        return [
            forge(row) if number == 3 and self.split == "train" else row
            for number, row in zip(numbers, rows, strict=True)
        ]

    monkeypatch.setattr(Stream, "__getitems__", forged)
    code, out = call("verify", "--stream", 20, path)
    assert code == 1
    assert "train one_step, row 3: " in out and message in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stream", 5], "there is no declaration 'data'"),
        (["--stream", 0, "smoke"], "0 is not in the range"),
        (["--stream", "x", "smoke"], "x"),
        (["--stream", 5, "smoke", "--fraction", 0.5], "--fraction and --workers are for a dataset"),
        (["--stream", 5, "smok"], "did you mean 'smoke'"),
    ],
)
def test_what_is_refused(words: list[object], message: str) -> None:
    code, error = call("verify", *words)
    assert code == 2 and message in error and "Traceback" not in error
