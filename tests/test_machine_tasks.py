"""Turing machines of a declaration as tasks: built, verified, shown and evaluated like the nine."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import caef_data
from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.settings import SPLITS
from caef_data.tests.commands import call, call_json, contents
from caef_data.tests.forging import Forger
from caef_data.tm.formats import read_table
from caef_data.tm.formats.families import canonical_form, machine_side
from caef_data.tm.machine import REGISTRY

INCREMENT = """
[[machine]]
name = "increment"
format = "turingmachine.io"
input = "1(0|1)*"
output = "tape"
table = '''
blank: ' '
start state: right
table:
  right:
    [1,0]: R
    ' ': {L: carry}
  carry:
    1: {write: 0, L}
    [0,' ']: {write: 1, L: done}
  done:
'''
"""
LONG = """
[[machine]]
name = "long_symbols"
format = "turingmachinesimulator"
output = "tape"
table = '''
name: long
init: s
accept: end

s,10
s,ab,>

s,ab
s,10,>

s,_
end,_,-
'''
"""
DRAWN = '[[machine]]\nname = "drawn"\nfamily = "random"\nstates = 2\nsymbols = 2\ncount = 2\n'
SHORT = "max = 9\nnum = 12\nnum_test = 3\n"


def declared(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rows(folder: Path, config: str, split: str) -> list[dict[str, Any]]:
    return [row for path in sorted((folder / config).glob(f"{split}-*")) for row in pq.read_table(path).to_pylist()]


def test_a_machine_is_a_task_like_add(tmp_path: Path) -> None:
    mine = declared(tmp_path, f'{SHORT}views = ["one_step", "full", "raw", "scratchpad", "commands"]\n{INCREMENT}')
    for workers in (1, 2):
        code, said = call("build", mine, "--out", tmp_path / f"w{workers}", "--workers", workers)
        assert code == 0, said
    data = tmp_path / "w2"
    assert contents(data) == contents(tmp_path / "w1")
    code, said = call("verify", data, "--workers", "1")
    assert code == 0, said
    assert "walked step by step from the rules" in said
    for row in rows(data, "increment-full", "test"):
        assert row["b"] is None
        assert (len(row["a"]), 0) == (row["len_a"], row["len_b"])
        run = caef_data.transitions("increment", row["a"])
        assert row["trace"] == [step.completion for step in run]
        assert row["n_steps"] == len(row["trace"])
        assert row["prompt"].startswith(f"INCREMENT, right, [HEAD]|{'|'.join(row['a'])}\n")
    for row in rows(data, "increment-raw", "train"):
        assert row["prompt"] == f"{row['a']}="
        assert int(row["completion"], 2) == int(row["a"], 2) + 1
    words = {split: {row["a"] for row in rows(data, "increment-one_step", split)} for split in ("train", "test")}
    assert words["train"] and words["test"] and not words["train"] & words["test"]
    for row in rows(data, "increment-one_step", "train"):
        assert caef_data.successor(row["prompt"]) == row["completion"]
    scratchpad = rows(data, "increment-scratchpad", "test")[0]
    trace = [step.completion for step in caef_data.transitions("increment", scratchpad["a"])]
    assert scratchpad["completion"] == "".join(trace)


def test_what_is_forged_is_found(tmp_path: Path) -> None:
    mine = declared(tmp_path, f'{SHORT}views = ["one_step"]\n{INCREMENT}')
    call("build", mine, "--out", tmp_path / "data", "--workers", 1)

    def another(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[0]["completion"] = rows[0]["completion"].replace("|1", "|0", 1)
        return rows

    Forger(tmp_path / "data").change("increment-one_step", "train", another)
    code, said = call("verify", tmp_path / "data", "--workers", "1")
    assert code == 1
    assert "completion of step" in said


def test_a_manifest_with_other_rules_is_found(tmp_path: Path) -> None:
    mine = declared(tmp_path, f'{SHORT}views = ["one_step"]\n{INCREMENT}')
    call("build", mine, "--out", tmp_path / "data", "--workers", 1)
    forger = Forger(tmp_path / "data")
    manifest = forger.manifest()
    rules = manifest["tasks"]["increment"]["machine"]["table"]["rules"]
    rules[0][2] = ["0"] if rules[0][2] == ["1"] else ["1"]
    REGISTRY.pop("increment")
    forger.save(manifest)
    REGISTRY.pop("increment", None)
    code, said = call("verify", tmp_path / "data", "--workers", "1")
    assert code == 1
    assert "identity" in said and "each text is what its machine writes: NO" in said


@pytest.mark.parametrize(
    "broken", [{}, {"start": 1, "blank": "0", "rules": []}, {"start": "A", "blank": "0", "rules": 5}]
)
def test_a_manifest_whose_machine_is_none_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    mine = declared(tmp_path, f'{SHORT}views = ["one_step"]\n{INCREMENT}')
    call("build", mine, "--out", tmp_path / "data", "--workers", 1)
    path = tmp_path / "data/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tasks"]["increment"]["machine"]["table"] = broken
    path.write_text(json.dumps(manifest))
    REGISTRY.pop("increment")
    code, said = call("verify", tmp_path / "data")
    assert (code, "cannot be understood" in said) == (2, True), said
    for words in (("show", "--in", tmp_path / "data", "--task", "increment", "1"), ("eval", "--backend", "oracle")):
        more = ("--data", tmp_path / "data", "--out", tmp_path / "results") if words[0] == "eval" else ()
        code, said = call(*words, *more)
        assert (code, "cannot be understood: increment" in said) == (2, True), said


def test_symbols_of_several_characters(tmp_path: Path) -> None:
    mine = declared(tmp_path, f'{SHORT}views = ["one_step", "raw"]\n{LONG}')
    assert call("build", mine, "--out", tmp_path / "data", "--workers", 1)[0] == 0
    assert call("verify", tmp_path / "data", "--workers", 1)[0] == 0
    for row in rows(tmp_path / "data", "long_symbols-raw", "train"):
        assert len(row["a"].split(" ")) == row["len_a"]
        assert row["completion"] == row["a"].replace("10", "x").replace("ab", "10").replace("x", "ab")


def test_the_oracle_answers_in_every_mode_of_a_machine(tmp_path: Path) -> None:
    mine = declared(tmp_path, SHORT + INCREMENT)
    call("build", mine, "--out", tmp_path / "data", "--workers", 1)
    REGISTRY.pop("increment")
    for strategy in ("verify", "rollout"):
        words = ["eval", "--backend", "oracle", "--data", tmp_path / "data", "--out", tmp_path / strategy, "--json"]
        found = call_json(*words, "--strategy", strategy, "--limit", "4")
        assert {row["mode"] for row in found["accuracy"]} == {"one_step", "executor"}
        assert all(row["accuracy"] == 1 for row in found["accuracy"])


RUNS_ON = """
max_steps = 50
max = 3
splits = ["train"]
[[machine]]
name = "on"
format = "turingmachine.io"
input = "[02]+"
table = '''
blank: ' '
start state: s
table:
  s:
    0: R
    2: {R: t}
  t:
    0: {R: s}
    [2, ' ']: R
'''
"""


def test_runs_that_do_not_halt_are_left_out_and_counted(tmp_path: Path) -> None:
    mine = declared(tmp_path, RUNS_ON)  # behind a word that ends in 2 it runs on to the right
    code, said = call("build", mine, "--out", tmp_path / "data", "--workers", 1)
    assert code == 0
    left_out = sum(word[-1] == "2" for length in range(1, 4) for word in product("02", repeat=length))
    assert f"on: {left_out} of 14 train words do not halt within 50 steps" in said
    assert {row["a"][-1] for row in rows(tmp_path / "data", "on-one_step", "train")} == {"0"}
    assert call("verify", tmp_path / "data", "--workers", 1)[0] == 0


def test_a_family_is_split_by_machines(tmp_path: Path) -> None:
    family = '[[machine]]\nname = "drawn"\nfamily = "random"\nstates = 3\nsymbols = 2\ncount = 30\nsplit = "machine"\n'
    mine = declared(tmp_path, f'max = 5\nnum = 4\nmax_steps = 200\nviews = ["one_step"]\n{family}')
    code, said = call("build", mine, "--out", tmp_path / "data", "--workers", 1)
    assert code == 0, said
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for config, splits in manifest["configs"].items():
        [split] = splits
        table = caef_data.tm.machine(config.partition("-")[0]).table  # type: ignore[attr-defined]
        assert machine_side(table) == split
        sides[split].add(canonical_form(table).identity)
    assert sides["train"] and sides["test"] and not sides["train"] & sides["test"]
    assert call("verify", tmp_path / "data", "--workers", 1)[0] == 0
    manifest["tasks"]["drawn_01"]["machine"]["side"] = {"train": "test", "test": "train"}[
        manifest["tasks"]["drawn_01"]["machine"]["side"]
    ]
    (tmp_path / "data/manifest.json").write_text(json.dumps(manifest))
    for name in [name for name in REGISTRY if name.startswith("drawn")]:
        REGISTRY.pop(name)
    code, said = call("verify", tmp_path / "data")
    assert code == 2
    assert "belongs to" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[machine]]\nname = "x"', "format with table or file"),
        ('[[machine]]\nname = "add"\nformat = "bbchallenge"\ntable = "1RB1LB_1LA1RZ"', "'add' is a task of caef-data"),
        ('[[machine]]\nname = "X"\nformat = "bbchallenge"\ntable = "1RB1LB_1LA1RZ"', "cannot be the name"),
        ('[[machine]]\nname = "x"\nformat = "bbchalenge"\ntable = "1RB1LB_1LA1RZ"', "did you mean 'bbchallenge'"),
        ('[[machine]]\nname = "x"\nformat = "bbchallenge"\ntable = "1RB1LB_1LA1R"', "machine x"),
        ('[[machine]]\nname = "x"\nformat = "bbchallenge"\nfile = "nosuch"', "cannot be read"),
        ('[[machine]]\nname = "x"\nformat = "bbchallenge"\ninput = "1(1"\ntable = "1RB1LB_1LA1RZ"', "input"),
        ('[[machine]]\nname = "x"\nformat = "bbchallenge"\ninput = "7+"\ntable = "1RB1LB_1LA1RZ"', "7"),
        ('[[machine]]\nname = "x"\nformat = "bbchallenge"\noutput = "tap"\ntable = "1RB1LB_1LA1RZ"', "mean 'tape'"),
        ('[[machine]]\nname = "x"\nformat = "bbchallenge"\nexample = "7"\ntable = "1RB1LB_1LA1RZ"', "example is '7'"),
        ('[[machine]]\nname = "x"\nfomat = "bbchallenge"', "did you mean 'format'"),
        ('[[machine]]\nname = "x"\nfamily = "random"\nstates = 2\nsymbols = 2', "a family"),
        ('[[machine]]\nname = "x"\nfamily = "random"\nstates = 2\nsymbols = 2\ncount = 0', "count is 0"),
        (f"{INCREMENT}{INCREMENT}", "two machines are called 'increment'"),
        (f'{DRAWN}{INCREMENT.replace("increment", "drawn_1")}', "two machines are called 'drawn_1'"),
        (f'{INCREMENT.replace("increment", "drawn")}{DRAWN}', "two machines are called 'drawn'"),
        ('splits = ["stress"]\n[[machine]]\nname = "x"\nformat = "bbchallenge"\ntable = "1RB1LB_1LA1RZ"', "no split"),
        ('[machine]\nname = "x"', "[[machine]]"),
    ],
)  # fmt: skip
def test_bad_machines_leave_nothing(tmp_path: Path, text: str, told: str) -> None:
    code, said = call("build", declared(tmp_path, f"max = 3\n{text}"), "--out", tmp_path / "data")
    assert code == 2
    assert told in said
    assert not (tmp_path / "data").exists()


def test_what_differs_of_a_machine_is_named(tmp_path: Path) -> None:
    """It was called another version of caef-data."""
    text = 'min = 1\nmax = 2\nnum = 4\n[[machine]]\nname = "m1"\nformat = "bbchallenge"\ntable = "1RB1LB_1LA1RZ"\n'
    assert call("build", declared(tmp_path, text), "--out", tmp_path / "data", "--workers", 1)[0] == 0
    for other, what in (
        (text.replace("1RZ", "0RZ"), "1 of the machine's rules (the first: state 'B', read '1')"),
        (f'{text}input = "1+"\n', "the machine's input None -> '1+'"),
        (f'{text}output = "tape"\n'.replace("4", "5"), "num 4 -> 5, the machine's output None -> 'tape'"),
    ):
        code, said = call("build", declared(tmp_path, other), "--out", tmp_path / "data")
        assert code == 2 and f"m1 stands in this folder with other settings: {what}\n" in said, said
    assert call("build", declared(tmp_path, f'{text}example = "1"\n'), "--out", tmp_path / "data")[0] == 0


def test_an_edited_machine_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    twin = 'min = 0\nmax = 0\nsplits = ["train"]\nsteps = "all"\n[[machine]]\nname = "twin"\nformat = "bbchallenge"\n'
    tables = ("1RB1LB_1LA1RZ", "1RB1RZ_1LB0RC_1LC1LA")
    first, second = (declared(tmp_path, f'{twin}table = "{table}"', f"{table}.toml") for table in tables)
    for out in ("one", "two"):
        assert call("build", first, "--out", tmp_path / out, "--workers", 1)[0] == 0
    stale = caef_data.plan(first)
    code, said = call("build", second, "--out", tmp_path / "one", "--workers", 1)
    assert (code, "stands in this folder with other settings: 5 of the machine's rules" in said) == (2, True), said
    assert call("build", second, "--out", tmp_path / "one", "--workers", 1, "--overwrite")[0] == 0
    assert len(rows(tmp_path / "one", "twin-one_step", "train")) == 21
    for folder, steps in (("one", 21), ("two", 6), ("one", 21)):
        assert call("verify", tmp_path / folder, "--workers", 1)[0] == 0
        assert len(list(caef_data.transitions("twin", ""))) == steps
        step = next(caef_data.transitions("twin", ""))
        assert caef_data.successor(step.prompt) == step.completion
    with pytest.raises(UserError, match="another one by now"):
        build(stale, tmp_path / "three", workers=1)


def test_the_split_of_a_word_does_not_depend_on_the_others(tmp_path: Path) -> None:
    sides = []
    for name, words in (("some", "1(0|1)*"), ("all", "(0|1)*")):
        text = f'max = 7\nnum = 200\nnum_test = 200\nviews = ["one_step"]\n{INCREMENT.replace("1(0|1)*", words)}'
        assert call("build", declared(tmp_path, text), "--out", tmp_path / name, "--workers", 1)[0] == 0
        found = {split: {row["a"] for row in rows(tmp_path / name, "increment-one_step", split)} for split in SPLITS}
        sides.append({word: split for split, own in found.items() for word in own})
    some, every = sides
    assert len(some) == 127 and some.keys() < every.keys()
    assert {word: every[word] for word in some} == some
    assert sum(split == "test" for split in every.values()) > 10


def test_a_manifest_whose_machine_runs_on_for_ever_ends(tmp_path: Path) -> None:
    mine = declared(tmp_path, f'{SHORT}max_steps = 300\nviews = ["one_step"]\n{INCREMENT}')
    call("build", mine, "--out", tmp_path / "data", "--workers", 1)
    path = tmp_path / "data/manifest.json"
    manifest = json.loads(path.read_text())
    rules = manifest["tasks"]["increment"]["machine"]["table"]["rules"]
    [rule] = [rule for rule in rules if rule[:2] == ["right", ["_"]]]
    rule[3:] = [[1], "right"]
    path.write_text(json.dumps(manifest))
    code, said = call("verify", tmp_path / "data", "--workers", 1)
    assert (code, "has the identity" in said) == (1, True), said
    rules.append(rule)
    path.write_text(json.dumps(manifest))
    code, said = call("verify", tmp_path / "data", "--workers", 1)
    assert (code, "has two rules for '_'" in said) == (2, True), said


def test_every_command_takes_the_machine_of_a_dataset_as_its_task(tmp_path: Path) -> None:
    call("build", declared(tmp_path, SHORT + INCREMENT + LONG), "--out", tmp_path / "data", "--workers", 1)
    for name in ("increment", "long_symbols"):
        REGISTRY.pop(name)
    words = ["eval", "--backend", "oracle", "--data", tmp_path / "data", "--out", tmp_path / "results", "--json"]
    assert {row["task"] for row in call_json(*words, "--task", "increment")["accuracy"]} == {"increment"}
    code, said = call(*words, "--task", "palindrome")  # not every task that is there
    assert (code, "palindrome one_step is left out" in said) == (2, True), said
    REGISTRY.pop("palindrome")
    code, said = call("adapters", "--task", "palindrome")
    assert (code, said.split()) == (0, ["executors/palindrome"])
    code, said = call("build", "--task", "palindrome", "--max", "5", "--out", tmp_path / "own", "--workers", 1)
    assert code == 0, said
    assert call("verify", tmp_path / "own", "--workers", 1)[0] == 0


NEVER = """
[[machine]]
name = "never"
format = "turingmachine.io"
output = "tape"
input = "(x|y)*y(x|y)*"
table = '''
blank: " "
start state: a
table:
  a:
    [x, " "]: {R: a}
    y: {write: x, L: b}
  b:
'''
"""


def test_a_machine_that_does_not_halt_on_the_blank_tape_is_evaluated(tmp_path: Path) -> None:
    """Which adapters its runs ask was told by an example, the blank tape: the evaluation ended there."""
    call("build", declared(tmp_path, SHORT + NEVER), "--out", tmp_path / "data", "--workers", 1)
    words = ["eval", "--backend", "oracle", "--data", tmp_path / "data", "--out", tmp_path / "results", "--json"]
    found = {row["mode"]: row for row in call_json(*words)["accuracy"]}
    assert found["executor"]["correct"] == found["executor"]["n"] > 0


def test_a_declaration_that_gives_no_rows_says_why(tmp_path: Path) -> None:
    code, said = call("plan", declared(tmp_path, '[[machine]]\nname = "on"\nformat = "bbchallenge"\ntable = "1RA1RA"'))
    assert (code, "do not halt within 10,000 steps" in said, "--max-steps" in said) == (2, True, True), said


def test_machines_are_listed_with_what_they_do(tmp_path: Path) -> None:
    found = {row["name"]: row for row in call_json("machines", "--json")}
    for name, steps, marks in (("busy_beaver_2", 6, 4), ("busy_beaver_3", 21, 5), ("busy_beaver_4", 107, 13)):
        row = found[name]
        assert (row["steps"], row["marks"], row["state"], row["halted"]) == (steps, marks, "Z", True)
    assert found["binary_increment"]["state"] == "done"
    code, said = call("machines")
    assert "busy_beaver_4" in said and "107" in said
    code, said = call("machines", declared(tmp_path, 'task = "add"'))
    assert (code, "brings no machine" in said) == (2, True)


def test_runs_are_shown(tmp_path: Path) -> None:
    code, said = call("show", "--task", "palindrome", "abba")
    assert code == 0, said
    assert "halts after 15 steps in state accept" in said
    assert len(call_json("show", "--task", "palindrome", "abba", "--json")["steps"]) == 15
    code, said = call("show", "--task", "busy_beaver_4", "")
    assert "107 steps" in said and " 107 " in said
    code, said = call("show", "--task", "unary_addition", "1" * 300 + "+" + "1" * 300)
    assert code == 0 and said.rstrip().endswith("... and so on"), said
    code, said = call("show", "--task", "palindrome", "abc")
    assert (code, "'c' is no input symbol" in said) == (2, True), said
    champion = '[[machine]]\nname = "champion"\nformat = "bbchallenge"\ntable = "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"'
    mine = declared(tmp_path, f"min = 0\nmax = 0\n{champion}")
    code, said = call("show", "--in", mine, "--task", "champion", "--json", "")
    assert (code, "does not halt within 10,000 steps" in said) == (2, True), said


def test_files_stand_beside_the_declaration(tmp_path: Path) -> None:
    (tmp_path / "beaver.txt").write_text("1RB1LB_1LA1RZ\n")
    text = 'min = 0\nmax = 0\nsplits = ["train"]\nsteps = "all"\n[[machine]]\nname = "beaver"\nformat = "bbchallenge"\n'
    mine = declared(tmp_path, f'{text}file = "beaver.txt"\n')
    assert call("build", mine, "--out", tmp_path / "data", "--workers", 1)[0] == 0
    assert [row["a"] for row in rows(tmp_path / "data", "beaver-one_step", "train")] == [""] * 6
    assert call("verify", tmp_path / "data", "--workers", 1)[0] == 0


def test_python_takes_the_same(tmp_path: Path) -> None:
    table = {"name": "beaver", "format": "bbchallenge", "table": "1RB1LB_1LA1RZ"}
    built = caef_data.build({"min": 0, "max": 0, "splits": ["train"], "machine": [table]}, tmp_path / "data", workers=1)
    assert [one.rows for one in built] == [6]
    assert caef_data.verify(tmp_path / "data", workers=1).ok
    assert len(list(caef_data.transitions("beaver", ""))) == 6


def test_read_table_of_a_format_is_what_the_docs_say() -> None:
    table, example = read_table("bbchallenge", "1RB1LB_1LA1RZ", "here")
    assert (table.states, table.symbols, example) == (("A", "B", "Z"), ("0", "1"), None)
