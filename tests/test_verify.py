"""``caef-data verify`` on small hand-made folders, right ones and damaged ones."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from caef_data import tm
from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.verify import verify
from caef_data.pipelines.verify_report import KEPT, Report, print_report
from caef_data.tests.commands import call
from caef_data.tests.forging import Forger, Rows
from caef_data.tm import machine
from caef_data.tm.instructions import instruction
from caef_data.tm.machine import REGISTRY

SIGNS = {"add": "+", "sub": "-", "mul": "*"}
SETTINGS = {"max": 3, "num": 3, "views": ["one_step", "full", "aligner"], "rows_per_shard": 600}


def rows_of(task: str, view: str, a: str, b: str) -> Rows:
    """The rows of an expression, made by the machines."""
    run = list(tm.transitions(task, a, b))
    base = {"task": task, "a": a, "b": b, "len_a": len(a), "len_b": len(b), "variant": "any"}
    base["instruction"] = instruction(machine(task), view)
    texts = [step.completion for step in run]
    if view == "full":
        return [base | {"prompt": run[0].prompt, "completion": texts[-1], "n_steps": len(run), "trace": texts}]
    question = f"{a}{SIGNS[task]}{b}="
    text, answer = tm.align_out(task, a, b)
    return [
        base | {"prompt": question, "completion": tm.align_in(question), "direction": "in"},
        base | {"prompt": text, "completion": answer, "direction": "out"},
    ]


class Folder(Forger):
    """A built folder and the means to damage it."""

    def verify(self, **options: Any) -> Report:
        return verify(self.path, **({"workers": 1} | options))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "data"
    build(make_plan(from_flags(list(SIGNS), **SETTINGS)), out, workers=1)
    return out


def told(report: Report) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    print_report(report, console)
    return console.export_text()


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Folder:
    shutil.copytree(built, tmp_path / "data")
    return Folder(tmp_path / "data")


def kinds(report: Report) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_a_right_folder_is_right(built: Path) -> None:
    done: list[tuple[int, int]] = []
    report = verify(built, workers=1, progress=lambda rows, total: done.append((rows, total)))
    assert report.ok and report.findings == () and report.num_findings == 0
    manifest = json.loads((built / "manifest.json").read_text())
    splits = [split for config in manifest["configs"].values() for split in config.values()]
    rows = sum(split["rows"] for split in splits)
    assert report.shards == sum(len(split["shards"]) for split in splits)
    assert report.rows == report.rows_checked == rows
    traces = [r for path in built.glob("*-full/*") for r in pq.read_table(path).to_pylist()]
    steps = sum(pq.read_metadata(path).num_rows for path in built.glob("*-one_step/*"))
    assert report.transitions == steps + sum(len(row["trace"]) for row in traces)
    assert done[-1] == (rows, rows) and done == sorted(done)
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


def test_worker_processes_find_the_same(folder: Folder) -> None:
    (shards,) = (folder.rows("add-one_step", "train"),)
    shards[1][5]["completion"] = shards[1][5]["completion"].replace("ADD", "ADE")
    folder.write("add-one_step", "train", shards)
    reports = [folder.verify(workers=workers) for workers in (0, 2)]
    assert reports[0].findings == reports[1].findings
    (finding,) = reports[0].findings
    assert (finding.kind, finding.row) == ("row", 5)
    assert finding.path == "add-one_step/train-00001-of-00002.parquet"
    assert "expected 'D, q" in finding.message and "found 'E, q" in finding.message


def test_a_fraction_checks_fewer_rows_but_all_files(folder: Folder) -> None:
    whole, part, again = folder.verify(), folder.verify(fraction=0.3), folder.verify(fraction=0.3)
    assert part.rows == whole.rows
    assert 0.1 < part.rows_checked / whole.rows_checked < 0.6
    assert (part.rows_checked, part.transitions) == (again.rows_checked, again.transitions)
    shards = folder.rows("add-one_step", "test")
    folder.write("add-one_step", "test", [shards[0] + [shards[0][3]]])
    assert kinds(folder.verify(fraction=0.01)) == {"added", "duplicate"}
    for fraction in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="fraction"):
            folder.verify(fraction=fraction)


SHARD = "add-one_step/train-00000-of-00002.parquet"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (flip, "sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a readable Parquet file"),
        (lambda path: path.write_bytes(b""), "bytes, the manifest says"),
        (lambda path: path.write_bytes(b"PAR1" + b"\xff" * 500 + b"PAR1"), "not a readable Parquet file"),
        (
            lambda path: shutil.copy(path.parent / "test-00000-of-00001.parquet", path),
            "rows, the manifest says",
        ),
    ],
)
def test_a_damaged_file_is_a_finding(folder: Folder, damage: Callable[[Path], None], words: str) -> None:
    damage(folder.path / SHARD)
    report = folder.verify()
    assert not report.ok
    assert any(words in f.message and f.path == SHARD for f in report.findings), report.findings
    assert {f.path for f in report.findings} <= {
        SHARD,
        "manifest.json",
        "add-one_step/test-00000-of-00001.parquet",
    }


@pytest.mark.parametrize("places", [10, pytest.param(60, marks=pytest.mark.long)])
def test_every_flipped_byte_is_a_finding(folder: Folder, places: int) -> None:
    original = (folder.path / SHARD).read_bytes()
    for at in range(0, len(original), len(original) // places):
        (folder.path / SHARD).write_bytes(original[:at] + bytes([original[at] ^ 0xFF]) + original[at + 1 :])
        assert any(f.path == SHARD for f in folder.verify().findings), at


def test_files_that_the_manifest_does_not_name(folder: Folder) -> None:
    (folder.path / "add-one_step" / ".DS_Store").write_bytes(b"x")
    (folder.path / "add-one_step" / "index.json").write_bytes(b"{}")
    (folder.path / ".gitattributes").write_bytes(b"*.parquet filter=lfs")
    (folder.path / "div-full").mkdir()
    (folder.path / "div-full" / "test-00000-of-00001.parquet").write_bytes(b"x")
    (folder.path / "notes").mkdir()
    (folder.path / "notes" / "mine.txt").write_text("a user's own")
    report = folder.verify()
    assert kinds(report) == {"foreign"}
    assert {f.path for f in report.findings} == {"add-one_step/index.json", "div-full/test-00000-of-00001.parquet"}
    assert "remove add-one_step/index.json" in told(report) and "makes damaged" not in told(report)


def test_shards_of_an_unfinished_build(folder: Folder) -> None:
    shutil.copytree(folder.path / "add-one_step", folder.path / "div-one_step")
    shards = [f"div-one_step/{path.name}" for path in (folder.path / "div-one_step").iterdir()]
    (folder.path / ".caef").mkdir()
    (folder.path / ".caef" / "plan.json").write_text(json.dumps({"identity": 16 * "0", "tasks": {}, "shards": shards}))
    report = folder.verify()
    assert kinds(report) == {"unfinished"} and {f.path for f in report.findings} == set(shards)
    assert "run the command that began the build again" in told(report) and "remove" not in told(report)
    (folder.path / ".caef" / "plan.json").write_text("{")
    assert kinds(folder.verify()) == {"foreign"}


def test_a_half_built_folder_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="caef-data build"):
        verify(tmp_path)
    with pytest.raises(UserError, match="there is no dataset here"):
        verify(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 2}', '{"format": 1, "configs": {"x": 3}}', "\x00"])
def test_a_manifest_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="cannot be understood"):
        verify(tmp_path)


def test_a_manifest_that_lies(folder: Folder) -> None:
    manifest = folder.manifest()
    split = manifest["configs"]["add-one_step"]["train"]
    split["rows"] += 2
    split["expressions"] -= 1
    split["shards"][0]["rows"] += 1
    folder.save(manifest)
    messages = [f.message for f in folder.verify().findings]
    for words in (
        "its shards have",
        "expressions, the declaration gives",
        "rows, the manifest says",
    ):
        assert any(words in message for message in messages), (words, messages)


def test_columns_that_differ_from_the_schema(folder: Folder) -> None:
    path = folder.path / SHARD
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["call"]), path)
    assert any("columns are" in f.message for f in folder.verify().findings if f.kind == "schema")
    at = table.schema.get_field_index("step")
    pq.write_table(table.set_column(at, "step", table["step"].cast(pa.int32())), path)
    assert any("column step has type int32" in f.message for f in folder.verify().findings if f.kind == "schema")
    pq.write_table(table.select(["a", "step"]), path)
    assert "schema" in kinds(folder.verify())


def test_duplicates_within_and_across_shards(folder: Folder) -> None:
    shards = folder.rows("add-one_step", "train")
    shards[1].append(shards[0][2])
    folder.write("add-one_step", "train", shards)
    aligner = folder.rows("add-aligner", "test")
    folder.write("add-aligner", "test", [aligner[0] + aligner[0][:1]])
    duplicates = [f for f in folder.verify().findings if f.kind == "duplicate"]
    assert [(f.path, f.row) for f in duplicates] == [
        ("add-aligner/test-00000-of-00001.parquet", len(aligner[0])),
        ("add-one_step/train-00001-of-00002.parquet", len(shards[1]) - 1),
    ]
    assert "row 2 of add-one_step/train-00000-of-00002.parquet" in duplicates[1].message


@pytest.mark.parametrize("swap", [False, True])
def test_overlap_of_splits_is_found_over_views_and_orders(folder: Folder, swap: bool) -> None:
    """An expression of a test view in another view of train, also as b + a."""
    row = folder.rows("add-aligner", "test")[0][0]
    a, b = row["a"], row["b"]
    added = rows_of("add", "full", *((b, a) if swap else (a, b)))
    (rows,) = folder.rows("add-full", "train")
    folder.write("add-full", "train", [rows + added])
    report = folder.verify()
    assert {"overlap", "split"} <= kinds(report)
    assert any(
        "stands in split test too" in f.message or "stands in split train too" in f.message for f in report.findings
    )
    side = next(f for f in report.findings if f.kind == "split")
    assert side.path == "add-full/train-00000-of-00001.parquet" and side.row == len(rows)
    assert "split function says test" in side.message


def test_the_order_of_operands_matters_to_sub(folder: Folder) -> None:
    """47 - 12 and 12 - 47 are two expressions: only add, mul and equal take no account of the order."""
    row = folder.rows("sub-aligner", "test")[0][0]
    (rows,) = folder.rows("sub-full", "train")
    folder.write("sub-full", "train", [rows + rows_of("sub", "full", row["a"], row["b"])])
    assert {"overlap", "split"} <= kinds(folder.verify())


def test_findings_are_counted_beyond_those_kept(folder: Folder) -> None:
    shards = folder.rows("sub-one_step", "train")
    many = [row | {"n_steps": 7} for row in shards[0]]
    folder.write("sub-one_step", "train", [many, *shards[1:]])
    report = folder.verify()
    assert report.num_findings >= len(many) > len([f for f in report.findings if f.kind == "row"]) == KEPT


@pytest.mark.parametrize("column", ["a", "b"])
def test_operands_that_are_none_belong_to_no_split(folder: Folder, column: str) -> None:
    shards = folder.rows("add-one_step", "test")
    shards[0][0][column] = "007"
    shards[0][1][column] = "9" * 30_000
    shards[0][2][column] = None
    folder.write("add-one_step", "test", shards)
    rows = [f.row for f in folder.verify().findings if f.kind == "row"]
    assert rows == [0, 1, 2]


def test_a_machine_of_the_users_own_is_checked_by_its_steps(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that the checker does not know: here add under the eyes of its own machine."""
    from caef_data.pipelines import verify as verify_module
    from caef_data.pipelines import verify_shard

    for module in (verify_module, verify_shard):
        monkeypatch.setattr(module, "known_tasks", lambda: ("sub", "mul"))
    report = folder.verify(workers=2)
    assert report.ok and any("add: compared with its own machine: producer" in note for note in report.notes)
    for view in ("one_step", "full", "aligner"):
        shards = folder.rows(f"add-{view}", "test")
        shards[0][0]["completion"] += " "
        folder.write(f"add-{view}", "test", shards)
    found = [(f.kind, f.path.split("/")[0], f.row) for f in folder.verify().findings]
    assert found == [("row", f"add-{view}", 0) for view in ("aligner", "full", "one_step")]


