"""Expressions of one's own in build, show and eval: each in its split, recorded, and nothing dropped in silence."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import caef_data
from caef_data.errors import UserError
from caef_data.pipelines import expression_file, expressions
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags, load_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.sampling.split import sides
from caef_data.tests.commands import call, call_json, contents

PAIRS = {
    "add": [("12", "9"), ("9", "12"), ("999", "1000"), *((str(n * 37), str(n * n)) for n in range(60))],
    "sub": [(str(n * n + 5), str(n)) for n in range(50)],
    "mul": [("13", "5"), ("123456", "98765"), ("7", "12")],
    "div": [("99999", "50000"), ("84", "7"), ("123456789", "1")],
    "equal": [("12", "12"), ("12", "9"), ("5", "5")],
    "left_mask": [("1050", None), ("9", None)],
}
VIEWS = ["one_step", "full", "raw"]
SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "//", "equal": "=="}


def written(pairs: dict[str, list[tuple[str, str | None]]]) -> str:
    lines = [f"{a}{SIGNS[task]}{b}=" if b else f"{task} {a}" for task, own in pairs.items() for a, b in own]
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine.txt"
    path.write_text("\n" + written(PAIRS) + " 12+9 \n")  # ty: the last one stands twice
    return path


@pytest.fixture(scope="module")
def data(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "data"
    build(make_plan(from_flags([], expressions=str(file), views=VIEWS)), out, workers=1)
    return out


def held(data: Path, view: str, split: str) -> dict[str, set[tuple[str, str | None]]]:
    found: dict[str, set[tuple[str, str | None]]] = {}
    for path in sorted(data.glob(f"*-{view}/{split}-*.parquet")):
        found.setdefault(path.parent.name.rpartition("-")[0], set()).update(
            pl.read_parquet(path).select("a", "b").rows()
        )
    return found


def test_rows_are_those_of_the_file_each_in_its_split(data: Path) -> None:
    for split in ("train", "test"):
        wanted = {}
        for task, pairs in PAIRS.items():
            own = zip(pairs, sides(task, [a for a, _ in pairs], [b for _, b in pairs]), strict=True)
            if some := {pair for pair, side in own if side == split}:
                wanted[task] = some
        assert held(data, "one_step", split) == wanted
    assert {"add", "sub"} <= held(data, "raw", "test").keys()


def test_verify_needs_no_file_and_finds_what_is_changed(data: Path, tmp_path: Path) -> None:
    expressions._KNOWN.clear()
    report = caef_data.verify(data, workers=1)
    assert report.ok and not report.notes and report.rows == report.rows_checked
    manifest = json.loads((data / "manifest.json").read_text())
    own = manifest["tasks"]["add"]
    assert own["expressions"]["file"] == "mine.txt" and len(own["settings"]["expressions"]) == 2
    for change in ("add", "drop", "sha256", "bytes", "none"):
        folder = tmp_path / change
        folder.mkdir()
        for path in data.iterdir():
            (folder / path.name).symlink_to(path)
        forged = json.loads(json.dumps(manifest))
        forged_own = forged["tasks"]["add"]
        if change in ("add", "drop"):
            rows = PAIRS["add"][1:] if change == "drop" else [*PAIRS["add"], ("4", "4")]
            frame = pl.DataFrame(rows, ["a", "b"], orient="row").with_row_index("line")
            forged_own["expressions"] = expressions.Own("add", "mine.txt", "0" * 64, frame).record()
        elif change == "sha256":
            forged_own["settings"]["expressions"][0] = "0" * 64
        elif change == "bytes":
            forged_own["expressions"]["bytes"] += 1
        else:
            del forged_own["expressions"]
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(forged))
        expressions._KNOWN.clear()
        code, said = call("verify", folder, "--workers", "1")
        assert code != 0 and ("not those of the settings" in said or "add" in said), said


def test_the_file_is_part_of_the_identity(file: Path, tmp_path: Path) -> None:
    def identity(text: str) -> str:
        (tmp_path / "other.txt").write_text(text)
        return from_flags([], expressions=str(tmp_path / "other.txt")).identity()

    text = file.read_text()
    own = from_flags([], expressions=str(file)).identity()
    assert identity(text) == own and len({own, identity(text + "1+1\n"), identity(text + "\n")}) == 3
    settings = from_flags(["add"], min=1, max=2).tasks[0].to_dict()
    assert "expressions" not in settings and "allow_test" not in settings


def test_a_stopped_build_goes_on(file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, done = tmp_path / "data", 0

    def stop(*_: Any) -> None:
        nonlocal done
        done += 1
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(make_plan(from_flags([], expressions=str(file), views=VIEWS)), out, workers=1, progress=stop)
    expressions._KNOWN.clear()
    monkeypatch.chdir(file.parent)
    assert call("build", "--expressions", "mine.txt", "--view", ",".join(VIEWS), "--out", out, "--workers", "2")[0] == 0
    assert contents(out) == contents(data)


def test_each_file_says_the_same(file: Path, tmp_path: Path) -> None:
    rows = [(task, a, b) for task, pairs in PAIRS.items() for a, b in pairs]
    table = pl.DataFrame(rows, ["task", "a", "b"], orient="row")
    table.write_csv(tmp_path / "x.csv")
    table.write_parquet(tmp_path / "x.parquet")
    lines = [line for line in file.read_text().split("\n")[1:-2] if line[0].isdigit()]
    (tmp_path / "y.csv").write_text("id,expression\n" + "".join(f"1,{line}\n" for line in lines))
    (tmp_path / "x.toml").write_text('expressions = "x.csv"\nviews = ["raw"]\nsplits = ["test"]\n')
    of_lines = expression_file.read_expressions(str(file))
    for name in ("x.csv", "x.parquet"):
        found = expression_file.read_expressions(str(tmp_path / name))
        assert {task: own.key[1] for task, own in found.items()} == {task: own.key[1] for task, own in of_lines.items()}
    assert expression_file.read_expressions(str(tmp_path / "y.csv")).keys() == {"add", "sub", "mul", "div", "equal"}
    declaration = load_declaration(str(tmp_path / "x.toml"))
    assert [one.task for one in declaration.tasks] == list(PAIRS)
    rows = list(caef_data.stream({"expressions": str(file), "task": list(PAIRS)}, view="raw", rows=30))
    assert len(rows) == 30 and all((row["a"], row["b"]) in PAIRS[row["task"]] for row in rows)


BAD = {
    "5-9": "sub needs a >= b", "007+3": "leading zero", "-3+4": "negative", "3//0": "div needs b >= 1",
    "3*0": "mul needs",
    "1/2": "unknown sign '/'", "hello": "no task 'hello'", "add 1": "two operands", "left_mask 1 2": "one operand",
    "reflection 98 1": "nines", "12+": "operand b is missing", "１+2": "another script",
    "1" * 2001 + "+1": "2,001 digits",
    "12 + 9": "blank", "add 1 2 3": "no expression", "12×9": "did you mean '*'",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD)
def test_what_is_no_expression_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(f"1+2=\n\n{line}\n4+4\n")
    for words in (["build", "--out", tmp_path / "out"], ["show"], ["eval", "--backend", "oracle", "--out", tmp_path]):
        code, said = call(*words, "--expressions", tmp_path / "bad.txt")
        assert code == 2 and BAD[line] in said and "line 3" in said, said
    assert not (tmp_path / "out").exists()


def test_files_that_hold_none(tmp_path: Path) -> None:
    for name, content, what in (
        ("a.txt", b"1+2\n\xff\n", "0xff in position 4"), ("b.txt", b"\n \n", "there are 0 expressions"),
        ("b.csv", b"x,y\n1,2\n", "no column expression"),
        ("c.csv", b"task,a,b\nadd,1,2\nsub,,2\n", "row 2"), ("c.parquet", b"PAR1xx", "cannot be read"),
        ("d.csv", b"", "read"),
        ("i.csv", b"Expression\n1+2\n", "no column expression or task or a or b; it has 'Expression'"),
        ("j.TSV", b"Task\ta\tb\nadd\t1\t2\n", "no column expression or task; it has 'Task'"),
        ("k.txt", b"1+2\n" + b"1" * 1001 + b"+1\n", "k.txt, line 2\n  allowed: up to 1,000 digits"),
        ("e.csv", b"expression\n1+2\n\"\"\n", "row 2"), ("f.txt", b"PAR1", "read"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        code, said = call("build", "--expressions", tmp_path / name, "--out", tmp_path / "out")
        assert code == 2 and what in said, (name, said)
    code, said = call("build", "--expressions", tmp_path / "none", "--out", tmp_path / "out")
    assert code == 2 and "No such file" in said


def test_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.txt").write_text("1+2\n" * 11)
    monkeypatch.setattr(expression_file, "MOST", 10)
    with pytest.raises(UserError, match="11 expressions"):
        expression_file.read_expressions(str(tmp_path / "x.txt"))


def test_a_test_expression_in_a_train_build_is_refused(file: Path, tmp_path: Path) -> None:
    words = ["build", "--expressions", file, "--view", "raw,one_step", "--split", "train", "--out", tmp_path / "x"]
    code, said = call(*words)
    assert (
        code == 2 and "belong to test or stress: the first is add 999 1000, line 4" in said and "--allow-test" in said
    )
    assert not (tmp_path / "x").exists()
    code, said = call(*words, "--allow-test", "--workers", "1")
    assert code == 0 and "add: built with --allow-test: 10 of its" in said and "left_mask: built" not in said
    assert {task: set(pairs) for task, pairs in PAIRS.items()} == held(tmp_path / "x", "one_step", "train")
    code, said = call("verify", tmp_path / "x", "--workers", "1")
    assert code == 0 and "add: built with --allow-test" in said
    assert "allow-test" in (tmp_path / "x" / "README.md").read_text()
    code, said = call(*words[:-4], "--split", "test", "--out", tmp_path / "x", "--task", ",".join(PAIRS))
    # Its test rows would stand in train, too.
    assert code == 2 and "add stands in this folder with other settings: allow_test True -> None" in said, said


def test_settings_that_draw_and_tasks_that_are_not_asked_for_are_refused(file: Path) -> None:
    for given, what in (
        ({"num": 3}, "--num"), ({"min": 1}, "--min"), ({"tasks": ["add"]}, "which is not asked for"),
        ({"tasks": [*PAIRS, "reflection"]}, "no expression of reflection"), ({"allow_test": True}, "train alone"),
    ):  # fmt: skip
        tasks = given.pop("tasks", [])
        with pytest.raises(UserError) as caught:
            from_flags(tasks, expressions=str(file), **given)
        assert what in str(caught.value)
    with pytest.raises(UserError, match="allow-test is for --expressions"):
        from_flags(["add"], allow_test=True)


def test_a_declaration_of_machines_or_long_operands(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1" * 1001 + "+1\n999+1000\n")
    text = 'expressions = "x.txt"\nviews = ["raw"]\n'
    machine = '[[machine]]\nname = "walks"\nformat = "bbchallenge"\ntable = "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"\n'
    for more, what in (
        ("", "write max_len = 1001 there"), (machine, "no expression of walks in the file"),
        ('max_len = 1001\nsplits = ["test"]', "ask for their splits too"),
    ):  # fmt: skip
        (tmp_path / "x.toml").write_text(text + more)
        code, said = call("plan", tmp_path / "x.toml")
        assert code == 2 and what in said, said
    (tmp_path / "x.toml").write_text(text + "max_len = 1001")
    assert sum(one.rows for one in make_plan(load_declaration(str(tmp_path / "x.toml"))).configs) == 1


def test_what_is_left_out_is_said(file: Path) -> None:
    notes = "\n".join(make_plan(from_flags([], expressions=str(file))).notes)
    assert "add: 63 expressions of mine.txt, by split: train " in notes and "add: 1 more repeat" in notes
    assert "belong to another split than train, test: left out" in notes
    plan = make_plan(from_flags([], expressions=str(file), views=["full"], splits=["train", "test", "stress"]))
    full = {(config.settings.task, config.split): len(config.population) for config in plan.configs}
    assert sum(count for (task, _), count in full.items() if task == "div") == 2  # 99999 // 50000 is short
    assert any(note.startswith("div: 1 of ") and "do not halt within 10,000 steps" in note for note in plan.notes)


def test_show_and_eval(file: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.txt"
    small.write_text("12+9=\n999+1000\n12+9\nleft_mask 1050\n")
    code, said = call("show", "--expressions", small)
    assert (
        code == 0
        and "line 2, split stress, add" in said
        and "left_mask(1050)" in said
        and "1 more lines repeat" in said
    )
    code, said = call("show", "--expressions", small, "--json")
    shown = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [(one["line"], one["a"], one["split"]) for one in shown] == [
        (1, "12", "train"), (2, "999", "stress"), (4, "1050", "train")
    ]  # fmt: skip
    assert call("show", "--expressions", small, "1+2")[0] == 2
    out = tmp_path / "results"
    done = call_json("eval", "--expressions", file, "--backend", "oracle", "--out", out, "--json", "--mode", "one_step")
    assert {one["task"]: one["accuracy"] for one in done["accuracy"]} == dict.fromkeys(PAIRS, 1.0)
    with caef_data.results(out) as found:
        rows = found.sql("SELECT DISTINCT task, split, a, b FROM problems").fetchall()
        assert {(task, a, b) for task, _, a, b in rows} == {
            (task, *pair) for task, own in PAIRS.items() for pair in own
        }
        assert all(split == sides(task, [a], [b])[0] for task, split, a, b in rows)
        assert found.sql("SELECT data FROM runs").fetchall() == [(str(file),)]
    done = call_json("eval", "--expressions", small, "--backend", "oracle", "--out", out, "--json", "--split", "stress")
    assert {(one["task"], one["mode"]): one["n"] for one in done["accuracy"]}[("add", "executor")] == 1
    (tmp_path / "one.txt").write_text("12+9\n84//7\n")
    words = ["eval", "--expressions", tmp_path / "one.txt", "--backend", "oracle", "--out", out, "--json"]
    done = call_json(*words, "--mode", "slips")
    assert {one["task"]: one["accuracy"] for one in done["accuracy"]} == {"add": 1.0, "div": 1.0}
    code, said = call(*words, "--split", "test")
    assert code == 2 and "allowed: --split train, or all" in said and "leave out --split" in said
    code, said = call(*words, "--task", "sub")
    assert code == 2 and "name another --task or --mode" in said and "caef-data info" not in said
    code, said = call("eval", "--expressions", small, "--data", tmp_path, "--backend", "oracle", "--out", out)
    assert code == 2 and "--data goes without" in said
    assert call("eval", "--split", "all", "--backend", "oracle", "--out", out)[0] == 2


def test_whole_runs_are_as_long_as_those_of_the_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    for text, rows in (("10000//9=", 3 * 1111 + 2), ("5*1200=", 3_599)):
        mine.write_text(text)
        words = ["--expressions", mine, "--steps", "all", "--split", "train,test", "--view", "one_step"]
        [config] = call_json("plan", *words, "--json")["configs"]
        assert config["rows"] == rows
        code, said = call("plan", *words, "--max-steps", rows - 1)
        assert (code, f" has {rows:,} transitions" in said, "--max," in said) == (2, True, False), said
        assert "line 1" in said and "a file without it" in said
    mine.write_text(f"1{'0' * 400}//1=\n")
    assert "more than 1,000,000 transitions" in call("plan", *words)[1]


def test_plan_names_the_file_that_was_given_and_the_dataset_its_name_alone(tmp_path: Path, file: Path) -> None:
    words = ["--expressions", file, "--split", "train,test,stress"]
    assert f"--expressions {file} --split" in call_json("plan", *words, "--json")["command"]
    assert call("build", *words, "--view", "raw", "--out", tmp_path / "data")[0] == 0
    assert str(file.parent) not in (tmp_path / "data/manifest.json").read_text()
