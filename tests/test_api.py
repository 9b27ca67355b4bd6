"""What ``import caef_data`` offers: the commands as functions."""

import subprocess
import sys
from pathlib import Path

import pytest

import caef_data
from caef_data import UserError
from caef_data.tests.commands import call


def test_all_that_is_offered_is_there() -> None:
    assert {"build", "plan", "push", "results", "successor", "transitions", "verify"} <= set(caef_data.__all__)
    for name in caef_data.__all__:
        assert getattr(caef_data, name).__doc__
        assert name in dir(caef_data)
    with pytest.raises(AttributeError):
        caef_data.nothing  # noqa: B018


def test_a_dataset_is_planned_built_and_verified(tmp_path: Path) -> None:
    settings = {"task": "sub", "min": 1, "max": 2, "num": 3}
    planned = caef_data.plan(settings)
    built = caef_data.build(out=tmp_path / "data", workers=1, **settings)
    assert [(one.name, one.split) for one in built] == [(config.name, config.split) for config in planned.configs]
    report = caef_data.verify(tmp_path / "data", workers=1)
    assert report.ok and report.rows == sum(one.rows for one in built)


@pytest.mark.parametrize("guard", ["", "if __name__ == '__main__':\n    "])
def test_a_script_that_builds_with_workers_needs_a_guard(tmp_path: Path, guard: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import caef_data\n{guard}caef_data.build('smoke', 'out', workers=2)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    if guard:
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "manifest.json").exists()
    else:
        assert done.returncode == 1
        assert 'needs `if __name__ == "__main__":`' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "why"),
    [
        (("papr",), {}, "did you mean 'paper'"),
        (("paper",), {"num": 3}, "settings beside it: num"),
        (("paper",), {"outt": "x"}, "settings beside it: outt"),
        ((), {"task": "sub", "minn": 1}, "did you mean 'min'"),
        ((), {}, "task"),
        ((17,), {}, "no declaration"),
    ],
)
def test_declarations_that_are_refused(arguments: tuple[object, ...], settings: dict[str, object], why: str) -> None:
    with pytest.raises(UserError, match=why):
        caef_data.plan(*arguments, **settings)  # type: ignore[arg-type]


def test_the_package_alone_is_light() -> None:
    heavy = "import sys, caef_data; assert not {'numpy', 'pyarrow', 'torch', 'polars'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", heavy], check=True)


def test_an_evaluation_and_its_tables(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "results"
    caef_data.build(task="add", min=1, max=1, num=2, out=data, workers=1)
    run = caef_data.evaluate(data=data, out=out, backend="oracle", task="add", mode="one_step")
    assert run["status"] == "finished"
    assert [(one["task"], one["n"], one["correct"], one["accuracy"]) for one in run["accuracy"]] == [
        ("add", run["problems"], run["problems"], 1.0)
    ]
    words = f"caef-data eval --data {data} --task add --mode one_step --backend oracle --out {out}"
    assert run["command"] == words  # what a report says to type
    again = call(*words.split()[1:], "--json")
    assert again[0] == 0 and run["run_id"] in again[1]
    with caef_data.results(out) as connection:
        found = connection.sql("SELECT run_id, sum(correct) = sum(n) FROM class_accuracy GROUP BY ALL").fetchall()
        assert found == [(run["run_id"], True)]
    with pytest.raises(UserError, match="did you mean 'oracle'"):
        caef_data.evaluate(data=data, out=out, backend="oracel")
    with pytest.raises(UserError, match="did you mean 'limit'"):
        caef_data.evaluate(data=data, out=out, limits=3)


def test_a_dataset_is_pushed_to_a_store(tmp_path: Path) -> None:
    caef_data.build(task="add", min=1, max=1, num=2, out=tmp_path / "data", workers=1)
    pushed = caef_data.push(tmp_path / "data", to=f"file://{tmp_path}/there")
    assert len(pushed.changes.new) > 2 and caef_data.verify(tmp_path / "there", workers=1).ok
    with pytest.raises(UserError, match="--to names a store"):
        caef_data.push(tmp_path / "data", "user/name", to=tmp_path / "there")
    card = tmp_path / "data" / "README.md"
    card.write_text(card.read_text().replace("<!-- caef-data: end -->", "edited <!-- caef-data: end -->"))
    note = "README.md: its part between the marks was changed here"
    assert note in call("push", tmp_path / "data", "--to", tmp_path / "there")[1]