def test_the_report_for_people(folder: Folder) -> None:
    (folder.path / SHARD).unlink()
    for report, words in ((folder.verify(), "is missing"), (verify(folder.path, fraction=0.5), "0.5")):
        console = Console(width=80, record=True, file=open("/dev/null", "w"))
        print_report(report, console)
        text = console.export_text()
        assert words in text and "rows computed again" in text and "not right" in text


def test_the_report_says_what_was_checked(folder: Folder) -> None:
    text = told(verify(folder.path, fraction=0.5))
    assert re.search(r"each text is what its machine writes: yes, in [\d,]+ rows computed again", text)
    shards = folder.rows("sub-one_step", "test")
    shards[0][0]["completion"] += " "
    folder.write("sub-one_step", "test", shards)
    (folder.path / SHARD).unlink()
    text = told(folder.verify())
    for check in ("byte for byte", "each text is what its machine writes"):
        assert f"{check}: NO\n" in text
    assert ": yes" not in text  # rows of the missing shard were not looked at


def test_a_file_that_cannot_be_read_is_said_and_mended_by_the_command_that_built_it(folder: Folder) -> None:
    """One flipped byte was told as settings that disagree, and as a dataset to be built into another folder."""
    path = next((folder.path / "sub-one_step").glob("train-*"))
    whole = path.read_bytes()
    for content in (whole[:200] + bytes(300) + whole[500:], whole[:-9] + bytes(9), b""):
        path.write_bytes(content)
        text = told(folder.verify())
        assert "settings, identities" not in text, text
        assert "makes damaged and missing files again: caef-data info" in text and "anew" not in text


