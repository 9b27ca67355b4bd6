"""An evaluation refuses rows that are not what their machines give: beside other answers a verdict says nothing."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caef_data.errors import UserError
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.results import ResultStore
from caef_data.eval.session import plan, prepare, run
from caef_data.eval.settings import EvalSettings
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.tests.commands import call
from caef_data.tests.evaluating import begun, finish, model_of
from caef_data.tests.forging import Forger

Change = Callable[[dict[str, Any]], object]
Damage = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small dataset; tests copy it."""
    out = tmp_path_factory.mktemp("built") / "data"
    build(make_plan(from_flags(["add"], max=2, num=2)), out, workers=1)
    return out


def evaluated(folder: Path, *words: object) -> tuple[int, str]:
    out = folder.with_name("results")
    return call("eval", "--backend", "oracle", "--data", folder, "--out", out, *words)


# What of which config is forged, and a mode that reads it.
FORGERIES: dict[str, tuple[str, Change, str]] = {
    "a wrong step": ("one_step", lambda row: row.update(completion=row["completion"].replace("q1", "qH")), "one_step"),
    "a wrong prompt": ("one_step", lambda row: row.update(prompt=row["prompt"].replace("|", "|0")), "one_step"),
    "another state": ("one_step", lambda row: row.update(state="q9"), "one_step"),
    "a wrong entry": ("aligner", lambda row: row.update(completion="ADD, q0"), "aligner_in"),
    "a wrong sum": ("aligner", lambda row: row.update(completion=row["completion"] + "0"), "aligner_out"),
    "a class that it is not in": ("full", lambda row: row.update(len_a=2), "process"),
    "an operand that is none": ("full", lambda row: row.update(a="x" * row["len_a"]), "executor"),
    "no operand": ("full", lambda row: row.update(a=None), "executor"),
}


@pytest.mark.parametrize(
    "change",
    [lambda row: row.update(a=None), lambda row: row.update(a="x" * row["len_a"]), lambda row: row.update(len_a=9)],
)
def test_a_word_that_is_none(tmp_path: Path, change: Change) -> None:
    """A null word was a TypeError in a thread."""
    build(make_plan(from_flags(["palindrome"], max=2, num=1)), tmp_path / "data", workers=1)
    Forger(tmp_path / "data").change("palindrome-full", "test", lambda rows: [change(row) or row for row in rows])
    code, said = evaluated(tmp_path / "data", "--mode", "executor")
    assert code == 2 and "these rows cannot be evaluated: " in said, said


@pytest.mark.parametrize("limit", [(), ("--limit", 1000)], ids=["all", "limit"])
@pytest.mark.parametrize("name", FORGERIES)
def test_rows_that_their_machine_does_not_give(built: Path, tmp_path: Path, name: str, limit: tuple[object]) -> None:
    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    view, change, mode = FORGERIES[name]
    assert evaluated(folder, "--mode", mode, *limit)[0] == 0
    Forger(folder).change(f"add-{view}", "test", lambda rows: [change(row) or row for row in rows])
    code, said = evaluated(folder, "--mode", mode, *limit)
    assert code == 2 and "these rows cannot be evaluated: " in said, said
    assert f"add-{view}/test-" in said and f"caef-data verify {folder}" in said


