"""The published raw files as a dataset: what is read of them, what is refused, and what is asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caef_data import tm
from caef_data.errors import UserError
from caef_data.eval.inputs import problem_folder
from caef_data.eval.problems import MODES, RAW
from caef_data.eval.published import PublishedFolder, raw_files
from caef_data.eval.session import prepare
from caef_data.tests.evaluating import Counting, finish, samples, settings, tables_of

FILES: dict[str, list[tuple[str, str]]] = {
    "addition/test_5_5.jsonl": [("12345+54321=", "66666"), ("99999+1=", "100000")],
    "addition/test_10_10.jsonl": [("1234567890+1=", "1234567891")],
    "addition/train.jsonl": [("1+1=", "2")],
    "subtraction/test_5_5.jsonl": [("50000-49999=", "1")],
    "mul/test_1_10.jsonl": [("12*12=", "144"), ("5*0=", "5"), ("0*0=", "0"), ("12*12=", "144"), ("9*9=", "80")],
    "division/test_1_10.jsonl": [("17//5=", "3")],
    "equal/test_5_5.jsonl": [("12==12=", "True"), ("12==13=", "False")],
    "greater_than/test_5_5.jsonl": [("2>1=", "True")],
    "less_than/test_5_5.jsonl": [("2<1=", "False"), (f"{10**99}<{10**99 + 1}=", "True")],
}


def write(folder: Path, files: dict[str, list[tuple[str, str]]] = FILES) -> Path:
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"prompt": prompt, "response": response}) + "\n" for prompt, response in rows]
        (folder / name).write_text("".join(lines))
    return folder


def opened(folder: Path, split: str = "test") -> tuple[Any, list[str]]:
    said: list[str] = []
    return problem_folder(settings(folder, folder / "out", split=split), said.append)[0], said


def problems(folder: Any, task: str, mode: str) -> list[Any]:
    return samples(folder, task, mode)


@pytest.mark.parametrize("root", ["", "raw", "datasets/raw"])
def test_rows_are_asked_in_every_mode(tmp_path: Path, root: str) -> None:
    write(tmp_path / root)
    folder, said = opened(tmp_path)
    assert folder.manifest()["tasks"].keys() == {"add", "sub", "mul", "div", "equal", "greater_than", "less_than"}
    raw = {problem.steps[0].prompt: problem.steps[0].completion for problem in problems(folder, "add", RAW)}
    assert raw == {"12345+54321=": "66666", "99999+1=": "100000", "1234567890+1=": "1234567891"}
    for task in folder.manifest()["tasks"]:
        for mode in MODES:
            assert problems(folder, task, mode), (task, mode)
        for problem in problems(folder, task, "process"):  # the full answer is prompt + response
            prompt, answer = problem.steps[0].prompt, problem.steps[-1].completion
            found, a, b = tm.operands(task, problem.a, problem.b)
            assert answer == prompt + str(found.answer(a, b))
    [sub] = [one for one in problems(folder, "sub", "one_step") if one.steps[0].prompt.startswith("SUB, q2")]
    assert sub.dialect == "published" and "[C]0" in sub.steps[0].prompt  # a real run feeds [C]1 here
    variants = {problem.a + problem.b: problem.variant for problem in problems(folder, "equal", "executor")}
    assert variants == {"1212": "equal", "1213": "different"}
    file = f"{root}/mul/test_1_10.jsonl".lstrip("/")
    assert said == [
        f"mul test: 3 of 5 rows are left out, such as '5*0=5' ({file}, line 2):"
        " mul needs b >= 1: the machine adds a to itself b - 1 times",
        "mul test: 1 of 5 rows repeat an expression; each is asked once",
    ]


def test_an_evaluation_of_the_published_files(tmp_path: Path) -> None:
    write(tmp_path / "data")
    session = prepare(settings(tmp_path / "data", tmp_path / "out"))
    finish(session, Counting(change=lambda adapter, prompt, answer: answer))
    rows = tables_of(session)["class_accuracy"]
    assert all(row["n"] == row["correct"] == row["correct_stripped"] for row in rows)
    assert {row["mode"] for row in rows} == set(MODES) and ("add", "process", 5, 1) in {
        (row["task"], row["mode"], row["len_a"], row["len_b"]) for row in rows
    }
    other = write(tmp_path / "other", {**FILES, "equal/test_5_5.jsonl": [("12==12=", "True")]})
    assert prepare(settings(other, tmp_path / "out")).identity != session.identity
    assert prepare(settings(tmp_path / "data", tmp_path / "out")).identity == session.identity


def test_an_answer_of_white_space_more_is_right_as_the_published_evaluation_counts(tmp_path: Path) -> None:
    write(tmp_path / "data")
    session = prepare(settings(tmp_path / "data", tmp_path / "out", baseline=True, base_model="x"))
    finish(session, Counting(change=lambda adapter, prompt, answer: f" {answer}\n" if "9" in prompt else answer))
    rows = [row for row in tables_of(session)["class_accuracy"] if row["task"] == "add"]
    assert sum(row["n"] for row in rows) == 3
    assert (sum(row["correct"] for row in rows), sum(row["correct_stripped"] for row in rows)) == (1, 3)


def test_runs_that_would_take_too_long_are_not_asked_whole(tmp_path: Path) -> None:
    write(tmp_path, {"mul/test_30_30.jsonl": [(f"7*{10**29}=", f"{7 * 10**29}"), ("7*3=", "21")]})
    folder, said = opened(tmp_path)
    assert said == ["mul test: not asked whole: 1 of 2, which take over 10,000 steps"]
    assert len(problems(folder, "mul", "executor")) == 1 and len(problems(folder, "mul", "aligner_in")) == 2
    assert len(problems(folder, "mul", "one_step")) > 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "1-1=", "response": "0"}', "no question of add"),
        (b'{"prompt": "01+1=", "response": "2"}', "leading zero"),
        (b'{"prompt": "1 + 1=", "response": "2"}', "blank"),
        (b'{"prompt": "1+1", "response": "2"}', "'=' is missing"),
        (b'{"prompt": "1+1=", "response": 2}', "not two texts"),
        (b'{"prompt": "1+1="}', "not two texts"),
        (b'["1+1=", "2"]', "not two texts"),
        (b"{", "no row"),
        (b"[" * 100_000, "no row"),
        (b"\xff", "no row"),
        ('{"prompt": "\u0661+1=", "response": "2"}'.encode(), "another script"),
        (b'{"prompt": "' + b"1" * 3000 + b'+1=", "response": "2"}', "3,000 digits"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, line: bytes, words: str) -> None:
    (tmp_path / "add").mkdir()
    (tmp_path / "add" / "test_1_1.jsonl").write_bytes(b'{"prompt": "1+1=", "response": "2"}\n\n' + line)
    with pytest.raises(UserError, match="line 3") as raised:
        opened(tmp_path)
    assert words in str(raised.value) and str(raised.value).isprintable() or "\n" in str(raised.value)


def test_where_there_is_nothing_to_ask(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset here\n.*\n.*built, with its manifest.json, or published raw files"):
        opened(tmp_path)
    write(tmp_path, {"mul/test_1_1.jsonl": [("5*0=", "5")]})
    with pytest.raises(UserError, match="no row that can be asked"):
        opened(tmp_path)
    with pytest.raises(UserError, match="no raw files of split stress") as raised:
        opened(tmp_path, "stress")
    assert "--split test" in str(raised.value)
    write(tmp_path / "copy", {"mul/test_1_1.jsonl": [("5*1=", "5")]})
    with pytest.raises(UserError, match=r"in several folders: \., copy"):
        opened(tmp_path)


def test_a_built_dataset_goes_before_raw_files_beside_it(data: Path) -> None:
    found, name = problem_folder(settings(data, data / "out"), lambda line: None)
    assert not isinstance(found, PublishedFolder) and name == str(data)


def test_which_files_are_raw_ones() -> None:
    def found(paths: Sequence[str]) -> dict[str, tuple[str, str]]:
        return raw_files(paths, "test", "here")

    assert found(["a/addition/test_5_5.jsonl", "a/addition/train.jsonl", "a/other/test_5_5.jsonl"]) == {
        "a/addition/test_5_5.jsonl": ("add", "test")
    }
    assert found(["addition/test.jsonl", "test/execute_add_5_5.jsonl", "addition/x.jsonl"]) == {
        "addition/test.jsonl": ("add", "test")
    }
    assert found(["left_mask/test_5_5.jsonl", "README.md"]) == {}


def test_made_rows_are_read_as_files(tmp_path: Path) -> None:
    write(tmp_path)
    folder, _ = opened(tmp_path)
    with folder.open("add-raw/test-00000-of-00001.parquet") as file:
        assert pq.read_table(file).num_rows == 3
    with pytest.raises(FileNotFoundError):
        folder.open("add-raw/stress-00000-of-00001.parquet")
