"""The checker: closed forms of every step of every task, and its verdicts on rows."""

import ast
import gzip
import json
import random
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import caef_data
from caef_data import tm
from caef_data.pipelines.verify_rows import INT64_MAX, check_rows, known_tasks
from caef_data.schemas import row_schema
from caef_data.schemas.rows import VIEW_TEXT
from caef_data.tm.check.entries import HALT, PROBLEMS, decimal, number, problem, tape, written

CHECK = Path(caef_data.__file__).parent / "tm" / "check"
GOLDEN = Path(__file__).parent / "golden"
TASKS = sorted(PROBLEMS)
SIGNED = [task for task in TASKS if task not in ("reflection", "left_mask")]
DIALECTS = ("consistent", "published")
CALLS = {"REFLECTION": "reflection", "ADD": "add", "LEFT_MASK": "left_mask", "LESS_THAN": "less_than"}
CALLS["GREATER_THAN"] = "greater_than"
ALLOWED = {"caef_data.errors", "caef_data.tm.check"}  # besides the standard library
ROWS = Path(caef_data.__file__).parent / "pipelines" / "verify_rows.py"


def check_row(task: str, view: str, dialect: str, row: dict[str, Any]) -> str | None:
    """Return what is wrong with one row, or None."""
    found, _ = check_rows(task, view, dialect, {name: [row[name]] for name in row_schema(view).names}, {})
    return found[0][1] if found else None


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file of the checker imports."""
    names: set[str] = set()
    package = ["caef_data", *path.parent.relative_to(Path(caef_data.__file__).parent).parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            deeper = not node.module or module == "caef_data"  # `from . import rows` names modules
            names |= {f"{module}.{name.name}" for name in node.names} if deeper else {module}
    return names


def test_the_checker_shares_nothing_with_what_it_checks() -> None:
    files = [*sorted(CHECK.rglob("*.py")), ROWS]
    assert len(files) >= 3
    for path in files:
        for name in imports(path):
            allowed = name.split(".")[0] in sys.stdlib_module_names or any(
                name == one or name.startswith(f"{one}.") for one in ALLOWED
            )
            assert allowed, f"{path.name} imports {name}"
        called = {node.func.id for node in ast.walk(ast.parse(path.read_text())) if is_call(node)}
        assert not called & {"__import__", "import_module", "exec", "eval"}, path.name


def is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


@cache
def golden(task: str) -> tuple[dict[str, Any], ...]:
    with gzip.open(GOLDEN / f"{task}.jsonl.gz", "rt") as file:
        return tuple(json.loads(line) for line in file)


def common(record: dict[str, Any], prompt: str, completion: str) -> dict[str, Any]:
    a, b = record["a"], record["b"]
    return {
        "task": record["task"],
        "a": a,
        "b": b,
        "len_a": len(a),
        "len_b": len(b or ""),
        "variant": "any",
        "prompt": prompt,
        "completion": completion,
        "instruction": "Do the next step.",
    }


def one_step_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for step, (prompt, completion) in enumerate(record["steps"]):
        lines, at = completion.split("\n"), prompt.index(",") + 2
        called = CALLS[lines[2].split(",")[0]] if len(lines) > 3 else None
        extra = {"step": step, "n_steps": len(record["steps"]), "state": prompt[at : at + 2]}
        extra |= {"next_state": completion[at : at + 2], "call": called}
        rows.append(common(record, prompt, completion) | extra)
    return rows


def other_row(view: str, record: dict[str, Any]) -> dict[str, Any]:
    """A row of a view that is written from whole runs."""
    texts = [completion for _, completion in record["steps"]]
    ended = [text.removesuffix("\n") + "\n" for text in texts]
    row = common(record, record["steps"][0][0], texts[-1])
    if view == "full":
        return row | {"n_steps": len(texts), "trace": texts}
    if view == "scratchpad":
        return row | {"completion": "".join(ended)}
    if view == "commands":
        return row | {"completion": "".join(text.split("\n")[1] + "\n" for text in texts[:-1]) + ended[-1]}
    question, answer = record["aligner_out"][1].split("=")[0], record["aligner_out"][1].rpartition("=")[2]
    if view == "raw":
        question = record["aligner_in"][0]
        return row | {"prompt": question, "completion": answer}
    side = "in" if view == "aligner in" else "out"
    prompt, completion = record[f"aligner_{side}"]
    return row | {"prompt": prompt, "completion": completion, "direction": side}


def views(task: str) -> list[str]:
    return ["full", "scratchpad", "commands"] + (["raw", "aligner in", "aligner out"] if task in SIGNED else [])


def changes(text: str, rng: random.Random) -> str:
    """Flip, delete, insert, swap or double one character."""
    at = rng.randrange(len(text))
    kind = rng.randrange(4)
    other = rng.choice("0123456789| \n[]HEADq,:TrueFalse")
    if kind == 0:
        return text[:at] + other + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + (other if kind == 2 else text[at]) + text[at:]


# --- closed forms --------------------


@pytest.mark.parametrize("task", TASKS)
def test_golden_transitions_are_right(task: str) -> None:
    """What the published scripts wrote; sub and mul differ in the other dialect."""
    for record in golden(task):
        work = problem(task, record["a"], record["b"])
        assert not isinstance(work, str)
        assert work.n_steps == len(record["steps"]) > 1
        for step, (prompt, completion) in enumerate(record["steps"]):
            for dialect in DIALECTS[1:] if task in ("sub", "mul") else DIALECTS:
                assert work.prompt(step, dialect) == prompt
            assert all(work.completion(step, dialect) == completion for dialect in DIALECTS)
        assert (work.initial, work.halting) == (record["steps"][0][0], record["steps"][-1][1])


@pytest.mark.parametrize("task", TASKS)
def test_the_published_slips_are_not_consistent(task: str) -> None:
    wrong = False
    for record in golden(task):
        work = problem(task, record["a"], record["b"])
        assert not isinstance(work, str)
        wrong |= any(work.prompt(step, "consistent") != pair[0] for step, pair in enumerate(record["steps"]))
    assert wrong == (task in ("sub", "mul"))  # exactly the two composers whose published prompts are wrong


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, str, str | None]:
    task = draw(st.sampled_from(TASKS))
    lengths = [draw(st.integers(1, 120)) for _ in range(2)]
    digits = st.sampled_from("0123456789") if draw(st.booleans()) else st.sampled_from("089")
    a, b = (str(int("".join(draw(st.lists(digits, min_size=n, max_size=n))))) for n in lengths)
    if task == "reflection":
        a = "9" * max(len(a), len(b))
    if task == "sub" and int(a) < int(b):
        a, b = b, a
    if task in ("mul", "div") and b == "0":
        b = "3"
    return task, a, None if task == "left_mask" else b


@settings(max_examples=200, deadline=None)
@given(expressions(), st.data())
def test_checker_and_machines_agree_on_any_step(expression: tuple[str, str, str | None], data: st.DataObject) -> None:
    """Two accounts by different methods, also of steps beyond 64 bits, with Python integers deciding the answer."""
    task, a, b = expression
    work = problem(task, a, b)
    assert not isinstance(work, str)
    x, y = int(a), int(b or 0)
    operands = (x,) if b is None else (x, y)
    steps = [data.draw(st.integers(0, work.n_steps - 1)) for _ in range(2)]
    for step in (0, *steps, work.n_steps - 1):
        for dialect in DIALECTS:
            told = tm.transition(task, x, None if b is None else y, step, dialect=dialect)
            assert (work.prompt(step, dialect), work.completion(step, dialect)) == (told.prompt, told.completion)
            assert told.call == work.calls.get(told.next_state)
    answers = {
        "add": x + y,
        "sub": x - y,
        "mul": x * y,
        "equal": x == y,
        "greater_than": x > y,
        "less_than": x < y,
    }
    answers |= {"div": x // (y or 1)}
    if task in answers:
        assert work.answer == str(answers[task])
        assert tm.align_out(task, *operands) == (work.halting, work.question + work.answer)
        assert tm.align_in(work.question) == work.initial


@pytest.mark.parametrize("task", TASKS)
def test_whole_runs_of_small_operands_agree(task: str) -> None:
    """Every expression up to 12, and some of two digits: all borders of the machines."""
    pairs = [(a, b) for a in [*range(13), 90, 99, 100] for b in [*range(13), 90, 99, 100]]
    seen = 0
    for a, b in pairs if task != "left_mask" else [(a, None) for a in range(1_200)]:
        work = problem(task, str(a), None if b is None else str(b))
        if isinstance(work, str):
            continue
        seen += 1
        for dialect in DIALECTS:
            run = [(work.prompt(step, dialect), work.completion(step, dialect)) for step in range(work.n_steps)]
            operands = (a,) if b is None else (a, b)
            assert run == [(told.prompt, told.completion) for told in tm.transitions(task, *operands, dialect=dialect)]
    assert seen >= 20


# --- rows --------------------


@pytest.mark.parametrize("task", TASKS)
def test_golden_rows_are_right(task: str) -> None:
    rows = [row for record in golden(task) for row in one_step_rows(record)]
    columns = {name: [row[name] for row in rows] for name in row_schema("one_step").names}
    assert check_rows(task, "one_step", "published", columns, {}) == ([], len(rows))
    for view in views(task):
        name = view.split()[0]
        whole = [other_row(view, record) for record in golden(task)]
        columns = {column: [row[column] for row in whole] for column in row_schema(name).names}
        held = name in ("full", "scratchpad", "commands")
        assert check_rows(task, name, "published", columns, {}) == ([], held * len(rows))


@pytest.mark.parametrize("task", TASKS)
def test_a_changed_text_in_a_row_is_found(task: str) -> None:
    rng = random.Random(21)
    for _ in range(150):
        record = rng.choice(golden(task))
        cases = [("one_step", rng.choice(one_step_rows(record)))]
        cases += [(view.split()[0], other_row(view, record)) for view in views(task)]
        for view, row in cases:
            column = rng.choice(["prompt", "completion", "a", "b"])
            if row[column] is None:
                continue
            changed = row | {column: changes(row[column], rng)}
            if changed != row:
                message = check_row(task, view, "published", changed)
                assert message is not None, (view, column, row[column], changed[column])
            if view == "full":
                trace = list(row["trace"])
                at = rng.randrange(len(trace))
                trace[at] = changes(trace[at], rng)
                if trace != row["trace"]:
                    assert "trace" in (check_row(task, view, "published", row | {"trace": trace}) or "")


@pytest.mark.parametrize("task", TASKS)
def test_every_column_that_lies_is_found(task: str) -> None:
    record = next(record for record in golden(task) if len(record["a"]) > 2)
    for row in one_step_rows(record)[:6]:
        lies: dict[str, list[Any]] = {
            "a": ["", None, "0" + row["a"], row["a"][:-1] + "\u0663", "-" + row["a"], 12, "1" * 30],
            "b": ["", "x", 3],
            "prompt": [None, "", row["completion"]],
            "completion": [None, "", row["prompt"]],
            "step": [row["step"] + 1, row["step"] - 1, None, 10**30, "0"],
            "n_steps": [row["n_steps"] + 1, None],
            "state": ["q9", None, "qH"],
            "next_state": ["q9", None, "q0"],
            "call": ["max", ""],
        }
        in_columns = {"task", "len_a", "len_b", "variant", "instruction"}  # see test_forgeries.py
        assert {*lies} | in_columns == {*row_schema("one_step").names}
        for column, values in lies.items():
            for value in values:
                message = check_row(task, "one_step", "published", row | {column: value})
                assert message is not None, (column, value)
    full = other_row("full", record)
    for lie in (
        {"n_steps": None},
        {"n_steps": full["n_steps"] - 1},
        {"trace": None},
        {"trace": full["trace"][:-1]},
    ):
        assert check_row(task, "full", "published", full | lie) is not None
    if task in SIGNED:
        row = other_row("aligner in", record)
        assert "direction" in (check_row(task, "aligner", "published", row | {"direction": "up"}) or "")
        assert check_row(task, "aligner", "published", row | {"direction": "out"}) is not None
    else:
        assert "raw form" in (check_row(task, "raw", "published", full) or "")


@pytest.mark.parametrize(
    ("task", "a", "b", "words"),
    [
        ("sub", "3", "5", "a >= b"),
        ("mul", "3", "0", "b >= 1"),
        ("div", "3", "0", "b >= 1"),
        ("reflection", "98", "1", "nines"),
        ("reflection", "9", "10", "b <= a"),
        ("left_mask", "9", "1", "one operand"),
        ("add", "9", None, "operand b"),
        ("add", "007", "1", "leading zeros"),
        ("add", "9" * 1_000_000, "1", "1,000,000 digits"),
        ("add", "\u0661\u0662", "1", "decimal string"),
    ],
)
def test_operands_obey_the_law_of_their_task(task: str, a: str, b: str | None, words: str) -> None:
    found = problem(task, a, b)
    assert isinstance(found, str) and words in found and found.isascii() and len(found) < 300


def test_steps_beyond_64_bits_are_null() -> None:
    a, b = "7" * 100, "3" * 100
    work = problem("mul", a, b)
    assert not isinstance(work, str)
    step = 3 * 10**50
    prompt = work.prompt(step, "consistent")
    row = common({"task": "mul", "a": a, "b": b}, prompt, work.completion(step, "consistent"))
    row |= {"step": None, "n_steps": None, "state": "q3", "next_state": "q1", "call": "less_than"}
    assert check_row("mul", "one_step", "consistent", row) is None
    assert "n_steps" in (check_row("mul", "one_step", "consistent", row | {"n_steps": INT64_MAX}) or "")
    assert check_row("mul", "one_step", "consistent", row | {"step": 5}) is not None
    early = work.prompt(9, "consistent")
    row |= {"prompt": early, "completion": work.completion(9, "consistent")}
    assert "int64" in (check_row("mul", "one_step", "consistent", row) or "")
    assert check_row("mul", "one_step", "consistent", row | {"step": 9}) is None


def test_findings_name_the_row_and_the_place() -> None:
    rows = one_step_rows(golden("add")[-1])
    rows[3] = rows[3] | {"completion": rows[3]["completion"].replace("[C]", "[D]", 1)}
    columns = {name: [row[name] for row in rows] for name in row_schema("one_step").names}
    ((index, message),), _ = check_rows("add", "one_step", "published", columns, {})
    assert index == 3
    assert message.startswith("completion of step 3: line 1, column ")
    assert "expected 'C]" in message and "found 'D]" in message


@pytest.mark.parametrize("digits", [4_000, 4_300, 4_301, 12_000, 20_000])
def test_numbers_beyond_the_limit_of_python(digits: int) -> None:
    text = "1" + "7" * (digits - 1)
    value = number(text)
    assert value % 1000 == 777 and decimal(value) == text and decimal(value * 10) == text + "0"
    assert tape(value) == written(text) and len(written(text)) == 2 * digits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "\n" * 100_000,
        "ADD, q0, [HEAD1] " + "|1" * 1_000_000,
        "ADD, q0, [HEAD1] " + "|\u0661" * 10 + "[HEAD2] |1 [C] [OUTPUT]\nCMD: q1\n",
        "|" * 1_000_000,
        "MUL, q1, [HEAD1]|1 [HEAD2]|1 [COUNT]" + "|9" * 1_000_000 + " [OUTPUT]|1\nCMD [CALL] ADD, q1\n",
        "MUL, q1, [HEAD1]|2|1 [HEAD2]|9 [COUNT]|x [OUTPUT]|1\nCMD [CALL] ADD, q1\n",
        "DIV, q1, [HEAD1]|2|1 [HEAD2]|9 [COUNT]|1 [OUTPUT]" + "|9" * 1_000_000 + "\nCMD [CALL] ADD, q1\n",
        "\ud800",
    ],
)
def test_hostile_texts_are_refused_quickly(text: str) -> None:
    began = time.monotonic()
    for task in TASKS:
        for view in VIEW_TEXT:
            columns = row_schema(view).names
            row: dict[str, Any] = dict.fromkeys(columns, text) | {"a": "12", "b": "9", "step": None}
            message = check_row(task, view, "consistent", {name: row[name] for name in columns})
            assert message is not None and message.isascii() and len(message) < 400
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("task", ["mul", "div"])
def test_a_lie_about_a_run_without_end_is_told_at_once(task: str) -> None:
    """No more is computed than the row itself claims to hold."""
    a, b = ("9" * 100, "9" * 60) if task == "mul" else ("9" * 100, "7")
    work = problem(task, a, b)
    assert not isinstance(work, str)
    row = common({"task": task, "a": a, "b": b}, work.initial, work.halting)
    for view, extra in (("full", {"n_steps": work.n_steps, "trace": ["x"] * 5}), ("scratchpad", {}), ("commands", {})):
        message = check_row(task, view, "consistent", row | extra)
        assert message is not None and "bits" in message, message


def test_known_tasks() -> None:
    assert sorted(known_tasks()) == TASKS == sorted(tm.tasks())
    assert all(kind.name == task.upper() and HALT for task, kind in PROBLEMS.items())
