"""Declarations: what they accept, what they refuse and how they say it, and the identities they give."""

import ast
import dataclasses
import inspect
import itertools
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from caef_data.errors import UserError
from caef_data.pipelines import versions
from caef_data.pipelines.budget import Budget
from caef_data.pipelines.declaration import (
    from_flags,
    load_declaration,
    parse_declaration,
    rebuild_command,
    shipped_declarations,
)
from caef_data.pipelines.settings import DATA_KEYS, KEYS, VIEWS, Declaration, TaskSettings

NINE = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask")


def refused(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_declaration(text, "my.toml")
    return str(caught.value)


def refused_flags(*tasks: str, **given: object) -> str:
    with pytest.raises(UserError) as caught:
        from_flags(tasks, **given)
    return str(caught.value)


# Identities


def test_identities_are_pinned() -> None:
    """They name every dataset ever built: they change only with a version and a line in CHANGELOG.md."""
    assert TaskSettings(task="sub").identity() == "a46fd546ffbfaf10"
    assert TaskSettings(task="sub").config_identity("one_step", "train") == "f55fbb733c948e09"
    mul = TaskSettings(task="mul", min=2, max=7, num=50, num_test=3, seed=7, dialect="published", balance=False)
    assert mul.identity() == "bcb2f2410fde4d6b"
    assert {name: load_declaration(name).identity() for name in shipped_declarations()} == {
        "machines": "a84814750a97b383",
        "paper": "0be1ce412ac9787f",
        "smoke": "17b634b9f57b48e6",
        "stress": "9ef005ee4c5a8c5a",
    }


def test_every_field_is_documented_and_marked() -> None:
    """A new field changes the data, and so the pinned identities, unless it is named here."""
    assert set(KEYS) - set(DATA_KEYS) == {"splits", "views", "max_len"}
    for owner in (TaskSettings, Declaration):
        body = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
        for one, after in itertools.pairwise(body):
            if isinstance(one, ast.AnnAssign):
                assert isinstance(after, ast.Expr), ast.unparse(one)
                assert isinstance(after.value, ast.Constant)


OTHER = {
    "task": "add", "min": 2, "max": 99, "num": 21, "num_test": 3, "splits": ("stress",), "views": ("raw",),
    "seed": 43, "dialect": "published", "steps": "all", "balance": False, "max_steps": 9_999,
    "rows_per_shard": 5, "max_len": 999, "budget": Budget(asked=10, rows=10),
}  # fmt: skip


@pytest.mark.parametrize("field", [key for key in KEYS if key in OTHER or key not in ("expressions", "allow_test")])
def test_identity_follows_the_mark(field: str) -> None:
    base = TaskSettings(task="sub")
    changed = dataclasses.replace(base, **{field: OTHER[field]})
    assert getattr(changed, field) != getattr(base, field)
    assert (changed.identity() != base.identity()) == (field in DATA_KEYS)


@pytest.mark.parametrize("constant", ["TEXT_VERSION", "SPLIT_VERSION", "SAMPLING_VERSION"])
def test_versions_are_part_of_the_identity(constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = TaskSettings(task="sub").identity()
    monkeypatch.setattr(versions, constant, 999)
    assert TaskSettings(task="sub").identity() != before


def test_identity_ignores_spelling_and_order() -> None:
    assert TaskSettings(task="subtraction", num_test=2).identity() == TaskSettings(task="sub").identity()
    a = parse_declaration("views = ['raw', 'full']\ntask = ['add', 'sub']")
    b = parse_declaration("name = 'x'\nviews = ['full', 'raw']\ntask = ['sub', 'add']")
    assert a.identity() == b.identity()
    assert a.identity() != parse_declaration("views = ['raw']\ntask = ['add', 'sub']").identity()


# Settings


def test_defaults() -> None:
    sub = TaskSettings(task="sub")
    assert (sub.min, sub.max, sub.num, sub.num_test, sub.seed, sub.max_steps) == (1, 100, 20, 2, 42, 10_000)
    assert (sub.dialect, sub.steps, sub.balance, sub.rows_per_shard) == ("consistent", "sampled", True, None)
    assert [TaskSettings(task="sub", num=num).num_test for num in (1, 9, 10, 29, 200)] == [1, 1, 1, 2, 20]


def test_views_of_each_split() -> None:
    sub = TaskSettings(task="sub", splits=("test", "train"))
    assert sub.splits == ("train", "test")
    assert sub.views_of("train") == ("one_step", "aligner")
    assert sub.views_of("test") == ("one_step", "full", "aligner", "raw")
    assert sub.views_of("stress") == ()
    assert sub.left_out() == ()
    assert TaskSettings(task="sub", splits=("stress",)).views_of("stress") == sub.views_of("test")
    chosen = TaskSettings(task="sub", views=("commands", "raw", "full"))
    assert chosen.views_of("train") == chosen.views_of("test") == ("full", "raw", "commands")
    assert sub.configs()[:3] == (("one_step", "train"), ("aligner", "train"), ("one_step", "test"))


@pytest.mark.parametrize("helper", ["reflection", "left_mask"])
def test_helpers_have_no_raw_text(helper: str) -> None:
    default = TaskSettings(task=helper)
    assert default.views_of("train") == ("one_step",)
    assert default.views_of("test") == ("one_step", "full")
    assert default.left_out() == ("aligner", "raw")
    assert TaskSettings(task=helper, splits=("train",)).left_out() == ("aligner",)
    assert TaskSettings(task=helper, views=("full", "raw")).left_out() == ("raw",)
    assert TaskSettings(task=helper, views=("full",)).left_out() == ()


def test_settings_are_frozen_and_survive_a_round_trip() -> None:
    declaration = from_flags(["sub", "mul"], views=["raw"], num=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        declaration.tasks[0].min = 3  # type: ignore[misc]
    assert TaskSettings.of(declaration.tasks[0].to_dict()) == declaration.tasks[0]
    assert pickle.loads(pickle.dumps(declaration)) == declaration
    with pytest.raises(UserError, match="unknown setting 'tusk'"):
        TaskSettings.of({"tusk": 1})


@pytest.mark.parametrize(
    ("line", "message", "allowed"),
    [
        ('min = "1"', 'min is "1"', "a whole number from 1"),
        ("min = true", "min is true", "a whole number from 1"),
        ("min = 1.0", "min is 1.0", "a whole number from 1"),
        ("num = 1979-05-27", 'num is "1979-05-27"', "1 to 1,000,000,000"),
        ("min = 7", "min is 7, larger than max = 5", "1 to 5"),
        ("max = -1", "max is -1", "from 1"),
        ("num = 0", "num is 0", "from 1 to 1,000,000,000"),
        ("num_test = -1", "num_test is -1", "from 0 to"),
        ("num_test = 0", "num_test is 0, but the test split is asked for", "num_test from 1"),
        ("seed = 9223372036854775808", "seed is 9223372036854775808", "0 to 9,223"),
        ("seed = 0x" + "f" * 5_000, "seed is about 10^6020", "0 to 9,223"),
        ("max_steps = 1_000_001", "max_steps is 1000001", "1 to 1,000,000"),
        ("max_len = 10_001", "max_len is 10001", "1 to 10,000"),
        ("balance = 1", "balance is 1", "true or false"),
        ('dialect = "publihsed"', "did you mean 'published'?", "consistent, published"),
        ('steps = "every"', 'steps is "every"', "sampled, all"),
        ('splits = "train"', "splits is \"train\" (did you mean 'train'?)", 'as a list: ["train"]'),
        ("splits = []", "splits is []", "train, test, stress"),
        ('splits = ["train", "tset"]', "splits holds \"tset\" (did you mean 'test'?)", "train, test, stress"),
        ('views = ["raw", "raw"]', 'views is ["raw", "raw"]', "at most once"),
        ("views = [1]", "views holds 1", "one_step"),
        ("mni = 1", "unknown setting 'mni' (did you mean 'min'?)", "min, max, num"),
        ("num-test = 1", "did you mean 'num_test'?", "num_test"),
        ('split = ["train"]', "did you mean 'splits'?", "splits"),
        ('repo = "a/b"', "unknown setting 'repo'", "above the first [[task]]"),
    ],
)
def test_every_bad_setting_is_refused_with_its_line(line: str, message: str, allowed: str) -> None:
    head = 'name = "x"  # min = 9\nmax = 5\n\n[[task]]\ntask = "add"\n\n[[task]]\ntask = "sub"\n# note\n'
    error = refused(f"{head}{line}\n")
    assert message in error
    assert allowed in error
    assert "my.toml, line" in error
    assert "10" in error.splitlines()[1]


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("", "no task is given", "my.toml"),
        ("task = []", "no task is given", "my.toml, line 1"),
        ("task = 5", "task is 5, which is no task", "my.toml, line 1"),
        ("\n[task]\nmin = 1", 'task is {"min": 1}, which is no task', "my.toml"),
        ("task = [{task = 'sub'}, 3]", "which is no task", "my.toml, line 1"),
        ("\n[[task]]\nmin = 2", "no task is given", "my.toml"),
        ("[[task]]\n\ntask = 'sbu'", "did you mean 'sub'?", "my.toml, line 3"),
        ("[[task]]\ntask = ['sub', 4]", "task is 4", "my.toml, line 2"),
        ("task = 'add'\nname = 'a b'", 'name is "a b"', "my.toml, line 2"),
        ("repo = 'paper'\ntask = 'add'", 'repo is "paper"', "my.toml, line 1"),
        ("repo = 'me/a..b'\ntask = 'add'", 'repo is "me/a..b"', "my.toml, line 1"),
        ("repo = \"me/paper\\n\"\ntask = 'add'", "repo is", "my.toml, line 1"),
        ("description = 3\ntask = 'add'", "description is 3", "my.toml, line 1"),
        ("description = \"\\u0007\"\ntask = 'add'", "description is", "my.toml, line 1"),
        (
            "[[task]]\ntask = 'add'\n[[task]]\ntask = ['sub', 'addition']",
            "task add is given twice",
            "my.toml, lines 2, 4",
        ),
        ("[[task]]\ntask = 'all'\n[[task]]\ntask = 'sub'", "task sub is given twice", "my.toml, lines 2, 4"),
        ("min = 0\n[[task]]\ntask = 'add'\nmin = 1", "min is 0", "my.toml, lines 1, 4"),
        (
            "max = 4\n[[task]]\ntask = 'add'\nmin = 6",
            "min is 6, larger than max = 4",
            "my.toml, lines 1, 4",
        ),
        (
            "[[task]]\ntask = 'add'\nmax = 1001",
            "max is 1001 digits, above the ceiling of 1,000",
            "my.toml, line 3",
        ),
        ("x = 1\nx = 2", "this is not TOML", "my.toml, line 2"),
        ("task = 'add'\nmin = ٣", "this is not TOML", "my.toml, line 2"),
        ("task = 'add'\nmin = [1,\n\n", "this is not TOML", "my.toml, line 2"),
        ("task = 'add'\nnum = " + "9" * 5_000, "this is not TOML: Exceeds the limit", "my.toml"),
        ("a = " + "[" * 5_000, "nested too deeply", "my.toml"),
    ],
)
def test_bad_files_are_refused_with_their_line(text: str, message: str, place: str) -> None:
    error = refused(text)
    assert message in error
    assert error.splitlines()[1] == f"  where:   {place}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("description = '''\nmin = 3\n'''\n[[task]]\ntask = 'add'\nmax = 0", "my.toml, line 6"),
        ("[[ task ]]\r\n\"task\" = 'add'\r\n 'min' = 0 # x\r\n[eval]\r\nmax = 7", "my.toml, line 3"),
        ("[[task]]\ntask = 'add'\n[[task]]\ntask = 'sub'\nviews = [\n 'raw',\n ['x'],\n]", "my.toml, line 5"),
    ],
)
def test_all_lines_of_a_key_are_named(text: str, place: str) -> None:
    assert refused(text).splitlines()[1] == f"  where:   {place}"


