"""The independent checker: its grammar, its executor, its closed forms and its verdicts on rows."""

import gzip
import json
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data.tm.check.closed import decimal, number, tape, written
from caef_data.tm.check.closed_composers import problem
from caef_data.tm.check.execute import ExecutionError, check_transition, decide, execute, locate, result_of
from caef_data.tm.check.grammar import MACHINES, ParseError, parse, unparse
from caef_data.tm.check.rows import COLUMNS, INT64_MAX, check_row, check_rows, count_transitions, known_tasks
from caef_data.tm.check.successor import successor_of

GOLDEN = Path(__file__).parent / "golden"
TASKS = sorted(MACHINES)
SIGNED = [task for task in TASKS if task not in ("reflection", "left_mask")]
CALLS = {"REFLECTION": "reflection", "ADD": "add", "LEFT_MASK": "left_mask", "LESS_THAN": "less_than"}
CALLS["GREATER_THAN"] = "greater_than"


@cache
def golden(task: str) -> tuple[dict[str, Any], ...]:
    with gzip.open(GOLDEN / f"{task}.jsonl.gz", "rt") as file:
        return tuple(json.loads(line) for line in file)


def steps(task: str) -> list[tuple[str, str]]:
    return [(prompt, completion) for record in golden(task) for prompt, completion in record["steps"]]


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
        after, lines = parse(completion), completion.split("\n")
        called = CALLS[lines[2].split(",")[0]] if len(lines) > 3 else None
        extra = {"step": step, "n_steps": len(record["steps"]), "state": parse(prompt).state}
        extra |= {"next_state": after.state, "call": called}
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


# --- the grammar --------------------


@pytest.mark.parametrize("task", TASKS)
def test_text_parse_text_is_the_identity(task: str) -> None:
    texts = {text for pair in steps(task) for text in pair}
    for record in golden(task):
        texts |= {record["aligner_in"][1], record["aligner_out"][0]} if record["aligner_in"] else set()
    assert len(texts) > 500
    for text in texts:
        assert unparse(parse(text)) == text


def test_a_configuration_says_what_stands_where() -> None:
    entry = parse(
        "MUL, q3, [HEAD1]|5|4 [HEAD2]|3 [COUNT]|1 [OUTPUT]|0|9\nCMD [CALL] ADD, q1\n"
        "ADD, qH,  |1[HEAD1] |1[HEAD2] [C]0 |2\nNo command to execute. Halt state.\n"
    )
    assert (entry.machine, entry.state, entry.count, entry.output) == ("MUL", "q3", "|1", "|0|9")
    assert [t.number for t in entry.tapes] == ["45", "3"]
    assert entry.command == ("[CALL] ADD", "q1") and entry.ended
    assert entry.call is not None and entry.call.carry == "0" and entry.call.tapes[0].head == 1
    assert result_of(entry) == "|2"


