"""Which lines hold expressions of test or stress: against a plain search, in every kind of file, and as commands."""

import gzip
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from caef_data.pipelines import contamination
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.held_out import HeldOut
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.terminal import Meter, open_console
from caef_data.tests.commands import call
from caef_data.tests.sizes import examples
from caef_data.tm import transitions

PAIRS = {
    "add": [("1", "2"), ("12", "9"), ("123", "4567890123"), ("0", "0"), ("999", "999"), ("7", "7")],
    "sub": [("12", "9"), ("9", "1"), ("1000", "7")],
    "mul": [("12", "9"), ("3", "3")],
    "div": [("12", "9"), ("100", "3")],
    "equal": [("12", "9"), ("12", "12")],
    "greater_than": [("12", "9"), ("1", "2")],
    "less_than": [("9", "12"), ("12", "9")],
    "left_mask": [("1050", None)],
}
SIGNS = {
    "add": ["+"], "sub": ["-", "−", "–"], "mul": ["*", "×", "\\times"], "div": ["//", "÷", "\\div", r"\/\/"],
    "equal": ["=="], "greater_than": [">", "&gt;", r"\u003e"], "less_than": ["<", "&lt;", r"\u003c", r"\u003C"],
}  # fmt: skip
SIGNS["mul"] += [r"\u00d7", r"\u00D7", r"\\times"]
SIGNS["sub"] += [r"\u2212", r"\u2013"]
SIGNS["div"] += [r"\u00f7", r"\u00F7", r"\\div"]
HELD = {task: {tuple(sorted(pair)) if task in ("add", "mul", "equal") else pair for pair in pairs if pair[1]}
        for task, pairs in PAIRS.items()}  # fmt: skip


def held_out(stress: bool = False) -> HeldOut:
    rows = [(task, *pair, stress) for task, pairs in PAIRS.items() for pair in pairs]
    return HeldOut(pl.DataFrame(rows, ["task", "a", "b", "stress"], orient="row"))


HELD_OUT = held_out()


def scan(path: Path, target: Path | None = None) -> contamination.Found:
    with ThreadPoolExecutor(2) as threads:
        return contamination.scan(path, HELD_OUT, threads, 2, target, Meter(open_console(), "looking"))


SPELLED = {spelled: signs[0] for signs in SIGNS.values() for spelled in signs[1:]}
SPELLED |= {r"\u002b": "+", "\u00a0": " ", r"\t": " ", r"\u00a0": " ", r"\/": "/", r"\\": "\\"}


def quoted(text: str) -> list[bool]:
    """Tell of each place whether it is inside of quotes, as CSV has them; at last of the end."""
    state, places = "begin", []
    for char in text:
        places.append(state == "quoted")
        if state == "quoted":
            state = "closed" if char == '"' else state
        elif char == '"' and state != "plain":
            state = "quoted"  # for the first time, or doubled
        else:
            state = "begin" if char in ",;\t\n" else "plain"
    return [*places, state == "quoted"]


def plainly(text: str, cells: bool = False) -> Iterator[str]:
    """Yield the task of each expression that is held out: one number after the other."""
    spelled = "|".join(map(re.escape, sorted(SPELLED, key=len, reverse=True)))
    text = re.sub(spelled, lambda match: SPELLED[match[0]], text)
    text = re.sub(r"\\u[0-9a-fA-F]{4}", "\\g<0>\u200b", text)
    joined = quoted(text) if cells else [True] * (len(text) + 1)
    runs = list(re.finditer("[0-9]+", text))
    for first, second in zip(runs, runs[1:], strict=False):
        gap = text[first.end() : second.start()]
        blanks = re.fullmatch("([ \t]*)(.*?)([ \t]*)", gap, re.DOTALL)
        assert blanks is not None
        tasks = [task for task, signs in SIGNS.items() if blanks[2] == signs[0]]
        if not tasks or max(len(blanks[1]), len(blanks[3])) > 16:
            continue
        before, after = text[: first.start()], text[second.end() :]
        if re.search(r"[A-Za-z_]\Z", before) and not re.search(r"\\[nrtbf]\Z", before):
            continue
        if re.match("[A-Za-z_]|[.][0-9]", after) or re.search(r"(\A|[0-9\s(\[{\"'$=+*/<>-])[.]\Z", before):
            continue
        if joined[first.start()] and len(first[0]) == 3 and re.search(r"(?<![0-9])[0-9]{1,3},\Z", before):
            continue
        if joined[second.end()] and len(second[0]) <= 3 and re.match(r",[0-9]{3}(?![0-9])", after):
            continue
        pair = tuple(one[0].lstrip("0") or "0" for one in (first, second))
        pair = tuple(sorted(pair)) if tasks[0] in ("add", "mul", "equal") else pair
        if pair in HELD[tasks[0]]:
            yield tasks[0]


