"""What a card says of how a dataset was built makes the dataset again, whatever was built into the folder since."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caef_data.pipelines.card_merge import END_MARK
from caef_data.pipelines.declaration import load_declaration, parse_declaration, rebuild_command
from caef_data.pipelines.rebuild import declaration_text
from caef_data.pipelines.spelling import as_toml
from caef_data.pipelines.verify import verify
from caef_data.tm import machine
from caef_data.tm.formats.rules import Rule, RuleTable
from caef_data.tm.machine import REGISTRY

from .commands import call, call_json

MACHINE = '[[machine]]\nname = "mine"\nformat = "{}"\ntable = """{}"""\n'
MACHINES = {
    "beaver": MACHINE.format("bbchallenge", "1RB1LB_1LA1RZ"),
    "two tapes": MACHINE.format("turingmachinesimulator", "init: go\ngo,a,_\ngo,_,long,>,-\ngo,_,_\ndone,a,_,-,<\n"),
    "strange": MACHINE.format(
        "turingmachine.io",
        "blank: ' '\nstart state: ''''''''\n"
        "table:\n  '''''''':\n    \U0001f600: {write: ' ', R}\n    ' ': {N: '~'}\n  '~':\n",
    ),
}
SMALL = 'min = 1\nmax = 2\nnum = 2\nviews = ["one_step"]\n'


def built(folder: Path, *words: object) -> str:
    code, said = call("build", *words, "--out", folder, "--workers", 1)
    return said if code else ""


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.parquet")}


def commands_of(folder: Path) -> list[str]:
    return re.findall(r"^    caef-data build (.+)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)


def make_again(folder: Path, fresh: Path) -> None:
    """Do what a card says in another folder, and compare all files with those that are there."""
    fresh.mkdir(exist_ok=True)
    for name, text in re.findall(r"where `(.+?)` is\n\n```toml\n(.*?)```\n", (folder / "README.md").read_text(), re.S):
        (fresh / name).write_text(text, "utf-8")
    for command in commands_of(folder):
        words = [fresh / word if word.endswith(".toml") else word for word in shlex.split(command)]
        assert built(fresh / "data", *words) == "", command
    assert files(fresh / "data") == files(folder)
    assert verify(folder, workers=1).ok


@pytest.mark.parametrize("amount", [("--num", 1), ("--rows", 400)], ids=["num", "rows"])
def test_a_task_that_is_replaced_leaves_a_command_for_the_others(tmp_path: Path, amount: tuple[str, object]) -> None:
    built(tmp_path / "data", "--task", "add,sub", "--max", 2, *amount)
    built(tmp_path / "data", "--task", "add", "--max", 3, "--num", 2, "--overwrite")
    said = call("info", tmp_path / "data")[1]
    sub = "sub.toml" if amount[0] == "--rows" else "--task sub --min 1 --max 2 --num 1"
    assert f"made by: caef-data build {sub} --out" in said and "--task add --task sub" not in said
    make_again(tmp_path / "data", tmp_path / "fresh")


def test_a_shipped_declaration_of_which_a_task_is_replaced(tmp_path: Path) -> None:
    built(tmp_path / "data", "smoke")
    built(tmp_path / "data", "--task", "add", "--max", 1, "--num", 1, "--overwrite")
    assert "smoke" not in commands_of(tmp_path / "data")
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    assert {entry["command"] for entry in manifest["configs"]["sub-raw"].values()} != {"caef-data build smoke"}


@pytest.mark.parametrize("then", ['views = ["full"]\n', 'views = ["full"]\nsplits = ["train"]\n', ""])
def test_a_file_that_asks_for_other_views_later_is_shown_as_it_was_each_time(tmp_path: Path, then: str) -> None:
    mine = tmp_path / "mine.toml"
    for views in ('views = ["one_step"]\n', then, 'views = ["raw"]\nsplits = ["test"]\n'):
        mine.write_text(f'max = 2\nnum = 1\n{views}task = ["add", "sub"]\n')
        assert built(tmp_path / "data", mine) == ""
    make_again(tmp_path / "data", tmp_path / "fresh")


@pytest.mark.parametrize("text", MACHINES.values(), ids=MACHINES)
def test_a_machine_of_ones_own_stands_in_the_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(SMALL + text, "utf-8")
    assert built(tmp_path / "data", tmp_path / "mine.toml") == ""
    make_again(tmp_path / "data", tmp_path / "fresh")


def test_a_machine_that_comes_with_caef_data_needs_no_file(tmp_path: Path) -> None:
    words = ["--task", "palindrome", "--min", "1", "--max", "3", "--num", "1"]
    assert call_json("plan", *words, "--json")["command"] == shlex.join(["caef-data", "build", *words])
    assert built(tmp_path / "data", *words) == "" and commands_of(tmp_path / "data") == [shlex.join(words)]
    own = load_declaration("machines").tasks[:1]  # another machine of that name
    text = MACHINES["beaver"].replace("mine", own[0].task)
    other = replace(parse_declaration(text), source=None)
    assert rebuild_command(other).endswith(".toml")
    load_declaration("machines")  # for other tests


def test_a_machine_that_no_table_makes_is_told_in_words(tmp_path: Path) -> None:
    family = '[[machine]]\nname = "some"\nfamily = "random"\nstates = 2\nsymbols = 2\ncount = 2\nsplit = "machine"\n'
    (tmp_path / "mine.toml").write_text(SMALL + family)
    assert built(tmp_path / "data", tmp_path / "mine.toml") == ""
    text = (tmp_path / "data/README.md").read_text("utf-8")
    assert "where `mine.toml` declares the machines `some_1`" in text and "```toml" not in text


NAMES = [("`", "b" * 60), (END_MARK, "b"), ("```", "' #: {}"), ("true", "~"), ("'''", "\\")]


@pytest.mark.parametrize("names", NAMES)
def test_machines_with_strange_names_are_written_exactly_or_not_at_all(names: tuple[str, str]) -> None:
    rules = {(names[0], ("0",)): Rule(("1",), (1,), names[1]), (names[1], ("#",)): Rule(("0",), (-1,), names[0])}
    table = RuleTable(names[0], "0", rules)
    spec = {"name": "odd", "words": None, "output": None, "side": None, "example": None, "table": table.canonical}
    settings = {"task": "odd", "max": 2, "views": ["one_step"], "splits": ["train"]}
    notes: dict[str, Any] = {"settings": settings, "machine": spec}
    manifest = {
        "tasks": {"odd": notes},
        "configs": {"odd-one_step": {"train": {"command": "caef-data build odd.toml"}}},
    }
    text = "\n".join(declaration_text("caef-data build odd.toml", manifest))
    assert (END_MARK in text, "```toml" in text) == (False, names[0] != END_MARK)
    if "```toml" in text:
        parse_declaration(text.partition("```toml\n")[2].rpartition("```")[0])
        assert machine("odd").identity()["machine"] == table.identity
        REGISTRY.pop("odd")
    for key in spec:  # what others wrote
        for other in ({}, [], 5, None, "\ud800"):
            notes["machine"] = {**spec, key: other}
            "\n".join(declaration_text("caef-data build odd.toml", manifest)).encode()


def test_expressions_of_ones_own_are_named_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "mix.txt").write_text("12+9=\n12-7=\n")
    (tmp_path / "mine.toml").write_text('expressions = "mix.txt"\nsplits = ["train", "test", "stress"]\n')
    assert built(tmp_path / "data", tmp_path / "mine.toml") == ""
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh/mix.txt").write_bytes((tmp_path / "mix.txt").read_bytes())
    make_again(tmp_path / "data", tmp_path / "fresh")
    said = built(tmp_path / "data", "--task", "add", "--max", 2, "--overwrite")
    assert "add and sub were built of one file of expressions" in said and "--out" in said
    assert "sub" in json.loads((tmp_path / "data/manifest.json").read_text())["tasks"]


def test_toml_keeps_every_character() -> None:
    import tomllib

    for text in ("\U0001f600", 'a"\\\x7f\n\u2028é'):
        assert tomllib.loads(f"a = {as_toml(text)}") == {"a": text}