@pytest.mark.parametrize("view", ["one_step", "full"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda table: table.drop_columns("len_b"), "it has no column len_b"),
        (lambda table: table.set_column(1, "a", pa.array(range(len(table)))), "a is of type 'int64'"),
    ],
    ids=["a column less", "another type"],
)
def test_other_columns(built: Path, tmp_path: Path, view: str, damage: Damage, said: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    forger = Forger(folder)
    [path] = (folder / f"add-{view}").glob("test-*")
    table = damage(pq.read_table(path))
    pq.write_table(table, path)
    manifest = forger.manifest()
    [shard] = manifest["configs"][f"add-{view}"]["test"]["shards"]
    shard.update(forger.measured(shard["path"]))
    forger.save(manifest)
    for limit in ((), ("--limit", 3)):
        code, told = evaluated(folder, "--mode", "one_step" if view == "one_step" else "executor", *limit)
        assert code == 2 and said in told, told


def test_no_parquet(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    forger = Forger(folder)
    [path] = (folder / "add-full").glob("test-*")
    path.write_bytes(b"PAR1" + bytes(100))
    manifest = forger.manifest()
    manifest["configs"]["add-full"]["test"]["shards"][0].update(forger.measured("add-full/" + path.name))
    forger.save(manifest)
    code, told = evaluated(folder, "--mode", "executor")
    assert code == 2 and "these rows cannot be evaluated" in told, told


def test_a_wrong_answer_is_not_asked_of_a_baseline(built: Path, tmp_path: Path) -> None:
    from caef_data.eval.problems import RAW, read_problems
    from caef_data.pipelines.folder import Folder

    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    assert list(read_problems(Folder(folder), "add", RAW, "test", None))
    Forger(folder).change("add-raw", "test", lambda rows: [{**row, "completion": "7"} for row in rows])
    with pytest.raises(Exception, match="these rows cannot be evaluated: completion"):
        list(read_problems(Folder(folder), "add", RAW, "test", None))


@pytest.mark.parametrize("late", [False, True], ids=["before its problems are known", "at its end"])
def test_a_dataset_that_is_built_anew_meanwhile(built: Path, tmp_path: Path, late: bool) -> None:
    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    settings = EvalSettings(backend="oracle", data=str(folder), mode=("executor",), out=str(tmp_path / "results"))
    session = prepare(settings)
    with closing(ResultStore(session.file)) as store:
        if late:
            plan(session, store)
        Forger(folder).change("add-full", "test", lambda rows: rows[:3])
        with pytest.raises(UserError, match="is missing, or is not what the manifest says"):
            plan(session, store)
            run(session, store, OracleBackend(), lambda store: None, "eval")
    assert session.tables.read_finished() is None and not session.file.parent.exists()
    shutil.rmtree(folder)
    shutil.copytree(built, folder)
    assert evaluated(folder, "--mode", "executor")[0] == 0 and session.tables.read_finished() is not None


def test_a_dataset_that_vanishes_meanwhile(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    session = prepare(EvalSettings(backend="oracle", data=str(folder), out=str(tmp_path / "results")))
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="add-one_step"), begun(session):  # told in a line
        pass


def test_fewer_rows_under_the_same_name_are_another_run(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(built, folder)
    Forger(folder).change("add-full", "test", lambda rows: rows[:3])
    code, said = evaluated(folder, "--mode", "executor")
    assert code == 0 and "3 problems" in said, said
    shutil.rmtree(folder)
    shutil.copytree(built, folder)
    code, said = evaluated(folder, "--mode", "executor")
    assert code == 0 and "evaluated before" not in said and "3 problems" not in said, said
    assert "evaluated before" in evaluated(folder, "--mode", "executor")[1]


@pytest.mark.parametrize("early", [True, False], ids=["before it is loaded", "while it is loaded"])
@pytest.mark.parametrize(
    "file", ["base/model.safetensors", "base/tokenizer.json", "executors/add/adapter_model.safetensors"]
)
def test_a_checkpoint_that_is_written_meanwhile(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, early: bool
) -> None:
    from caef_data.eval.backends import model

    ckpt = tmp_path / "ckpt"
    shutil.copytree(Path(__file__).parents[1] / "examples/tiny/ckpt", ckpt)
    asked = EvalSettings(
        adapters=str(ckpt),
        data=str(built),
        task="add",
        mode="one_step",
        limit=1,
        device="cpu",
        out=str(tmp_path / "out"),
    )

    def write() -> None:
        shutil.copy(ckpt / file, ckpt / "new")
        (ckpt / "new").replace(ckpt / file)

    def load(*given: Any) -> Any:
        loaded = real(*given)
        write()
        return loaded

    real, session = model.load_adapter, prepare(asked)
    if early:
        write()
    elif file.startswith("base"):
        real = model.load_base
        monkeypatch.setattr(model, "load_base", load)
    else:
        monkeypatch.setattr(model, "load_adapter", load)
    with pytest.raises(UserError, match="written while it was loaded"):
        finish(session, model_of(session))
    monkeypatch.undo()
    again = prepare(asked)
    assert again.tables.read_finished() is None and again.tables.run_id == session.tables.run_id
    assert set(finish(again, model_of(again))["accuracy"].to_pylist()) == {1.0, None}