def found(text: str, cells: bool = False) -> list[str]:
    return [hit.task for hit in HELD_OUT.find(pl.Series([text]), cells)]


PIECES = [
    "1",
    "2",
    "12",
    "9",
    "0",
    "00",
    "999",
    "123",
    "4567890123",
    "1000",
    " ",
    "  ",
    "\t",
    "\u00a0",
    " " * 15,
    " " * 16,
    " " * 17,
]
PIECES += [sign for signs in SIGNS.values() for sign in signs] + ["12+9", "12 + 9", "9 - 1", "1,2", "12*9"]
PIECES += [*".,;:=/x_eE\n\"'($[", "a", "\\n", "\\t", "\\", "**", "é", "计", "٣", "３", "²", "\u202f", "=21", "e5", "0x"]


@settings(max_examples=examples(120, 400), deadline=None)
@given(text=st.lists(st.sampled_from(PIECES), max_size=24).map("".join), cells=st.booleans())
@example(text="x12+9 12+9x 12+9.5 3.12+9 1,012+9 12+9,100 12+9,10 \\n12+9 \\\\n12+9 .12+9 a.12+9. 012+009", cells=False)
@example(text='7,123+9 "7,123+9" 12+9,100', cells=True)
@example(text='5" pipe,12+9,100,"1,012+9","a"",12+9,100"', cells=True)
@example(text="“12+9” é12+9 \\u201c12+9\\u201d \\\\u201c12+9 12\\t+\\u00a09", cells=False)
@example(text="12" + "0" * 30, cells=False)
def test_finds_what_a_plain_search_finds(text: str, cells: bool) -> None:
    text += '"' if cells and quoted(text)[-1] else ""
    assert found(text, cells) == list(plainly(text, cells))


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("12+9=21", True), ("9 + 12", True), ("so 12+9.", True), ("(12+9)", True), ("1+12+9", True), ("-12+9", True),
        ("计算12+9等于", True), ("\\n12+9\\n", True), ("012+0009", True), ("12,12+9,21", True), ("12+9,100", False),
        ("$12 \\times 9$", True), ("12 × 9", True), ("12 − 9", True), ("9-12", False), ("12+9px", False),
        ("x12+9", False), ("1e12+9", False), ("12.5+9", False), ("12+9.5", False), (".12+9", False), ("3,012+9", False),
        ("１２+9", False), ("12/9", False), ("12=9", False), ("12++9", False), ("12+-9", False), ("12**9", False),
        ("12 x 9", False), ("12+\n9", False), ("112+9", False), ("12+91", False), ("12" + " " * 17 + "+9", False),
        ("12 9", False), ("12 \u202f+ 9", False), ("12" + " " * 16 + "+" + "\t" * 16 + "9", True),
        ("999,123+4567890123", False), ("1234,123+4567890123", True), ("4567890123+123,999", False),
        ("4567890123+123,99", True), ("12\u00a0+\u00a09", True), ("a\\n12+9", True), ("an12+9", False),
        (json.dumps("“12+9”"), True), (json.dumps("计算12+9等于"), True), (json.dumps("\U0001f60012+9"), True),
        (json.dumps("12\t+\u00a09"), True), (r"9 \u0026lt; 12", True), (r"\u007812+9", False), (r"\u002212+9", True),
        (r"12\u22129", True), (r"12 \u2212 9", True), (r"12\u002B9", True), (r"x12\u22129", False),
        ("0" * 1000 + "12+9", True),
    ],
)  # fmt: skip
def test_decisions(text: str, hit: bool) -> None:
    assert bool(found(text)) is hit


def test_finds_entries_in_every_state_and_machine() -> None:
    for task, pairs in PAIRS.items():
        for a, b in pairs:
            if len(a) + len(b or "") < 8 and (task != "mul" or a != "0"):
                for step in transitions(task, a, b):
                    for text in (step.prompt, json.dumps({"x": step.prompt}), f"Entry: {step.prompt}"):
                        assert found(text)[0] == task, text
    assert not found("ADD, q0, [HEAD1] |2|1[HEAD2] |8 [C] [OUTPUT]\n")
    assert not found("BADD, q0, [HEAD1] |2|1[HEAD2] |9 [C] [OUTPUT]\n")


