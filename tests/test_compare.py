"""Two runs problem by problem: counts, McNemar's exact test, names of runs; the command and the report say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from caef_data.eval.compare import in_short, mcnemar
from caef_data.eval.problems import RAW
from caef_data.eval.query import Database
from caef_data.eval.session import prepare
from caef_data.eval.tables import RunTables
from caef_data.tests.commands import call, call_json
from caef_data.tests.evaluating import Counting, finish, settings
from caef_data.tests.results_data import RUNS, Run, errs, problems
from caef_data.tests.test_old_results import FINISHED, OLD

FIRST, SECOND, _, BASE, STOPPED = RUNS


def compared(results: Path, a: str, b: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call_json("compare", a, b, "--results", results, "--json")["comparisons"]
    return found


def right(run: Run, task: str, mode: str) -> dict[tuple[str, str], tuple[bool, tuple[int, int, str]]]:
    """Return whether a run of ``results_data`` is right, by operands, and the problem's class."""
    return {
        (row["a"], row["b"]): (not any(errs(run, step) for step in asked), (row["len_a"], row["len_b"], row["variant"]))
        for row, asked in problems(task, mode)
    }


@pytest.mark.parametrize(
    "pair", [(0, 0), (0, 1), (1, 0), (5, 5), (3, 11), (0, 40), (2, 200), (400, 500), (9_000, 9_400)]
)
def test_the_test_is_the_libraries(pair: tuple[int, int]) -> None:
    wanted = binomtest(min(pair), sum(pair), 0.5).pvalue if sum(pair) else 1.0
    assert mcnemar(*pair) == mcnemar(*reversed(pair)) == pytest.approx(wanted, rel=1e-9)


def test_p_values_are_told_in_short() -> None:
    assert [in_short(p) for p in (1.0, 0.0954, 0.04321, 0.00012, 1.2e-29, 0.0)] == [
        *("1.00", "0.10", "0.043", "0.00012", "1e-29", "<1e-99"),
    ]


def test_pairs_are_those_of_the_problems(results: Path) -> None:
    found = compared(results, "first", "second")
    assert [(one["task"], one["mode_a"], one["mode_b"]) for one in found] == sorted(
        (task, mode, mode) for task, mode in FIRST.jobs
    )
    for one in found:
        before, after = (right(run, one["task"], one["mode_a"]) for run in (FIRST, SECOND))
        both = [(before[key][0], after[key][0]) for key in before]
        names = ("both_right", "gained", "lost", "both_wrong")
        verdicts = ((True, True), (False, True), (True, False), (False, False))
        assert [one[name] for name in names] == [both.count(verdict) for verdict in verdicts]
        assert one["n"] == len(both) and one["p"] == mcnemar(one["gained"], one["lost"])
    assert sum(one["gained"] for one in found) > 10 and sum(one["both_wrong"] for one in found) > 3


def test_a_process_is_paired_with_the_baseline(results: Path) -> None:
    (one,) = compared(results, "base", "first")
    assert (one["task"], one["mode_a"], one["mode_b"]) == ("add", RAW, "process")
    wrong, well = right(BASE, "add", RAW), right(FIRST, "add", "process")
    assert one["gained"] == sum(not wrong[key][0] and well[key][0] for key in wrong) > 20
    (back,) = compared(results, "first", "base")
    assert (back["gained"], back["lost"], back["mode_a"]) == (one["lost"], one["gained"], "process")


def test_the_table_for_people(results: Path) -> None:
    code, said = call("compare", FIRST.id[:7], "second", "--results", results)
    assert code == 0 and f"A: {FIRST.id} first" in said and f"B: {SECOND.id} second" in said
    (one,) = [
        one for one in compared(results, "first", "second") if one["task"] == "add" and one["mode_a"] == "process"
    ]
    (line,) = [line for line in said.splitlines() if line.startswith("│ add") and "process" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    both = [one["both_right"] + one["lost"], one["both_right"] + one["gained"]]
    assert cells == ["add", "process", *map(str, [one["n"], *both, one["gained"], one["lost"]]), in_short(one["p"])]
    assert all(len(line) <= 80 for line in said.splitlines()), said


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ("base", "rolled", "no problem in common"),
        ("first", STOPPED.id, "is not finished"),
        ("stopped", "first", "caef-data eval --adapters stopped"),
        ("first", "secnod", "did you mean 'second'"),
        ("first", "", "there is no run ''"),
    ],
)
def test_what_cannot_be_compared_is_said(results: Path, a: str, b: str, told: str) -> None:
    code, said = call("compare", a, b, "--results", results)
    assert code == 2 and told in said and "next:" in said, said
    assert told == "no problem in common" or "--adapters stopped" in said or f"query --results {results} " in said