COMMAND = "CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1"
ADD = f"ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]\n{COMMAND}\n"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 1, 1, "machine's name"),
        ("\n", 1, 1, "machine's name"),
        ("ADDD, q1,  ", 1, 1, "one of the machines ADD"),
        (ADD.replace("q1,  |", "q7,  |"), 1, 6, "one of ADD's states q0, q1, qH, found 'q7'"),
        (ADD.replace("q1,  |", "q1, |"), 1, 10, "expected ' ', found '|2[HEAD1]"),
        (ADD.replace("|2[HEAD1]", "2[HEAD1]"), 1, 11, "expected '[HEAD1]', found '2[HEAD1]"),
        (ADD.replace("[C]1", "[C]2"), 1, 36, "a carry of 0 or 1, found '2 |1"),
        (ADD.replace("[OUTPUT]\n", "[OUTPUT] \n"), 1, 48, "the end of the line, found ' '"),
        (ADD.replace("CMD: ", "CMD "), 2, 4, "expected ': ', found ' [C]"),
        (ADD.replace("RIGHT, q1", "RIGTH, q1"), 2, 41, "an action of ADD, found '[HEAD1] RIGTH"),
        (ADD.replace("RIGHT, q1", "RIGHT, q2"), 2, 56, "one of ADD's states"),
        (ADD[:-1], 2, 58, "a newline after the command"),
        (ADD + "\n", 3, 1, "nothing more"),
        (ADD.split("\n")[0], 2, 1, "a second line"),
        ("ADD, q0, [HEAD1] [HEAD2] |1 [C] [OUTPUT]\nCMD: q1\n", 1, 10, "at least one digit in operand 1"),
        ("ADD, qH,  |1[HEAD1] |1[HEAD2] [C]0 |2\nCMD: q1\n", 2, 1, "Halt state."),
        ("SUB, q1, [HEAD1]|1 [HEAD2]|1 \nCMD [CALL] REFLECTION, q2\n", 3, 1, "the command of REFLECTION"),
        ("SUB, q1, [HEAD1]|1 [HEAD2]|1\nCMD q1\n", 1, 29, "expected ' ', found the end of the line"),
    ],
)  # fmt: skip
def test_parse_errors_say_what_was_expected_where(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    error = caught.value
    assert (error.line, error.column) == (line, column), str(error)
    assert words in str(error)


# --- execution --------------------


@pytest.mark.parametrize("task", TASKS)
def test_golden_transitions_are_right(task: str) -> None:
    dialects = ("published",) if task in ("sub", "mul") else ("published", "consistent")
    successor = successor_of(task)
    for record in golden(task):
        work = problem(task, record["a"], record["b"])
        assert not isinstance(work, str)
        assert work.n_steps == len(record["steps"])
        for step, (prompt, completion) in enumerate(record["steps"]):
            for dialect in dialects:
                assert work.prompt(step, dialect) == prompt
                assert check_transition(task, prompt, completion, dialect) is None
            assert locate(parse(prompt)) == step
            assert successor(prompt) == completion == decided(prompt)
        assert work.halting == record["steps"][-1][1]


def decided(prompt: str) -> str:
    entry = parse(prompt)
    return decide(execute(entry), result_of(entry) if entry.call else "").text()


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


@settings(max_examples=300, deadline=None)
@given(expressions(), st.data())
def test_three_accounts_agree_on_any_step(expression: tuple[str, str, str | None], data: st.DataObject) -> None:
    """Careful execution, its fast twin, and closed forms, with Python integers deciding the answer."""
    task, a, b = expression
    work = problem(task, a, b)
    assert not isinstance(work, str)
    step = data.draw(st.integers(0, work.n_steps - 1))
    dialect = data.draw(st.sampled_from(["consistent", "published"]))
    prompt = work.prompt(step, dialect)
    completion = successor_of(task)(prompt)
    assert check_transition(task, prompt, completion, dialect) is None
    after = work.prompt(step + 1, "consistent") if step + 1 < work.n_steps else work.halting
    if task in ("sub", "mul", "div") and step + 1 < work.n_steps:
        assert completion.split("\n")[:2] == after.split("\n")[:2]
    else:
        assert completion == after
    x, y = int(a), int(b or 0)
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


def test_a_head_cannot_leave_its_tape() -> None:
    text = "EQUAL, q1,  |0[HEAD1] |0[HEAD2] [OUTPUT]True\nCMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1\n"
    with pytest.raises(ExecutionError, match="behind its operand"):
        execute(parse(text))
    with pytest.raises(ExecutionError, match="halted"):
        execute(parse("EQUAL, qH,  |0[HEAD1] |0[HEAD2] True\nNo command to execute. Halt state.\n"))
    with pytest.raises(ExecutionError, match="halting entry"):
        execute(parse(steps("mul")[0][1]))


@pytest.mark.parametrize("task", TASKS)
def test_the_published_slips_are_not_consistent(task: str) -> None:
    wrong = sum(check_transition(task, *pair, "consistent") is not None for pair in steps(task))
    expected = {"sub", "mul"}  # exactly the two composers whose published prompts are wrong
    assert (wrong > 0) == (task in expected)


@pytest.mark.parametrize("task", TASKS)
def test_a_changed_transition_is_refused(task: str) -> None:
    rng, pairs = random.Random(20), steps(task)
    for _ in range(400):
        pair = list(rng.choice(pairs))
        side = rng.randrange(2)
        changed = changes(pair[side], rng)
        if changed == pair[side]:
            continue
        pair[side] = changed
        # an operand changed in a first prompt would be another problem: then the completion must tell
        message = check_transition(task, pair[0], pair[1], "published")
        assert message is not None and message.isascii() and len(message) < 400, pair


# --- rows --------------------


@pytest.mark.parametrize("task", TASKS)
def test_golden_rows_are_right(task: str) -> None:
    rows = [row for record in golden(task) for row in one_step_rows(record)]
    columns = {name: [row[name] for row in rows] for name in COLUMNS["one_step"]}
    assert check_rows(task, "one_step", "published", columns) == []
    assert count_transitions("one_step", columns) == len(rows)
    for view in views(task):
        name = view.split()[0]
        whole = [other_row(view, record) for record in golden(task)]
        columns = {column: [row[column] for row in whole] for column in COLUMNS[name]}
        assert check_rows(task, name, "published", columns) == []
        held = name in ("full", "scratchpad", "commands")
        assert count_transitions(name, columns) == held * len(rows)


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
            "task": ["ADD", "max", None],
            "a": ["", None, "0" + row["a"], row["a"][:-1] + "\u0663", "-" + row["a"], 12, "1" * 30],
            "b": ["", "x", 3],
            "len_a": [row["len_a"] + 1, None, str(row["len_a"])],
            "len_b": [99, "1"],
            "variant": [None, 3],
            "instruction": [None, 3],
            "prompt": [None, "", row["completion"]],
            "completion": [None, "", row["prompt"]],
            "step": [row["step"] + 1, row["step"] - 1, None, 10**30, "0"],
            "n_steps": [row["n_steps"] + 1, None],
            "state": ["q9", None, "qH"],
            "next_state": ["q9", None, "q0"],
            "call": ["max", ""],
        }
        assert set(lies) == set(COLUMNS["one_step"])
        for column, values in lies.items():
            for value in values:
                message = check_row(task, "one_step", "published", row | {column: value})
                assert message is not None, (column, value)
        assert check_row(task, "one_step", "published", {k: v for k, v in row.items() if k != "call"}) is not None
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
    row = common({"task": "mul", "a": a, "b": b}, prompt, successor_of("mul")(prompt))
    row |= {"step": None, "n_steps": None, "state": "q3", "next_state": "q1", "call": "less_than"}
    assert check_row("mul", "one_step", "consistent", row) is None
    assert "n_steps" in (check_row("mul", "one_step", "consistent", row | {"n_steps": INT64_MAX}) or "")
    assert check_row("mul", "one_step", "consistent", row | {"step": 5}) is not None
    early = work.prompt(9, "consistent")
    row |= {"prompt": early, "completion": successor_of("mul")(early)}
    assert "fits int64" in (check_row("mul", "one_step", "consistent", row) or "")
    assert check_row("mul", "one_step", "consistent", row | {"step": 9}) is None