def test_nothing_is_right_of_which_nothing_was_looked_at(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the machine no row is read: rows that nobody looked at were told as right."""
    for task in folder.manifest()["tasks"]:
        monkeypatch.delitem(REGISTRY, task)
    report = folder.verify()
    text = told(report)
    assert report.rows == 0 and not report.ok and ": yes" not in text
    assert "put its file back into the folder tm/" in text


def test_expressions_of_ones_own_may_stand_in_train_whatever_their_side(tmp_path: Path) -> None:
    """``verify --stream`` told of each of them that the split function says test; of a dataset it never did."""
    (tmp_path / "mine.txt").write_text("".join(f"{a}+{7 * a}=\n" for a in range(40)))
    mine = tmp_path / "mine.toml"
    mine.write_text('expressions = "mine.txt"\nallow_test = true\nsplits = ["train"]\nviews = ["raw"]\n')
    code, text = call("verify", "--stream", 40, mine)
    assert code == 0 and "every row is right and of its split" in text, text
    assert call("build", mine, "--out", tmp_path / "data")[0] == 0
    assert verify(tmp_path / "data", workers=1).ok


@pytest.mark.parametrize(
    "verb", ["verify", "info", "push --to out", "export --out out", "eval --backend oracle --data"]
)
def test_a_folder_that_is_no_dataset_is_told_for_what_it_is(folder: Folder, tmp_path: Path, verb: str) -> None:
    """A config's folder, a stranger's, and one whose manifest was removed: no build writes there."""
    for place in (folder.path / "sub-full", tmp_path):
        code, text = call(*verb.split(), place)
        assert code == 2 and "there is no dataset here" in text and "next:    check the name" in text, text
    (folder.path / "manifest.json").unlink()
    code, text = call(*verb.split(), folder.path)
    assert code == 2 and "there is no dataset here" in text, text
    code, text = call("build", "--task", "sub", "--max", 1, "--out", folder.path)
    assert code == 2 and "no manifest.json of caef-data; it is left alone" in text, text


def test_the_command_of_info_builds_into_the_same_folder(folder: Folder, tmp_path: Path) -> None:
    made = [line for line in call("info", folder.path)[1].splitlines() if line.startswith("made by: ")]
    assert made and all(line.endswith(f" --out {folder.path}") for line in made)
    (tmp_path / "my.toml").write_text('[[task]]\ntask = "sub"\nmax = 1\n')
    assert call("build", tmp_path / "my.toml", "--out", tmp_path / "new")[0] == 0
    text = call("info", tmp_path / "new")[1]
    assert f"made by: caef-data build my.toml --out {tmp_path}/new\n         with that file at hand" in text


def test_info_lists_configs_and_sums_them_up_by_task(smoke: Path) -> None:
    """Of 140 configs nobody saw a sum, and a build counted a config once for each split."""
    text = call("info", smoke)[1]
    assert text.index("mul-one_step") < text.index("\u2502 mul ")
    (line,) = [line for line in text.splitlines() if line.startswith("\u2502 mul ")]
    assert line.split("\u2502")[2].strip() == str(len([*smoke.glob("mul-*")]))