def test_ceiling_can_be_raised_on_purpose() -> None:
    raised = parse_declaration("task = 'add'\nmax = 1200\nmax_len = 1200")
    assert raised.tasks[0].max == 1200
    assert "max_len in a declaration raises that" in refused("task = 'add'\nmax = 1200")
    assert "max_len in a declaration raises that" in refused_flags("add", max=1200)
    assert "unknown setting '--max-len'" in refused_flags("add", max_len=2000)
    assert rebuild_command(raised) == "caef-data build declaration.toml"


def test_whole_traces_must_fit() -> None:
    assert "mul with --steps all has runs of 29996 transitions" in refused_flags("mul", steps="all", max=4)
    assert "a smaller --max, --max-steps up to 1,000,000, or --steps sampled" in refused_flags("div", steps="all")
    assert from_flags(["mul"], steps="all", max=4, max_steps=29996).tasks[0].max == 4
    assert from_flags(["add", "sub"], steps="all").tasks[1].steps == "all"
    assert "add with --steps all has runs of 102" in refused_flags("add", steps="all", max_steps=50)


def test_num_test_may_be_zero_where_only_train_is_built() -> None:
    assert TaskSettings(task="add", num_test=0, splits=("train",)).num_test == 0
    for splits in (("test",), ("train", "stress")):
        with pytest.raises(UserError, match="num_test is 0"):
            TaskSettings(task="add", num_test=0, splits=splits)


