"""Any Turing machine as a task: its text, its engine beside the plain interpreter, and what a user does with it."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data.errors import UserError
from caef_data.tm.columns import Operands
from caef_data.tm.formats import read_table
from caef_data.tm.formats.families import random_machines
from caef_data.tm.formats.rules import Rule, RuleTable
from caef_data.tm.machine import Rows
from caef_data.tm.turing import TuringMachine, run_to_end

GOLDEN = sorted((Path(__file__).parent / "golden/machines").glob("*.json"))
BEAVERS = {  # steps and marks: S(n), and the ones left by the machine that makes so many steps
    "1RB1LB_1LA1RZ": (6, 4),
    "1RB1RZ_1LB0RC_1LC1LA": (21, 5),
    "1RB1LB_1LA0LC_1RZ1LD_1RD0RA": (107, 13),
}
CHAMPION = "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"


def turing(name: str, form: str, table: str, **more: Any) -> TuringMachine:
    return TuringMachine(name, read_table(form, table, "test")[0], **more)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_entries_are_those_of_the_page(path: Path) -> None:
    held = json.loads(path.read_text())
    machine = turing(held["machine"]["name"], held["machine"]["format"], held["machine"]["table"])
    word, entries = held["word"], held["entries"]
    steps = list(machine.transitions(word))
    assert [steps[0].prompt, *(step.completion for step in steps)] == entries
    assert [machine.initial(word), machine.halted(word), machine.num_steps(word)] == [
        entries[0],
        entries[-1],
        len(steps),
    ]
    assert [machine.successor(entry) for entry in entries[:-1]] == entries[1:]
    batch = machine.batch(Operands(machine.column([word]), None), "consistent")
    rows = batch.every()
    assert batch.prompts(rows).text.to_pylist() == entries[:-1]
    assert batch.completions(rows).text.to_pylist() == entries[1:]
    assert batch.initial().to_pylist() + batch.halted().to_pylist() == [entries[0], entries[-1]]


@pytest.mark.parametrize("text", BEAVERS)
def test_known_busy_beavers(text: str) -> None:
    machine = turing("beaver", "bbchallenge", text)
    end = run_to_end(machine.table, machine.start(""), 1_000)
    assert (end.steps, end.marks, end.halted, end.state) == (*BEAVERS[text], True, "Z")
    batch = machine.batch(Operands(machine.column([""]), None), "consistent")
    assert batch.num_steps.tolist() == [BEAVERS[text][0]]


def test_the_champion_of_five_states_is_a_plain_loop() -> None:
    machine = turing("champion", "bbchallenge", CHAMPION)
    tape, place, state = dict[int, str](), 0, "A"
    rows = CHAMPION.split("_")
    for _ in range(1_000_000):
        at = 3 * int(tape.get(place, "0"))
        write, move, then = rows["ABCDE".index(state)][at : at + 3]
        tape[place], place, state = write, place + (1 if move == "R" else -1), then
    now = machine.start("")
    end = run_to_end(machine.table, now, 1_000_000)
    assert (end.steps, end.halted, end.state) == (1_000_000, False, state)
    ones = {at - now.origin for at, symbol in enumerate(now.cells[0]) if symbol == "1"}
    assert ones == {at for at, symbol in tape.items() if symbol == "1"}
    assert now.heads[0] - now.origin == place


def both(machine: TuringMachine, words: list[str], most: int) -> None:
    """Hold the engine to the interpreter: lengths, all entries, the answer."""
    column = machine.column(words)
    lengths = machine.run_lengths(Operands(column, None), most)
    runs = []
    for word, length in zip(words, lengths.tolist(), strict=True):
        end = run_to_end(machine.table, machine.start(word), most)
        assert length == (end.steps if end.halted else -1), word
        runs.append(list(machine.transitions(word)) if end.halted else [])
    halting = [row for row, steps in enumerate(runs) if steps]
    if not halting:
        return
    batch = machine.batch(Operands(column.take(np.array(halting)), None), "consistent")
    rows = batch.every()
    made = [runs[row] for row in halting]
    order = np.random.default_rng(7).permutation(len(rows))
    shuffled = batch.take(rows, order)
    steps = [made[e][i] for e, i in zip(shuffled.expression.tolist(), shuffled.index.tolist(), strict=True)]
    prompts, completions = batch.prompts(shuffled), batch.completions(shuffled)
    assert prompts.text.to_pylist() == [step.prompt for step in steps]
    assert completions.text.to_pylist() == [step.completion for step in steps]
    assert [prompts.states[code] for code in prompts.state.tolist()] == [step.state for step in steps]
    assert [completions.states[code] for code in completions.state.tolist()] == [step.next_state for step in steps]
    few = Rows(shuffled.expression[:3], shuffled.index[:3])
    assert batch.prompts(few).text.to_pylist() == [step.prompt for step in steps[:3]]
    if machine.output is not None:
        from caef_data.tm.render import RowGroup, Template, render

        answers = render([RowGroup(batch.all, Template("{x}"), {"x": batch.answer()})], len(halting)).to_pylist()
        assert answers == [machine.answer(words[row]) for row in halting]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(2, 3), st.sampled_from([None, "tape", "state"]))
def test_engine_and_interpreter_agree_on_random_machines(
    seed: int, states: int, symbols: int, output: str | None
) -> None:
    [table] = random_machines(states, symbols, 1, seed)
    machine = TuringMachine("drawn", table, output=output)
    letters = "123456789"[: symbols - 1]
    rng = np.random.default_rng(seed)
    words = ["", *("".join(rng.choice(list(letters), rng.integers(1, 9))) for _ in range(12))]
    both(machine, words, 300)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_engine_and_interpreter_agree_on_the_golden_machines(path: Path) -> None:
    held = json.loads(path.read_text())["machine"]
    for output in ("tape", "state"):
        machine = turing(held["name"], held["format"], held["table"], output=output)
        symbols = machine.table.symbols[1:]
        between = " " if any(len(symbol) > 1 for symbol in symbols) else ""
        words = [
            between.join(symbols[(row + k) % len(symbols)] for k in range(row)) for row in (*range(9), 37, 40)
        ]  # two outlive the others
        both(machine, words, 200)


def test_what_is_said_to_halt_halts() -> None:
    """Random machines, most of them with few rules: the bound of those that have one holds for every short word."""
    random, bounded = np.random.default_rng(7), 0
    for _ in range(3_000):
        rules = {}
        for state, symbol in product("ABC", "_01"):
            if random.random() < 0.8:
                then = "ABCZ"[random.integers("ABC".index(state), 4)]
                rules[state, (symbol,)] = Rule(
                    (str(random.choice(["_", "0", "1"])),), (int(random.integers(-1, 2)),), then
                )
        if not rules:
            continue
        machine = TuringMachine("some", RuleTable("A", "_", rules))
        for length in range(5):
            if most := machine.max_num_steps(length, 0):
                bounded += 1
                words = ["".join(word) for word in product(machine.symbols, repeat=length)]
                steps = machine.run_lengths(Operands(machine.column(words), None), 10 * most)
                assert len(words) == 0 or 1 <= steps.min() <= steps.max() <= most, machine.table.canonical
    assert bounded > 100


def test_an_answer_with_a_blank_of_several_characters_is_told_apart() -> None:
    """The blank is written __ here, since _ is another symbol: without blanks between, __ would be two of these."""
    table = "blank: ' '\nstart state: s\ntable:\n  s: {_: R, a: {write: ' ', R: end}}\n  end:\n"
    machine = turing("gap", "turingmachine.io", table, output="tape")
    both(machine, ["_a_", "__a__"], 50)
    assert machine.answer("_a_") == "_ __ _"


def test_a_run_of_many_steps_needs_the_tape_alone() -> None:
    machine = turing("champion", "bbchallenge", CHAMPION)
    batch = machine.batch(Operands(machine.column([""]), None), "consistent")
    rows = Rows(np.zeros(2, np.int64), np.array([0, 50_000]))
    now = machine.start("")
    run_to_end(machine.table, now, 50_000)
    text = batch.prompts(rows).text.to_pylist()[1]
    told, command = machine.parse(text)
    assert (told.state, command) == (now.state, machine.command(machine.table.rules[now.state, now.read], now.read))
    blank = machine.table.blank
    assert "".join(told.cells[0]).strip(blank) == "".join(now.cells[0]).strip(blank)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("BB2, A, [HEAD]|0\nCMD [HEAD] 1, [HEAD] UP, B\n", "is no action"),
        ("BB2, A, [HEAD]|0\nCMD [HEAD] 1, [HEAD] RIGHT, Q\n", "state of the machine"),
        ("BB2, Q, [HEAD]|0\nCMD [HEAD] 1, B\n", "a state of bb2"),
        ("BB2, A, |0[HEAD]\nCMD [HEAD] 1, B\n", "[HEAD] before a symbol"),
        ("BB2, A, [HEAD]|7\nCMD [HEAD] 1, B\n", "[HEAD] before a symbol"),
        ("BB2, A, [HEAD]|0\nNo command to execute. Halt state.\n", "nothing follows"),
        ("BB2, A\n", "two lines"),
    ],
)
def test_what_is_no_entry_has_no_successor(entry: str, told: str) -> None:
    machine = turing("bb2", "bbchallenge", "1RB1LB_1LA1RZ")
    with pytest.raises(UserError, match="nothing follows") as error:
        machine.successor(entry)
    assert told in str(error.value) and str(error.value.next_step).startswith("caef-data show --task bb2 '' --in FILE")


def test_what_is_no_word_is_named_as_it_is() -> None:
    with pytest.raises(UserError, match="the word must be a text, not 11\n"):
        turing("bb2", "bbchallenge", "1RB1LB_1LA1RZ").operand("a", 11)


def test_no_symbol_is_read_as_a_move() -> None:
    for symbol in ("LEFT", "RIGHT"):
        with pytest.raises(UserError, match="cannot be a symbol"):
            turing("moves", "turingmachinesimulator", f"name: m\ninit: a\n\na,x\na,{symbol},>\n")


def test_rules_of_different_tapes_are_no_machine() -> None:
    rules = [["a", ["x"], ["x"], [1], "a"], ["b", ["x", "x"], ["x", "x"], [1, 1], "a"]]
    with pytest.raises(UserError, match="2 numbers of tapes"):
        RuleTable.of({"start": "a", "blank": "_", "rules": rules})


def test_off_the_track_the_command_is_carried_out() -> None:
    machine = turing("bb2", "bbchallenge", "1RB1LB_1LA1RZ")
    entry = "BB2, A, |1[HEAD]|0\nCMD [HEAD] LEFT, B\n"
    assert machine.successor(entry) == "BB2, B, [HEAD]|1|0\nCMD [HEAD] RIGHT, Z\n"