def rows_of(text: str, cells: bool) -> list[str]:
    """Return lines with their ends; of a CSV file rows, which may hold line breaks in quotes."""
    rows = [""]
    for line in text.splitlines(keepends=True):
        rows[-1] += line
        if line.endswith("\n") and not (cells and quoted(rows[-1])[-1]):
            rows.append("")
    return [row for row in rows if row]


@settings(max_examples=examples(25, 150), deadline=None)
@given(
    lines=st.lists(st.lists(st.sampled_from([*PIECES, "12+9", '"']), max_size=9).map("".join), max_size=40),
    size=st.integers(16, 70),
    kind=st.sampled_from([".txt", ".txt.gz", ".csv"]),
)
@example(['"' + "y" * 300, "y" * 300, '12+9"', "1,012+9", '"', '12+9",12+9'], 16, ".csv")
@example(['1,012+9,"' + "y" * 300 + ',1,012+9"', "12+9"], 16, ".csv")
def test_blocks_of_any_size_find_the_same_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, kind: str
) -> None:
    text, cells = "\n".join(line.replace("\n", "") for line in lines), kind == ".csv"
    text += '"' if cells and quoted(text)[-1] else ""
    folder = tmp_path_factory.mktemp("any")
    path, target = folder / f"x{kind}", folder / "clean"
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "SIZE", size)
        told = scan(path, target)
    rows = rows_of(text, cells)
    kept = [row for row in rows if not list(plainly(row, cells))]
    assert (told.lines, told.lines_found) == (len(rows), len(rows) - len(kept))
    counts = [count for kinds in told.counts.values() for own in kinds.values() for count in own.values()]
    assert sum(counts) == sum(len(list(plainly(row, cells))) for row in rows)
    assert target.read_text("utf-8") == "".join(kept)


def test_tables_and_what_is_in_quotes(tmp_path: Path) -> None:
    nested = pa.array([[{"role": "user", "content": "a\n12+9"}], [], None, [{"role": "x", "content": "3"}]])
    columns = {"n": [12, 9, 3, 4], "chat": nested, "coded": pa.array(["a", "9\t-1", None, "b"]).dictionary_encode()}
    columns["split"] = ["1+", "2", "12", "+9"]  # nothing stands across rows
    columns["next"] = ["2", "+9", "12", "1+"]  # nor across columns
    pq.write_table(pa.table(columns), tmp_path / "x.bin", row_group_size=3, compression="zstd")
    told = scan(tmp_path / "x.bin", tmp_path / "clean.parquet")
    assert (told.lines, told.lines_found, told.unread) == (4, 2, "n (int64)")
    assert [(one["line"], one["task"]) for one in told.places] == [(1, "add"), (2, "sub")]
    kept = pq.read_table(tmp_path / "clean.parquet")
    assert kept.equals(pq.read_table(tmp_path / "x.bin").slice(2)) and kept.schema == pa.table(columns).schema
    text = 'q,"two\nlines 12+9"\n7,123+4567890123=\n"1,012+9"\nx\n'
    (tmp_path / "x.csv").write_text(text)
    told = scan(tmp_path / "x.csv", tmp_path / "clean.csv")
    assert (told.lines, told.lines_found) == (4, 2)
    assert (tmp_path / "clean.csv").read_text() == '"1,012+9"\nx\n'
    (tmp_path / "inches.csv").write_text('q,a\n5" pipe,1\n12+9,2\nx,3\n7" pipe,"4\n5"')
    told = scan(tmp_path / "inches.csv", tmp_path / "rest.csv")
    assert (told.lines, told.lines_found) == (5, 1)
    assert (tmp_path / "rest.csv").read_text() == 'q,a\n5" pipe,1\nx,3\n7" pipe,"4\n5"'


def test_long_lines_members_of_gzip_and_bytes_that_are_no_utf_8(tmp_path: Path) -> None:
    begin = b"a 12+9 b\n\xff" + b"y" * 9_000_000
    for number, (end, lines) in enumerate(((b" 12+9", [1, 2]), (b"z 12+8", [1]))):
        (tmp_path / "x.gz").write_bytes(gzip.compress(begin) + gzip.compress(end))
        told = scan(tmp_path / "x.gz", tmp_path / f"{number}.gz")
        assert [one["line"] for one in told.places] == lines and told.lines == 2
        assert gzip.decompress((tmp_path / f"{number}.gz").read_bytes()) == (b"" if lines[1:] else begin[9:] + end)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "data"
    build(make_plan(from_flags(["add", "sub", "reflection"], min=1, max=3, num=20, num_test=5)), out, workers=1)
    return out


