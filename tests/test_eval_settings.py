"""Settings of an evaluation: what options and a declaration's table [eval] say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from caef_data.errors import UserError
from caef_data.eval.settings import EvalSettings, eval_settings
from caef_data.pipelines.declaration import load_declaration

TASKS = 'name = "mine"\nmax = 3\n[[task]]\ntask = ["add", "sub"]\n'
TABLE = '[eval]\nadapters = "ckpt"\ntask = "sub"\nmode = ["one_step", "executor"]\nlimit = 5\nstrategy = "generate"\n'


def declared(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_declaration_holds_an_evaluation_and_options_change_it(tmp_path: Path) -> None:
    path = declared(tmp_path, TASKS + TABLE)
    held = EvalSettings(adapters="ckpt", task=("sub",), mode=("one_step", "executor"), limit=5, strategy="generate")
    assert eval_settings(path, {"data": None, "task": [], "limit": None}) == held
    changed = eval_settings(path, {"task": ["add"], "limit": 7, "strategy": "verify"})
    assert (changed.task, changed.limit, changed.strategy, changed.mode) == (("add",), 7, "verify", held.mode)


def test_the_same_work_is_the_same_whatever_the_order() -> None:
    one = EvalSettings(backend="oracle", task=("sub", "add", "sub"), mode=("executor", "one_step"))
    assert one == EvalSettings(backend="oracle", task=("add", "sub"), mode=("one_step", "executor", "one_step"))
    assert (len(one.task), len(one.mode)) == (2, 2)


def test_a_build_is_the_same_with_and_without_the_table(tmp_path: Path) -> None:
    plain = load_declaration(declared(tmp_path, TASKS)).identity()
    assert load_declaration(declared(tmp_path, TASKS + TABLE)).identity() == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TASKS, "no table [eval]"),
        (TASKS + "[eval]\n", "no table [eval]"),
        (TASKS + "[eval]\nadaptors = 'x'\n", "'adaptors' (did you mean 'adapters'?)"),
        (TASKS + "[eval]\nbackend = 'oracle'\nlimit = true\n", "limit is true"),
        (TASKS + "[eval]\nbackend = 'oracle'\nmode = [1]\n", "mine.toml, table [eval]"),
        (TASKS + "evil = 1\n" + TABLE, "evil"),
    ],
)
def test_declarations_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        eval_settings(declared(tmp_path, text), {})
    assert words in str(refusal.value)


def test_a_shipped_declaration_holds_no_evaluation() -> None:
    with pytest.raises(UserError, match=r"has no table \[eval\]"):
        eval_settings("smoke", {})


def test_a_baseline_has_no_use_for_the_modes_of_a_declaration(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TASKS + "[eval]\nadapters = 'ckpt'\nmode = 'process'\n")
    assert eval_settings(str(path), {"baseline": True}).mode == ()
    assert EvalSettings(backend="oracle", baseline=True).baseline  # a dry run needs no model
    assert eval_settings(str(path), {}).mode == ("process",)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"mode": ("one_stp",)}, "one_step"),
        ({"mode": 5}, "list of texts"),
        ({"task": ("ad",)}, "add"),
        ({"split": ["test"]}, "train, test, stress; one a run"),
        ({"split": "test,train"}, "train, test, stress; one a run"),
        ({"split": "tset", "expressions": "mine.txt"}, "train, test, stress, all; one a run"),
        ({"strategy": "x"}, "rollout"),
        ({"batch_tokens": 0}, "16"),
        ({"batch_tokens": True}, "whole number"),
        ({"limit": 0}, "1 or more"),
        ({"baseline": True, "base_model": "x", "mode": "process"}, "leave out --mode"),
        ({"data": ""}, "text"),
        ({"endpoint": "http://127.0.0.1:1"}, "openai"),
        ({"backend": "openai", "endpoint": "ftp://127.0.0.1", "adapters": "x"}, "no address"),
        ({"backend": "openai", "endpoint": "http://me:secret@host", "adapters": "x"}, "name or password"),
        ({"backend": "transformers"}, "--adapters"),
        ({"baseline": True, "backend": "transformers"}, "--base-model"),
    ],
)
def test_settings_that_are_refused(given: dict[str, Any], hint: str) -> None:
    with pytest.raises(UserError) as refusal:
        EvalSettings(**{"backend": "oracle", **given})
    assert hint in str(refusal.value)


def test_a_file_may_hold_an_evaluation_alone(tmp_path: Path) -> None:
    """As docs/evaluating.md shows it; it was refused for having no task to build."""
    path = tmp_path / "mine.toml"
    for more in ("", 'name = "mine"\n'):
        path.write_text(f'{more}[eval]\nbackend = "oracle"\ntask = "subtraction"\njson = true\n')
        held = eval_settings(str(path), {})
        assert (held.task, held.json) == (("sub",), True)
    path.write_text("[eval]\nbackend = 'oracle'\nmode = 'proces'\n")
    with pytest.raises(UserError) as refusal:
        eval_settings(str(path), {"split": None})
    assert str(refusal.value).startswith("mode is \"proces\" (did you mean 'process'?)")
    with pytest.raises(UserError, match='--mode is "proces"'):
        eval_settings(str(path), {"mode": ["proces"]})
    path.write_text("[eval]\njsn = true\n")
    with pytest.raises(UserError, match="did you mean 'json'") as refusal:
        eval_settings(str(path), {})
    assert "as_json" not in str(refusal.value)
