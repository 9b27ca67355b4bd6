"""The view slips: an entry of a run in which one named thing is wrong, and exactly what follows it."""

import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

import caef_data
from caef_data import tm
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.verify import verify
from caef_data.pipelines.verify_report import Report
from caef_data.tests.commands import call, call_json, contents
from caef_data.tests.forging import Forger
from caef_data.tests.test_machine_tasks import INCREMENT
from caef_data.tm.check.entries import problem
from caef_data.tm.check.slips import after_slip
from caef_data.tm.registry import machine
from caef_data.tm.slips import SLIPS, Slipped, slipped

HALT = "No command to execute. Halt state."
ON = "[OUTPUT] RIGHT, [HEAD1] RIGHT, [HEAD2] RIGHT"
START = "CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1"
SUB, MUL = "[HEAD1]|2|1 [HEAD2]|7 ", "[HEAD1]|5|4 [HEAD2]|3"
SPLITS = ("train", "test", "stress")
COLUMNS_PAGE = Path(__file__).resolve().parents[1] / "docs" / "columns.md"

# task, a, b, step, slip; the slipped entry; what follows: worked out by hand
GOLDEN = {
    ("add", "58", "67", 2, "lost_carry"): (
        f"ADD, q1,  |8[HEAD1]|5 |7[HEAD2]|6 [C]0 |5[OUTPUT]\nCMD: [C] 1, [OUTPUT] 1, {ON}, q1\n",
        "ADD, q1,  |8|5[HEAD1] |7|6[HEAD2] [C]1 |5|1[OUTPUT]\nCMD: [OUTPUT] 1, [OUTPUT], [C], qH\n",
    ),
    ("add", "58", "67", 2, "head_off"): (
        f"ADD, q1,  [HEAD1]|8|5 |7[HEAD2]|6 [C]1 |5[OUTPUT]\nCMD: [C] 1, [OUTPUT] 5, {ON}, q1\n",
        "ADD, q1,  |8[HEAD1]|5 |7|6[HEAD2] [C]1 |5|5[OUTPUT]\n"
        "CMD: [C] 0, [OUTPUT] 6, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1\n",
    ),
    ("add", "58", "67", 2, "wrong_digit"): (
        f"ADD, q1,  |8[HEAD1]|5 |7[HEAD2]|6 [C]1 |9[OUTPUT]\nCMD: [C] 1, [OUTPUT] 2, {ON}, q1\n",
        "ADD, q1,  |8|5[HEAD1] |7|6[HEAD2] [C]1 |9|2[OUTPUT]\nCMD: [OUTPUT] 1, [OUTPUT], [C], qH\n",
    ),
    ("add", "58", "67", 2, "wrong_state"): (
        f"ADD, q1,  |8[HEAD1]|5 |7[HEAD2]|6 [C]1 |5[OUTPUT]\nCMD: [C] 1, [OUTPUT] 2, {ON}, qH\n",
        f"ADD, qH,  |8|5[HEAD1] |7|6[HEAD2] [C]1 |5|2\n{HALT}\n",
    ),
    ("add", "58", "67", 3, "wrong_state"): (
        "ADD, q1,  |8|5[HEAD1] |7|6[HEAD2] [C]1 |5|2[OUTPUT]\nCMD: [OUTPUT] 1, [OUTPUT], [C], q1\n",
        "ADD, q1,  |8|5[HEAD1] |7|6[HEAD2] [C]1 |5|2|1[OUTPUT]\nCMD: [OUTPUT] 1, [OUTPUT], [C], qH\n",
    ),
    ("less_than", "12", "30", 3, "wrong_truth"): (
        "LESS_THAN, q1,  |2|1[HEAD1] |0|3[HEAD2] [OUTPUT]False\nCMD [OUTPUT], qH\n",
        f"LESS_THAN, qH,  |2|1[HEAD1] |0|3[HEAD2] False\n{HALT}\n",
    ),
    ("equal", "77", "77", 2, "head_off"): (
        "EQUAL, q1,  |7[HEAD1]|7 |7|7[HEAD2] [OUTPUT]True\nCMD [OUTPUT] False, [OUTPUT], qH\n",
        f"EQUAL, qH,  |7[HEAD1]|7 |7|7[HEAD2] False\n{HALT}\n",
    ),
    ("reflection", "999", "98", 4, "wrong_state"): (
        "REFLECTION, q1,  |9|9|9[HEAD1] |8|9[HEAD2] |1|0|9[OUTPUT]\nCMD qH\n",
        f"REFLECTION, qH,  |9|9|9[HEAD1] |8|9[HEAD2] |1|0|9\n{HALT}\n",
    ),
    ("left_mask", "1050", None, 6, "wrong_digit"): (
        "LEFT_MASK, q2,  |0|5|0|1[HEAD] |0|5|3[OUTPUT]\nCMD qH\n",
        f"LEFT_MASK, qH,  |0|5|0|1[HEAD] |0|5|3\n{HALT}\n",
    ),
    ("sub", "12", "7", 1, "wrong_digit"): (
        f"SUB, q1, {SUB}\nCMD [CALL] REFLECTION, q2\nREFLECTION, qH,  |9|9[HEAD1] |7[HEAD2] |5|9\n{HALT}\n",
        f"SUB, q2, {SUB}\nCMD [CALL] ADD, q3\nADD, q0, [HEAD1] |2|1[HEAD2] |5|9 [C] [OUTPUT]\n{START}",
    ),
    ("sub", "12", "7", 2, "wrong_state"): (
        f"SUB, q3, {SUB}\nCMD [CALL] ADD, q4\nADD, qH,  |2|1[HEAD1] |2|9[HEAD2] [C]1 |4|0|1\n{HALT}\n",
        f"SUB, q4, {SUB}\nCMD [CALL] LEFT_MASK, qH\nLEFT_MASK, q0, [HEAD] |4|0|1 [OUTPUT]\nCMD [HEAD] RIGHT, q1",
    ),
    ("mul", "45", "3", 1, "wrong_truth"): (
        f"MUL, q1, {MUL} [COUNT]|1 [OUTPUT]|5|4\nCMD [CALL] LESS_THAN, q2\n"
        f"LESS_THAN, qH,  |1[HEAD1] |3[HEAD2] False\n{HALT}\n",
        f"MUL, qH, {MUL} [COUNT]|1 |5|4\n{HALT}",
    ),
    ("mul", "45", "3", 2, "wrong_count"): (
        f"MUL, q2, {MUL} [COUNT]|7 [OUTPUT]|5|4\nCMD [CALL] ADD, q3\n"
        f"ADD, qH,  |5|4[HEAD1] |5|4[HEAD2] [C]0 |0|9\n{HALT}\n",
        f"MUL, q3, {MUL} [COUNT]|7 [OUTPUT]|0|9\nCMD [CALL] ADD, q1\n"
        f"ADD, q0, [HEAD1] |7[HEAD2] |1 [C] [OUTPUT]\n{START}",
    ),
}  # fmt: skip
OPERANDS = [
    ("58", "67"),
    ("999", "1"),
    ("1050", "98"),
    ("100", "100"),
    ("7", "7"),
    ("0", "5"),
    ("12", "3"),
    ("31", "4"),
]