def test_findings_name_the_row_and_the_place() -> None:
    rows = one_step_rows(golden("add")[-1])
    rows[3] = rows[3] | {"completion": rows[3]["completion"].replace("[C]", "[D]", 1)}
    columns = {name: [row[name] for row in rows] for name in COLUMNS["one_step"]}
    ((index, message),) = check_rows("add", "one_step", "published", columns)
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
        "ADD, q1,  " + "[HEAD1]" * 100_000,
        "\ud800",
    ],
)
def test_hostile_texts_are_refused_quickly(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert str(caught.value).isascii() and len(str(caught.value)) < 300
    for task in TASKS:
        assert check_transition(task, text, text) is not None
        row = {name: text for name in COLUMNS["one_step"]} | {"a": "12", "b": "9", "step": None}
        assert check_row(task, "one_step", "consistent", row) is not None
    assert time.monotonic() - began < 5


def test_a_count_of_a_million_digits_does_not_hang() -> None:
    text = "MUL, q1, [HEAD1]|1 [HEAD2]|1 [COUNT]" + "|9" * 1_000_000 + " [OUTPUT]|1\n"
    row = dict.fromkeys(COLUMNS["one_step"], text) | {"task": "mul", "a": "1", "b": "2", "step": None}
    began = time.monotonic()
    assert check_row("mul", "one_step", "consistent", row) is not None
    halt = "LESS_THAN, qH,  |1[HEAD1] |1[HEAD2] False\nNo command to execute. Halt state.\n"
    assert check_transition("mul", text + "CMD [CALL] LESS_THAN, q2\n" + halt, "x") is not None
    assert time.monotonic() - began < 5


def test_known_tasks() -> None:
    assert sorted(known_tasks()) == TASKS