def test_a_run_of_an_old_version_has_no_pairs() -> None:
    code, said = call("compare", FINISHED, FINISHED[:5], "--results", OLD)
    assert code == 2 and "these runs have no problem in common" in said, said


def test_single_steps_are_paired_step_by_step(data: Path, tmp_path: Path) -> None:
    sessions = []
    for limit, change in ((None, None), (3, lambda adapter, prompt, answer: answer)):
        session = prepare(settings(data, tmp_path, task=("add", "mul"), mode=("one_step",), limit=limit))
        finish(session, Counting(**({} if change is None else {"change": change})))
        sessions.append(session)
    ids = [session.tables.run_id for session in sessions]
    found = compared(tmp_path, *ids)
    verdicts: dict[tuple[str, str], dict[Any, bool]] = {}
    with Database(tmp_path) as database:
        for row in database.each("FROM problems"):
            key = row["a"], row["b"], row["asked_step"]
            verdicts.setdefault((row["run_id"], row["task"]), {})[key] = row["correct"]
    for one in found:
        before, after = (verdicts[run, one["task"]] for run in ids)
        assert 3 < one["n"] == len(after) < len(before) and one["lost"] == one["both_wrong"] == 0
        assert one["gained"] == sum(not before[key] for key in after)
    assert len(found) == 2


# Names --------------------------------------------------------------------------------------------------------------


def test_a_name_is_no_part_of_a_run_and_of_two_the_newest_is_meant(data: Path, tmp_path: Path) -> None:
    words = ("eval", "--backend", "oracle", "--data", data, "--task", "add", "--out", tmp_path)

    def named(run: str) -> Any:
        row = RunTables(tmp_path, run).read_run()
        assert row is not None
        return row["name"]

    ids = []
    for mode, name in (("process", "x"), ("executor", "x"), ("process", None), ("process", "y-1.0")):
        code, said = call(*words, "--mode", mode, *(("--name", name) if name else ()))
        ids += re.findall(r"^run (\w{16})", said, re.MULTILINE)
        assert code == 0 and (name is None or f"{ids[-1]} ({name}): " in said)
        if name is None:  # the name it had stays
            assert ids[2] == ids[0] and named(ids[0]) == "x"
            code, said = call("compare", "x", ids[0], "--results", tmp_path)
            assert code == 2 and ids[1] in said, said  # the newer one of this name, which has another mode
    assert len(set(ids)) == 2 and (named(ids[0]), named(ids[1])) == ("y-1.0", "x")
    code, said = call("report", "--run", "y-1.0", "--results", tmp_path, "--out", tmp_path / "report.html")
    assert code == 0 and "1 run, 1 tasks and modes" in said
    assert "y-1.0, verify" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["", "-x", "two words", "a/b", "\x1b[31m", "x" * 61, "0123456789abcdef"])
def test_names_that_cannot_be_typed_or_look_like_ids_are_refused(data: Path, name: str) -> None:
    code, said = call("eval", "--backend", "oracle", "--data", data, f"--name={name}")
    assert code == 2 and "--name" in said and "\x1b" not in said, said


def test_the_report_tells_the_pairs_of_the_command(results: Path, tmp_path: Path) -> None:
    code, said = call("report", "--results", results, "--out", tmp_path / "report.html")
    assert code == 0, said
    page = (tmp_path / "report.html").read_text("utf-8")
    told = [one for a, b in (("base", "second"), ("first", "second")) for one in compared(results, a, b)]
    for one in told:
        counts = f"{one['gained']} gained, {one['lost']} lost, p = {in_short(one['p'])}".replace("<", "&lt;")
        assert f"{one['n']} problems: {counts}" in page, one["mode_b"]
    assert len(re.findall(r"problems: \d+ gained", page)) >= len(FIRST.jobs)


def test_a_loop_as_a_process_stands_beside_its_baseline(data: Path, tmp_path: Path) -> None:
    """Its expressions are of variant halts_soon in one view and any in another."""
    words = ("eval", "--backend", "oracle", "--data", data, "--task", "mul", "--limit", 3, "--out", tmp_path)
    assert call(*words, "--mode", "process", "--name", "machine")[0] == 0
    assert call(*words, "--baseline", "--base-model", "none", "--name", "alone")[0] == 0
    (one,) = compared(tmp_path, "alone", "machine")
    assert (one["n"], one["both_right"], one["p"]) == (3, 3, 1.0)
    assert call("report", "--results", tmp_path, "--out", tmp_path / "report.html")[0] == 0
    assert "3 problems: 0 gained, 0 lost, p = 1.00" in (tmp_path / "report.html").read_text("utf-8")
