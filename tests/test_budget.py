"""Budgets of train rows and of tokens: met within 1%, recorded, proved, refused where they cannot be met."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data import environment
from caef_data.api import stream
from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import declaration_of, from_flags, load_declaration, parse_declaration
from caef_data.pipelines.plan import Plan, make_plan
from caef_data.pipelines.settings import TaskSettings
from caef_data.pipelines.spelling import Spelling
from caef_data.pipelines.stream import Stream
from caef_data.pipelines.verify import verify
from caef_data.tests.forging import Forger

ROWS = 5_000


def train_rows(plan: Plan) -> int:
    """Count the rows of train by rendering them all."""
    configs = [config for config in plan.configs if config.split == "train"]
    blocks = [(one, block) for one in configs for shard in range(one.num_shards) for block in one.blocks(shard)]
    return sum(one.render(block).num_rows for one, block in blocks)


def expressions(folder: Path) -> set[tuple[str, str, str]]:
    tables = [pq.read_table(path, columns=["task", "a", "b"]) for path in folder.glob("*-one_step/train-*")]
    return {tuple(row.values()) for table in tables for row in table.to_pylist()}  # type: ignore[misc]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budget") / "data"
    build(make_plan(from_flags(["add", "equal"], max=4, rows=ROWS)), folder, workers=1)
    return folder


def test_a_budget_is_met_and_recorded(built: Path, tmp_path: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    rows = {task: 0 for task in manifest["tasks"]}
    for name, splits in manifest["configs"].items():
        rows[name.partition("-")[0]] += splits.get("train", {"rows": 0})["rows"]
        for entry in splits.values():
            assert entry["command"] == f"caef-data build --task add --task equal --min 1 --max 4 --rows {ROWS}"
    assert abs(sum(rows.values()) - ROWS) <= ROWS / 100
    assert {task: own["settings"]["budget"]["rows"] for task, own in manifest["tasks"].items()} == rows
    assert verify(built, workers=1).ok
    build(make_plan(from_flags(["add", "equal"], max=4, rows=ROWS)), tmp_path / "again", workers=1)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (built / "manifest.json").read_bytes()
    more = make_plan(from_flags(["add", "equal"], max=4, rows=ROWS + 400))
    build(more, tmp_path / "more", workers=1)
    assert expressions(built) < expressions(tmp_path / "more")


def test_the_settings_found_are_a_declaration(built: Path, tmp_path: Path) -> None:
    """What the card shows of a declaration in a file builds the same bytes again, wherever the tokenizer is."""
    text = f'rows = {ROWS}\nmax = 4\nviews = ["one_step", "full"]\ntask = ["add", "mul"]'
    declared = [parse_declaration(text, source="mine.toml")]
    build(make_plan(declared[0]), tmp_path / "0", workers=1)
    shown = re.search(r"```toml\n(.*?)```", (tmp_path / "0" / "README.md").read_text(), re.DOTALL)
    assert shown
    declared.append(parse_declaration(shown[1], source="mine.toml"))
    build(make_plan(declared[1]), tmp_path / "1", workers=1)
    first, second = ((tmp_path / name / "manifest.json").read_bytes() for name in "01")
    assert first == second and verify(tmp_path / "1", workers=1).ok


def test_an_unfinished_build_goes_on(built: Path) -> None:
    with pytest.raises(UserError, match=rf"budget.asked {ROWS} -> 4500"):
        build(make_plan(from_flags(["add"], max=4, rows=4_500)), built, workers=1)
    assert not [one for one in build(make_plan(from_flags(["add", "equal"], max=4, rows=ROWS)), built) if one.built]


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [("rows", 17, "counts"), ("extra", 1, "counts")],
)
def test_a_forged_budget_is_found(built: Path, tmp_path: Path, key: str, value: int, kind: str) -> None:
    """Even where all identities, and the card, are those of the forged one."""
    shutil.copytree(built, tmp_path / "forged")
    forger = Forger(tmp_path / "forged")
    budget = forger.manifest()["tasks"]["add"]["settings"]["budget"]
    forger.settings("add", budget={**budget, key: value})
    assert kind in {finding.kind for finding in verify(forger.path, workers=1).findings}


@settings(max_examples=5, deadline=None)
@given(st.integers(600, 6_000), st.sampled_from(["add", "div", "equal"]), st.integers(0, 3))
def test_any_budget_is_met_or_refused(rows: int, task: str, seed: int) -> None:
    try:
        plan = make_plan(from_flags([task], max=3, rows=rows, seed=seed, num_test=1, splits=["train"]))
    except UserError as error:
        assert "rows" in str(error.allowed)
        return
    [own] = plan.declaration.tasks
    assert own.budget and own.budget.rows == train_rows(plan) and abs(own.budget.rows - rows) <= rows / 100
    assert own.num_test == 1


def test_a_budget_of_short_runs_of_which_few_fit() -> None:
    plan = make_plan(from_flags(["mul"], max=1, rows=3, views=["full"], max_steps=5, splits=["train"]))
    assert train_rows(plan) == 3  # an expression a class gives none


def test_every_view_and_a_task_without_train() -> None:
    text = """
    rows = 2000
    max = 2
    views = ["one_step", "full", "aligner", "raw", "scratchpad", "commands", "slips"]
    [[task]]
    task = ["sub", "div", "left_mask"]
    [[task]]
    task = "add"
    splits = ["test"]
    num_test = 7
    """
    plan = make_plan(parse_declaration(text))
    assert abs(train_rows(plan) - 2000) <= 20 and "2,000 rows of train are asked for" in plan.notes[0]
    [add] = [task for task in plan.declaration.tasks if task.task == "add"]
    [own, *_] = [task for task in plan.declaration.tasks if task.budget]
    assert add.budget is None and add.num_test == 7
    assert {task.num_test for task in plan.declaration.tasks if task.budget} == {max(1, own.num // 10)}


@pytest.mark.parametrize(("num", "off"), [(20, 0), (300, 0.01)])
def test_an_epoch_has_about_the_rows_of_a_build(num: int, off: float) -> None:
    declaration = from_flags(["add"], max=10, num=num, splits=["train"], views=["one_step"])
    built = train_rows(make_plan(declaration))
    assert abs(stream(declaration).epoch_rows - built) <= off * built


def test_steps_of_whole_runs_and_words_are_counted() -> None:
    plan = make_plan(from_flags(["add"], max=12, min=12, steps="all", rows=5_000, balance=False))
    assert abs(train_rows(plan) - 5_000) <= 50
    [task] = load_declaration("machines").machines[:1]
    words = make_plan(from_flags([task], max=8, rows=500))
    assert abs(train_rows(words) - 500) <= 5


def test_streams_and_other_settings() -> None:
    planned = make_plan(from_flags(["add"], max=4, rows=2_000, splits=["train"], views=["one_step"]))
    declared = {"task": "add", "max": 4, "rows": 2_000, "splits": ["train"], "views": ["one_step"]}
    assert stream(declared).epoch_rows == train_rows(planned)
    assert environment(declared).rows.identity == stream(declared).identity
    with pytest.raises(UserError, match="a declaration whose budget is resolved"):
        Stream(from_flags(["add"], rows=2_000))
    plain = TaskSettings(task="add")
    assert "budget" not in plain.to_dict() and not from_flags(["add"]).unresolved
    budget = make_plan(from_flags(["add"], max=4, rows=2_000)).declaration.tasks[0]
    assert TaskSettings.of(budget.to_dict()) == budget
    assert budget.identity() != dataclasses.replace(budget, budget=None).identity()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rows": 5}, r"from 580 rows"),
        ({"rows": 10**7, "max": 2}, r"up to 54,030 rows"),
        ({"rows": 9, "task": "mul", "views": ["full"], "min": 3, "max_steps": 1}, "none: nothing has rows"),
        ({"rows": 94, "min": 5, "max": 5}, r"90 or 99 rows"),
        ({"rows": 5_000, "num": 3}, "num is given beside rows"),
        ({"rows": 5_000, "tokens": 3}, "tokens is given beside rows"),
        ({"tokens": 5_000}, "without tokenizer"),
        ({"rows": 0}, "from 1 to"),
        ({"rows": True}, "from 1 to"),
        ({"rows": 5_000, "splits": ["test"]}, "of the train split"),
        ({"rows": 5_000, "budget": {"asked": 1, "rows": 1}}, "budget is given beside rows"),
        ({"budget": {"asked": 1, "rows": 1, "extra": 10**6}}, "a table of asked, rows, extra"),
        ({"tokens": 5_000, "tokenizer": "x"}, "planned with what counts its tokens"),
    ],
)
def test_budgets_that_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_plan(declaration_of({"task": "add", "max": 3, **values}, Spelling(file="my.toml")))