def test_nothing_to_build_is_refused() -> None:
    assert "nothing to build" in refused_flags("left_mask", views=["raw", "aligner"])
    both = from_flags(["left_mask", "sub"], views=["raw"])
    assert both.tasks[0].configs() == ()


# Files


def test_shipped_declarations() -> None:
    assert shipped_declarations() == ("machines", "paper", "smoke", "stress")
    for name in shipped_declarations():
        declaration = load_declaration(name)
        assert declaration.name == name
        assert declaration.description
        assert {task.task for task in declaration.tasks} == set(declaration.machines or NINE)
        assert rebuild_command(declaration) == f"caef-data build {name}"
    paper = load_declaration("paper").tasks
    assert {(t.min, t.max, t.num, t.splits, t.views) for t in paper} == {(1, 100, 20, ("train", "test"), None)}
    assert all(
        task.views == tuple(view for view in VIEWS if view != "slips") for task in load_declaration("smoke").tasks
    )
    assert {task.splits for task in load_declaration("stress").tasks} == {("stress",)}


def test_defaults_of_a_file_hold_for_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "my runs.toml"
    path.write_bytes(
        b"\xef\xbb\xbfnum = 50\r\nmax = 9\r\nrepo = 'me/runs'\r\n"
        b"[[task]]\r\ntask = ['subtraction', 'add']\r\n[[task]]\r\ntask = 'mul'\r\nmax = 7\r\n"
    )
    declaration = load_declaration(str(path))
    assert [(t.task, t.num, t.max) for t in declaration.tasks] == [
        ("sub", 50, 9),
        ("add", 50, 9),
        ("mul", 50, 7),
    ]
    assert (declaration.name, declaration.repo) == ("my-runs", "me/runs")
    assert rebuild_command(declaration) == "caef-data build 'my runs.toml'"
    assert parse_declaration("task = 'all'").tasks == tuple(from_flags(["all"]).tasks)


