"""Which lines hold expressions of test or stress: against a plain search, in every kind of file, and as commands."""

import gzip
import html
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
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
SIGNS["mul"] += [r"\u00d7", r"\u00D7", r"\\times", "&times;", "&times", "&#215;", "&#xD7;", "&#X00d7;", "&amp;times;"]
SIGNS["mul"] += [r"\cdot", r"\\cdot", r"\ast", "&ast;", "&#42;", r"\*", r"\\*", "·", "⋅", "&middot;", "∗", "＊"]
SIGNS["add"] += ["&plus;", "&#43;", "&#x2b;", "&#x0002B;", "＋", r"\u002b", r"\+", r"\u0026plus;", "&amp;#43;"]
SIGNS["sub"] += [r"\u2212", r"\u2013", "&minus;", "&#8722;", "&#x2212;", "&ndash;", "&#45;", r"\-", "\u2011"]
SIGNS["div"] += [r"\u00f7", r"\u00F7", r"\\div", "&divide;", "&#247;", "&div;", "&sol;&sol;", r"$\div$"]
SIGNS["equal"] += ["&equals;&equals;", r"\=\=", "＝＝"]
SIGNS["less_than"] += [r"\lt", r"\\lt", "&LT;", "&lt", "&#60;", "&#x3C;", r"\u0026lt;", "&amp;lt;", r"\<"]
SIGNS["greater_than"] += [r"\gt", "&gt", "&#062;", "&#x3e;", r"\u0026gt;", r"\>"]
BLANKS = [" ", "\t", "\u00a0", "\u202f", "\u2009", "\u2007", "\u3000", "\u200b", r"\t", r"\u00a0", r"\u2009", r"\,"]
BLANKS += ["&nbsp;", "&nbsp", "&#160;", "&#xA0;", "&thinsp;", "&#8239;", "&Tab;", "&#32;", r"\ ", r"\;", r"\quad"]
BLANKS += [r"\thinspace", r"\\thinspace", r"\\,", "&amp;nbsp;", r"\u0026nbsp;"]
HELD = {task: {tuple(sorted(pair)) if task in ("add", "mul", "equal") else pair for pair in pairs if pair[1]}
        for task, pairs in PAIRS.items()}  # fmt: skip


def held_out(stress: bool = False) -> HeldOut:
    rows = [(task, *pair, stress) for task, pairs in PAIRS.items() for pair in pairs]
    return HeldOut(pl.DataFrame(rows, ["task", "a", "b", "stress"], orient="row"))


HELD_OUT = held_out()


def scan(path: Path, target: Path | None = None) -> contamination.Found:
    with ThreadPoolExecutor(2) as threads:
        return contamination.scan(path, HELD_OUT, threads, 2, target, Meter(open_console(), "looking"))


ESCAPED = {r"\\": "\\", r"\/": "/", r"\times": "*", r"\thinspace": " ", r"\t": " ", "&amp;": "&", r"\u0026amp;": "&"}
COMMANDS = {r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "//", r"\lt": "<", r"\gt": ">"}
COMMANDS |= {rf"${one}$": sign for one, sign in COMMANDS.items()} | {rf"\{sign}": sign for sign in "+-*/<>="}
COMMANDS |= dict.fromkeys([rf"\{one}" for one in (*",;:! ", "quad", "qquad", "enspace", "thinspace")], " ")
DASHES = "−–\u2010\u2011\u2012"
Places = list[tuple[str, int]]  # characters, and where they stand in the text


def replaced(text: Places, pattern: str, plain: Callable[[str], str]) -> Places:
    made, end = Places(), 0
    for match in re.finditer(pattern, "".join(char for char, _ in text)):
        made += text[end : match.start()] + [(char, text[match.start()][1]) for char in plain(match[0])]
        end = match.end()
    return made + text[end:]


def entity(text: str) -> str:
    plain = html.unescape(text)
    return text if plain in '",;' else plain


def unicode(char: str) -> str:
    if unicodedata.category(char) == "Zs" or char in "\u200b\u2060\ufeff":
        return " "
    wide = unicodedata.normalize("NFKC", char)
    return (
        wide
        if wide in {*"+-*<=>"}
        else {"÷": "//"}.get(char, "*" if char in "×·⋅∗" else "-" if char in DASHES else char)
    )