@pytest.fixture(scope="module")
def expressions(data: Path) -> list[str]:
    rows = pl.read_parquet(f"{data}/*-raw/test-*.parquet", columns=["prompt"])["prompt"].to_list()
    assert len(rows) > 50
    return rows


def test_command(tmp_path: Path, data: Path, expressions: list[str]) -> None:
    many, none, out = tmp_path / "many.jsonl", tmp_path / "none.txt", tmp_path / "out"
    many.write_text("".join(json.dumps({"text": f"x\n{one}"}) + "\nnothing\n" for one in expressions))
    none.write_text("1 2 3\n")
    assert call("contamination", none, "--against", data)[0] == 0
    code, said = call("contamination", many, none, "--against", data, "--clean", out, "--quiet")
    assert code == 1 and f"{len(expressions)} of {2 * len(expressions) + 1} lines and rows hold" in said
    assert (out / "many.jsonl").read_text() == "nothing\n" * len(expressions)
    assert (out / "none.txt").read_bytes() == none.read_bytes()
    assert call("contamination", out, "--against", data)[0] == 0
    code, said = call("contamination", many, "--against", data, "--json")
    [file] = json.loads(said)["files"]
    assert code == 1 and file["lines_found"] == len(expressions) and file["places"][1]["line"] == 3
    assert sum(sum(own["expressions"].values()) for own in file["counts"].values()) == len(expressions)


def test_a_dataset_against_itself_has_entries_of_called_machines_alone(data: Path) -> None:
    code, said = call("contamination", data, "--against", data, "--json", "--quiet")
    told = json.loads(said[said.index("{") :])
    counts = [own for file in told["files"] for own in file["counts"].values()]
    assert code == 1 and counts and not any("expressions" in own for own in counts)
    assert {Path(file["path"]).parent.name.split("-")[0] for file in told["files"] if file["counts"]} <= {
        "sub",
        "mul",
        "div",
    }


def test_bad_input_is_refused(tmp_path: Path, data: Path) -> None:
    text, there = tmp_path / "x.txt", tmp_path / "there"
    text.write_text("12+9\n")
    there.write_text("mine")
    (tmp_path / "wide.txt").write_text("12+9", "utf-16")
    (tmp_path / "open.csv").write_text('a\n"b\n')
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"12+9" * 999)[:30])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + b"x" * 99)
    (tmp_path / "empty").mkdir()
    for words, what in (
        (["none.txt"], "no such file"), (["empty"], "nothing in this folder"), (["wide.txt"], "no text"),
        (["open.csv"], "never closed"), (["half.gz"], "cannot be read to its end"), (["cut.parquet"], "cannot be read"),
        (["x.txt", "--clean", there], "replace it"), (["x.txt", "--clean", text], "replace it"),
    ):  # fmt: skip
        code, said = call("contamination", tmp_path / words[0], *words[1:], "--against", data)
        assert code == 2 and what in said, said
    assert there.read_text() == "mine" and text.read_text() == "12+9\n"
    code, said = call("contamination", text, "--against", tmp_path)
    assert code == 2 and "no dataset" in said
    (tmp_path / "e.txt").write_text("")
    assert call("contamination", tmp_path / "e.txt", "--against", data)[0] == 0


def test_a_copy_that_another_command_wrote_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("12+9\nx\n")
    out = tmp_path / "out.txt"
    out.write_text("theirs")
    with pytest.raises(FileExistsError):
        scan(tmp_path / "x.txt", out)
    assert out.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt", "x.txt"]


def test_columns_that_hold_no_text_are_named(tmp_path: Path, data: Path) -> None:
    some, none = tmp_path / "some.parquet", tmp_path / "none.parquet"
    numbers = {"x": [1], "d": pa.array([1], pa.date32()), "raw": [b"12+9"]}
    pq.write_table(pa.table({"text": ["a"], **numbers}), some)
    pq.write_table(pa.table(numbers), none)
    code, said = call("contamination", some, "--against", data)
    assert code == 0 and "not looked at: columns x (int64), d (date32[day])" in said
    code, said = call("contamination", none, "--against", data)
    assert code == 2 and "no column of this table can be looked at: x (int64), d" in said


def test_a_dataset_of_words_alone_is_named_as_such(tmp_path: Path) -> None:
    assert call("build", "--task", "palindrome", "--max", 3, "--num", 1, "--out", tmp_path / "data")[0] == 0
    (tmp_path / "x.txt").write_text("12+9\n")
    code, said = call("contamination", tmp_path / "x.txt", "--against", tmp_path / "data")
    assert code == 2 and "holds words of Turing machines alone" in said and "--split test" not in said, said