def test_unknown_names_and_unreadable_files(tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(UserError) as caught:
            load_declaration(name)
        return str(caught.value)

    assert "did you mean 'paper'?" in message("papr")
    assert "caef-data build --task sub" in message("sub")
    for name in ("", "..", "../datasets/paper", "/", "a\nb", "x" * 10_000, "\ud800", "paper\0"):
        assert "there is no declaration" in message(name)
    for name in ("none.toml", "a\0b.toml", "\ud800.toml", "x" * 10_000 + ".toml", "../../no/../such.toml"):
        assert "does not exist" in message(name) or "cannot be read" in message(name)
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert "is not a file" in message(str(folder))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"name = 'a'\ndescription = '\xe9'")
    assert "not UTF-8" in message(str(latin))
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * 1_000_001)
    assert "too large" in message(str(huge))
    (tmp_path / "empty.toml").touch()
    assert "no task is given" in message(str(tmp_path / "empty.toml"))


def test_import_is_light() -> None:
    """`caef-data --help` and messages about bad input must not wait for numpy or polars."""
    code = "import sys, caef_data.pipelines.declaration as d; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "polars", "pyarrow", "duckdb"} & set(loaded)


# Options


def test_flags_name_their_options() -> None:
    assert "--min is 9, larger than --max 3\n  where:   --min 9 --max 3" in refused_flags("sub", min=9, max=3)
    assert "where:   --min 300\n" in refused_flags("sub", min=300)  # --max was not given
    assert "--split holds \"trian\" (did you mean 'train'?)" in refused_flags("sub", splits=["trian"])
    assert "--task is \"subb\", which is no task (did you mean 'sub'?)" in refused_flags("subb")
    assert "the task sub is given twice" in refused_flags("sub", "subtraction")
    assert "the task sub is given twice" in refused_flags("all", "sub")
    assert "no --task is given" in refused_flags()
    assert "or --split train" in refused_flags("sub", num_test=0)
    assert from_flags(["sub"], min=None, views=[]).tasks[0] == TaskSettings(task="sub")


