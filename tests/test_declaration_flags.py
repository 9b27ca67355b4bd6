"""Declarations from the options of the command line, and back to the command that rebuilds them."""

import shlex

import pytest

from caef_data.errors import UserError
from caef_data.pipelines.declaration import Declaration, TaskSettings, from_flags, rebuild_command


def refused_flags(*tasks: str, **given: object) -> str:
    with pytest.raises(UserError) as caught:
        from_flags(tasks, **given)
    return str(caught.value)


def test_flags_name_their_options() -> None:
    assert "--min is 9, larger than --max 3\n  where:   --min 9 --max 3" in refused_flags("sub", min=9, max=3)
    assert "where:   --min 300\n" in refused_flags("sub", min=300)  # --max was not given
    assert "--split holds \"trian\" (did you mean 'train'?)" in refused_flags("sub", splits=["trian"])
    assert "--task is \"subb\", which is no task (did you mean 'sub'?)" in refused_flags("subb")
    assert "the task sub is given twice" in refused_flags("sub", "subtraction")
    assert "the task sub is given twice" in refused_flags("all", "sub")
    assert "no --task" in refused_flags()
    assert "use --split train" in refused_flags("sub", num_test=0)
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
    first, second = rebuild_command(both).split(" && ")
    assert first == "caef-data build --task sub --min 1 --max 100 --num 20"
    assert second == "caef-data build --task add --min 1 --max 9 --num 20"