def longest(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def spelled_plainly(text: str) -> Places:
    """Return a text without JSON's escapes, HTML's entities, LaTeX, Markdown and typography, one after the other."""

    def escape(found: str) -> str:
        char = chr(int(found[2:6], 16)) if re.fullmatch(r"\\u[0-9a-fA-F]{4}", found) else ""
        sign = unicode(char) if char else ""
        kept = char in '",;' or (sign == char and char > "\x7f")
        return ESCAPED.get(found) or (found if kept else sign.replace("\t", " "))

    places = replaced([(char, at) for at, char in enumerate(text)], rf"{longest(ESCAPED)}|\\u[0-9a-fA-F]{{4}}", escape)
    places = replaced(places, r"\\u[0-9a-fA-F]{4}", lambda found: f"{found}\ufffd")
    places = replaced(places, r"&(#[0-9]+;|#[xX][0-9a-fA-F]+;|[A-Za-z]+;?)", entity)
    return replaced(places, rf"{longest(COMMANDS)}|[^\0-\x7f]", lambda found: COMMANDS.get(found) or unicode(found))


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
    places = spelled_plainly(text)
    joined = quoted(text) if cells else [True] * (len(text) + 1)
    joined = [joined[at] for _, at in [*places, ("", len(text))]]
    text = "".join(char for char, _ in places)
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
    "  ",
    " " * 15,
    " " * 16,
    " " * 17,
]
PIECES += BLANKS + ["&quot;", "&#44;", "&#34;", "&amp;", "&", ";", "#215;", r"\u002c", r"\u201c", "&#8220;"]
PIECES += [sign for signs in SIGNS.values() for sign in signs] + ["12+9", "12 + 9", "9 - 1", "1,2", "12*9"]
PIECES += [*".,;:=/x_eE\n\"'($[", "a", "\\n", "\\t", "\\", "**", "é", "计", "٣", "３", "²", "\u202f", "=21", "e5", "0x"]


EVERY = [sign for signs in SIGNS.values() for sign in signs]
PAIR = st.tuples(*map(st.sampled_from, (["1", "12", "9"], ["", *BLANKS], EVERY, ["", *BLANKS], ["2", "12", "9"])))


@settings(max_examples=examples(120, 1_000), deadline=None)
@given(text=st.lists(st.sampled_from(PIECES) | PAIR.map("".join), max_size=24).map("".join), cells=st.booleans())
@example(text="x12+9 12+9x 12+9.5 3.12+9 1,012+9 12+9,100 12+9,10 \\n12+9 \\\\n12+9 .12+9 a.12+9. 012+009", cells=False)
@example(text='7,123+9 "7,123+9" 12+9,100', cells=True)
@example(text='5" pipe,12+9,100,"1,012+9","a"",12+9,100"', cells=True)
@example(text="“12+9” é12+9 \\u201c12+9\\u201d \\\\u201c12+9 12\\t+\\u00a09", cells=False)
@example(text="12" + "0" * 30, cells=False)
def test_finds_what_a_plain_search_finds(text: str, cells: bool) -> None:
    text += '"' if cells and quoted(text)[-1] else ""
    assert found(text, cells) == list(plainly(text, cells))
    spellings = HELD_OUT.spellings
    assert spellings.column(pl.Series([text])).to_list() == [spellings.plain(text).text]


def test_finds_every_spelling_and_shows_it_as_it_stands() -> None:
    """``9052 &times; 5945`` and what else the page names were not found; of what was, the sign was rewritten."""
    texts = [(f"“12{blank}+{blank * 3}9, a", "add") for blank in BLANKS]
    for task, signs in SIGNS.items():
        (a, b), *_ = PAIRS[task]
        for number, sign in enumerate(signs):
            texts += [(f"“{a}{blank}{sign}{blank}{b}, a", task) for blank in ("", BLANKS[number % len(BLANKS)])]
    texts += [(json.dumps(text), task) for text, task in texts if not re.search(r"\\([u\\/]|t(?!imes|hin))", text)]
    hits = HELD_OUT.find(pl.Series([text for text, _ in texts]))
    assert [(hit.row, hit.task) for hit in hits] == [(row, task) for row, (_, task) in enumerate(texts)]
    assert [hit.text for hit in hits] == [" ".join(text.split()) for text, _ in texts]


@pytest.mark.parametrize("text", ['a;x&amp;"3,012+9",12+9', r'a\,"a,""",7,012+9,"c"', '"12&#44;012+9"', "7&#44;012+9"])
def test_what_tells_cells_apart_is_looked_for_in_the_text_as_it_stands(text: str) -> None:
    assert found(text, cells=True) == list(plainly(text, cells=True)) and found(text, cells=True)


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("12+9=21", True), ("9 + 12", True), ("so 12+9.", True), ("(12+9)", True), ("1+12+9", True), ("-12+9", True),
        ("计算12+9等于", True), ("\\n12+9\\n", True), ("012+0009", True), ("12,12+9,21", True), ("12+9,100", False),
        ("$12 \\times 9$", True), ("12 × 9", True), ("12 − 9", True), ("9-12", False), ("12+9px", False),
        ("x12+9", False), ("1e12+9", False), ("12.5+9", False), ("12+9.5", False), (".12+9", False), ("3,012+9", False),
        ("１２+9", False), ("12/9", False), ("12=9", False), ("12++9", False), ("12+-9", False), ("12**9", False),
        ("12 x 9", False), ("12+\n9", False), ("112+9", False), ("12+91", False), ("12" + " " * 17 + "+9", False),
        ("12 9", False), ("12 \u202f+ 9", True), ("12" + " " * 16 + "+" + "\t" * 16 + "9", True),
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
    os.mkfifo(tmp_path / "pipe")
    code, said = call("contamination", tmp_path / "pipe", "--against", data)
    assert code == 2 and "no file on a disk" in said and "write it to a file first" in said, said
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