@pytest.mark.parametrize(
    ("tasks", "given", "command"),
    [
        (["sub"], {}, "caef-data build --task sub --min 1 --max 100 --num 20"),
        (["all"], {"seed": 3}, "caef-data build --task all --min 1 --max 100 --num 20 --seed 3"),
        (
            ["sub", "multiplication"],
            {"num": 50, "num_test": 9, "balance": False, "splits": ["train"], "views": ["raw", "full"]},
            "caef-data build --task sub --task mul --min 1 --max 100 --num 50 --num-test 9 --split train"
            " --view full --view raw --no-balance",
        ),
        (
            ["add"],
            {"steps": "all", "dialect": "published", "max_steps": 500, "rows_per_shard": 1000},
            "caef-data build --task add --min 1 --max 100 --num 20 --dialect published --steps all"
            " --max-steps 500 --rows-per-shard 1000",
        ),
    ],
)
def test_rebuild_command(tasks: list[str], given: dict[str, object], command: str) -> None:
    declaration = from_flags(tasks, **given)
    assert rebuild_command(declaration) == command
    assert from_command(command).identity() == declaration.identity()


def from_command(command: str) -> Declaration:
    """Read the options back, as the command line will."""
    words = shlex.split(command)[2:]
    given: dict[str, object] = {}
    lists: dict[str, list[str]] = {"--task": [], "--split": [], "--view": []}
    while words:
        option = words.pop(0)
        if option in ("--balance", "--no-balance"):
            given["balance"] = option == "--balance"
        elif option in lists:
            lists[option].append(words.pop(0))
        else:
            value = words.pop(0)
            given[option[2:].replace("-", "_")] = int(value) if value.isdigit() else value
    return from_flags(lists["--task"], splits=lists["--split"], views=lists["--view"], **given)


def test_rebuild_command_of_tasks_with_their_own_settings() -> None:
    both = Declaration(name="x", tasks=(TaskSettings(task="sub"), TaskSettings(task="add", max=9)))
    assert rebuild_command(both) == "caef-data build x.toml"