def of_task(task: str) -> list[tuple[str, str | None]]:
    if task == "left_mask":
        return [(a, None) for a, _ in OPERANDS]
    if task == "reflection":
        return [("9" * max(len(a), len(b)), b) for a, b in OPERANDS]
    return [(max(pair, key=int), min(pair, key=int)) if task == "sub" else pair for pair in OPERANDS]


def drawn(task: str, entry: str, keys: int) -> set[Slipped]:
    return {slipped(machine(task), entry, key * 7919 + 1) for key in range(keys)}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: " ".join(map(str, case)))
def test_golden_rows(case: tuple[str, str, str | None, int, str]) -> None:
    task, a, b, step, slip = case
    prompt, completion = GOLDEN[case]
    entry = tm.transition(task, a, b, step).prompt
    assert prompt != entry
    assert after_slip(slip, entry, prompt) == (prompt, completion)
    assert (slip, prompt, completion) in {one[:3] for one in drawn(task, entry, 3000)}
    assert caef_data.successor(prompt) == completion


@pytest.mark.parametrize("dialect", ["consistent", "published"])
@pytest.mark.parametrize("task", tm.tasks())
def test_every_slip_is_off_the_track_and_the_second_account_agrees(task: str, dialect: str) -> None:
    slips: Counter[str] = Counter()
    for a, b in of_task(task):
        if task == "mul" and b == "0":
            continue
        run = list(tm.transitions(task, a, b, dialect=dialect))
        entries = {step.prompt for step in run} | {run[-1].completion}
        work = problem(task, a, b)
        assert not isinstance(work, str)
        with pytest.raises(ValueError, match="has no slip"):
            drawn(task, run[0].prompt, 1)
        for step, one in [*enumerate(run)][1:12] + [*enumerate(run)][12:][-4:]:
            for row in drawn(task, one.prompt, 30):
                slips[row.slip] += 1
                assert row.prompt not in entries, row
                assert after_slip(row.slip, work.prompt(step, dialect), row.prompt) == (row.prompt, row.completion)
                other = next(name for name in SLIPS if name != row.slip)
                assert isinstance(after_slip(other, one.prompt, row.prompt), str)
    composed = ["wrong_digit", "wrong_state"] + ["wrong_truth", "wrong_count"] * (task != "sub")
    output = {"add": ["lost_carry", "wrong_digit"], "reflection": ["wrong_digit"], "left_mask": ["wrong_digit"]}
    basic = ["head_off", "wrong_state", *output.get(task, ["wrong_truth"])]
    assert {*slips} == {*(composed if machine(task).composer else basic)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of several shards, of every task; tests copy it."""
    out = tmp_path_factory.mktemp("built") / "data"
    make(out)
    return out


def make(out: Path, workers: int = 1, progress: Any = None, tasks: Any = ("all",), **more: Any) -> None:
    settings = {"max": 2, "num": 2, "splits": [*SPLITS], "views": ["slips"], "rows_per_shard": 200, **more}
    build(make_plan(from_flags([*tasks], **settings)), out, workers=workers, progress=progress)


def checked(folder: Path) -> Report:
    return verify(folder, workers=1)


def rows_of(folder: Path, split: str = "") -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"*-slips/{split}*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_build_is_right_and_its_columns_say_what_the_texts_show(built: Path) -> None:
    report = checked(built)
    assert report.findings == () and report.rows_checked == report.transitions > 1000
    rows = rows_of(built)
    assert {row["slip"] for row in rows} == {*SLIPS}
    for row in rows:
        name = row["task"].upper()
        assert row["prompt"].startswith(f"{name}, {row['state']}, ")
        assert row["completion"].startswith(f"{name}, {row['next_state']}, ")
        assert f"[CALL] {str(row['call']).upper()}, " in row["completion"] or row["call"] is None
        assert 0 < row["step"] < row["n_steps"] and row["completion"] == caef_data.successor(row["prompt"])


def test_rows_are_a_function_of_the_declaration_and_a_build_is_resumed(tmp_path: Path) -> None:
    def stop(*shard: object) -> None:
        done.append(shard)
        if len(done) == 3:
            raise KeyboardInterrupt

    done: list[object] = []
    some = {"tasks": ["add", "mul"], "rows_per_shard": 60}
    make(tmp_path / "whole", **some)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "data", progress=stop, **some)
    assert not (tmp_path / "data" / "manifest.json").exists()
    make(tmp_path / "data", workers=2, **some)
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    make(tmp_path / "other", seed=1, **some)
    assert contents(tmp_path / "other") != contents(tmp_path / "whole")


def test_a_stream_has_as_many_rows_as_a_build_and_no_first_step(built: Path) -> None:
    stream = caef_data.stream(task="sub", max=2, num=2, view="slips")
    rows = list(islice(stream, stream.epoch_rows))
    assert len(rows) == sum(row["task"] == "sub" for row in rows_of(built, "train"))
    assert {row["step"] for row in rows} == {1, 2, 3, 4}


FORGED = {
    "the entry without its slip": lambda row: row.update(
        prompt=row["right"], completion=caef_data.successor(row["right"])
    ),
    "another slip's name": lambda row: row.update(slip="wrong_state" if row["slip"] != "wrong_state" else "head_off"),
    "no slip's name": lambda row: row.update(slip="\x1b[31mtypo"),
    "no slip at all": lambda row: row.update(slip=None),
    "the entry that a correct run goes on to": lambda row: row.update(completion=row["next"]),
    "a completion that is cut": lambda row: row.update(completion=row["completion"][:-2]),
    "another next state": lambda row: row.update(next_state="q9"),
    "another step": lambda row: row.update(step=row["step"] - 1),
    "the initial entry": lambda row: row.update(step=0),
    "a prompt that is no entry": lambda row: row.update(prompt=row["prompt"][:-9]),
    "a letter in place of a digit": lambda row: row.update(
        slip="wrong_digit", prompt=re.sub(r"[0-9](?=[^0-9]*\Z)", "x", row["right"])
    ),
}


@pytest.mark.parametrize("task", ["add", "sub", "mul"])
def test_verify_finds_changed_rows(tmp_path: Path, task: str) -> None:
    make(tmp_path / "data", tasks=[task], splits=["train"], rows_per_shard=None)
    forger = Forger(tmp_path / "data")
    [rows] = forger.rows(f"{task}-slips", "train")
    for row, forge in zip(rows, FORGED.values(), strict=False):
        right = caef_data.transition(task, row["a"], row["b"], row["step"])
        row |= {"right": right.prompt, "next": right.completion}
        forge(row)
    forger.write(f"{task}-slips", "train", [rows])
    found = [(finding.row, finding.message) for finding in checked(forger.path).findings if finding.kind == "row"]
    assert [row for row, _ in found] == [*range(len(FORGED))], found
    assert all(text.isprintable() for _, text in found)


def test_verify_finds_another_slip_of_the_same_kind(tmp_path: Path) -> None:
    """Another digit is as wrong, and what follows it is right: but the declaration does not give it."""
    make(tmp_path / "data", tasks=["add"], splits=["train"], rows_per_shard=None)
    forger = Forger(tmp_path / "data")
    [rows] = forger.rows("add-slips", "train")
    row = next(row for row in rows if row["slip"] == "wrong_digit")
    found = drawn("add", caef_data.transition("add", row["a"], row["b"], row["step"]).prompt, 400)
    other = next(one for one in found if one.slip == "wrong_digit" and one.prompt != row["prompt"])
    row |= {"prompt": other.prompt, "completion": other.completion}
    forger.write("add-slips", "train", [rows])
    assert {finding.kind for finding in checked(forger.path).findings} == {"added", "missing"}


@pytest.mark.parametrize("task", ["mul", "div"])
def test_steps_that_no_integer_column_holds(tmp_path: Path, task: str) -> None:
    make_one = from_flags([task], min=24, max=25, num=30, views=["slips"], splits=["train"])
    build(make_plan(make_one), tmp_path / "data", workers=1)
    assert checked(tmp_path / "data").findings == ()
    far = [row for row in rows_of(tmp_path / "data") if row["step"] is None]
    assert {row["slip"] for row in far} == ({"wrong_digit", "wrong_truth"} if task == "mul" else set())


def test_machines_that_have_no_slips_say_so(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'max = 4\nnum = 2\nviews = ["slips"]\n{INCREMENT}')
    code, output = call("build", mine, "--out", tmp_path / "data")
    why = "slips are known of the nine shipped machines alone"
    assert code == 2 and f"increment has no rows of slips: {why}" in output, output
    assert "one_step, full, raw, scratchpad, commands" in output
    mine.write_text(f'max = 4\nnum = 2\nviews = ["slips"]\ntask = ["add", "increment"]\n{INCREMENT}')
    code, output = call("plan", mine)
    assert code == 0 and f"increment: slips is left out, {why}" in output, output


def test_eval_of_slips(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(built)
    words = ("eval", "--backend", "oracle")
    code, output = call(*words, "--mode", "slips")
    assert code == 0, output
    told = call_json("query", "SELECT mode, avg(correct::INT) FROM problems GROUP BY ALL", "--format", "json")
    assert [[*row.values()] for row in told] == [["slips", 1.0]]
    [query] = re.findall(r"^```sql\n(.*?)^```$", COLUMNS_PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found = duckdb.sql(query).fetchall()
    assert {row[0] for row in found} == {*tm.tasks()} and {row[1] for row in found} == {*SLIPS}
    assert sum(row[2] for row in found) == len(rows_of(built, "test")) and {row[3] for row in found} == {1.0}
    code, output = call(*words, "--mode", "slips", "--limit", 3, "--task", "add", "--out", "few")
    assert code == 0 and "share" not in output, output
    code, output = call(*words, "--mode", "one_step")
    assert code == 2 and "rows of add-one_step" in output
