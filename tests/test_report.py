"""The report without a browser: what it says, what it refuses, and that nothing in the results can act in it."""

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from caef_data import atomic
from caef_data.eval.problems import RAW
from caef_data.eval.report.captions import (
    END,
    difference,
    model,
    percent,
    symbols,
    title,
    written,
)
from caef_data.eval.report.page import LETTERS, PARTS, render
from caef_data.eval.report.queries import Count, Panel, Report
from caef_data.eval.tables import RunTables, run_id
from caef_data.schemas import RESULTS
from caef_data.tests.commands import call, full_disk
from caef_data.tests.results_data import HOSTILE, RUNS, columns, run_row

VOID = {"meta", "link", "br", "img", "input", "hr"}
FIRST, SECOND, ROLLED, BASE, STOPPED = (run.id for run in RUNS)


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements, and what stands in its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, "elements are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[self.elements[-1][1].get("id") or "own"] = data
        else:
            self.text += f"{data} "

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements for key, value in attributes.items() if key == name]

    def unpacked(self, name: str) -> bytes:
        return gzip.decompress(base64.b64decode(self.scripts[name]))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.unpacked("data"))
        return found


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("report") / "report.html"
    code, said = call("report", "--results", results, "--out", out)
    assert code == 0 and f"open it:  xdg-open {out}" in said.replace("open it:  open", "open it:  xdg-open")
    return Page(out.read_text(encoding="utf-8"))


def panel_of(page: Page, title: str) -> dict[str, Any]:
    return next(panel for panel in page.data["panels"] if panel["title"] == title)


def refused(*words: object) -> str:
    code, said = call("report", *words)
    assert code == 2, said
    return said


def numbers(panels: list[Panel], runs: list[dict[str, Any]] | None = None, **others: Any) -> Report:
    row = {**dict.fromkeys(RESULTS["runs"]), "run_id": FIRST, **run_row(RUNS[0], {}, 0, 0, finished=True)}
    return Report(runs or [row], panels, **others)


def add_run(
    results: Path, name: str, accuracies: list[dict[str, Any]], failures: list[dict[str, Any]] = (), **row: Any
) -> str:  # type: ignore[assignment]
    """Write the tables of a finished run: counts of its classes, and its failures; missing columns are filled in."""
    one = run_id(name)
    tables = RunTables(results, one)
    tables.write_run({**run_row(RUNS[0], {}, 0, 0, finished=True), "command": f"caef-data eval {name}", **row})
    usual = {
        "task": "add",
        "mode": "process",
        "split": "test",
        "dialect": "d",
        "variant": "any",
        "len_a": 1,
        "len_b": 1,
    }
    rows = [{**usual, **counts, "accuracy": counts["correct"] / counts["n"]} for counts in accuracies]
    tables.write_part("class_accuracy", "classes", [columns(rows)])
    names = ("task", "mode", "split", "dialect", "variant", "len_a", "len_b")
    judged = [
        {**{name: counts[name] for name in names}, "a": str(counts["len_a"]), "b": f"{counts['len_b']} {number}"}
        | {"correct": number < counts["correct"]}
        for counts in rows
        for number in range(counts["n"])
    ]
    tables.write_part("problems", "problems", [columns(judged)])
    texts = {"a": "1", "b": "2", "adapter": "executors/add", "state": "q0", "step": 0, "num_calls": 20}
    texts |= {"kind": "executor", "prompt": "p", "expected": "right", "text": "wrong"}
    tables.write_part("failures", "part-0", [columns([{**usual, **texts, **failure} for failure in failures])])
    return one


def report_of(results: Path, *words: str) -> Page:
    out = results / "report.html"
    code, said = call("report", "--results", results, "--out", out, *words)
    assert code == 0, said
    return Page(out.read_text(encoding="utf-8"))


def flat(page: Page) -> str:
    return " ".join(page.text.split())


def test_page_is_well_formed_and_its_links_lead_somewhere(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {one.removeprefix("#") for one in page.attributes("href") if one.startswith("#")} <= set(ids)
    headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count("h1") == 1 and "h2" in headings
    for tag, attributes in page.elements:
        if tag == "th" and "scope" not in attributes:
            raise AssertionError("a header cell does not say of what")
        if attributes.get("role") == "region":
            assert attributes.get("aria-label") and attributes.get("tabindex") == "0"


def test_nothing_is_loaded_and_only_our_scripts_run(page: Page) -> None:
    assert not page.attributes("src") and not page.attributes("srcset")
    assert all(one.startswith(("#", "data:,")) for one in page.attributes("href"))
    policy = next(one for one in page.attributes("content") if "default-src" in one)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "eval" not in policy
    for script in (page.unpacked("library"), page.scripts["own"].encode()):
        assert base64.b64encode(hashlib.sha256(script).digest()).decode() in policy
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_summary_says_what_the_tables_say(page: Page, results: Path) -> None:
    classes = RunTables(results, FIRST).read_part("class_accuracy", "classes").to_pylist()
    rows = [row for row in classes if (row["task"], row["mode"]) == ("add", "executor")]
    n, correct = sum(row["n"] for row in rows), sum(row["correct"] for row in rows)
    assert 0 < correct < n
    assert f"A {percent(Count(n, correct))} {correct} of {n}" in flat(page)
    panel = panel_of(page, "add executor")
    assert page.data["counts"][panel["totals"]["A"]][:2] == [n, correct]
    place = panel["a"].index(2) * len(panel["b"]) + panel["b"].index(3)
    row = next(row for row in rows if (row["len_a"], row["len_b"]) == (2, 3))
    wanted = [row[name] for name in ("n", "correct", "accuracy", "low", "high")]
    assert page.data["counts"][panel["cells"]["A"][place]][:5] == pytest.approx(wanted)


def test_class_without_data_is_told_from_one_at_zero_and_from_none(page: Page) -> None:
    panel = panel_of(page, "add one_step")
    assert panel["a"] == panel["b"] == [1, 2, 3, 4, 5]
    unreached = page.data["counts"][panel["cells"]["A"][-1]]
    assert unreached[:5] == [0, 0, None, None, None] and unreached[6] == "not evaluated"
    assert panel["cells"]["A"][4] == -1  # 1 digit and 5: no such class
    assert [length for length, _ in panel["lengths"]["A"]] == [1, 2, 3, 4]
    executor = panel_of(page, "sub executor")
    zero = [page.data["counts"][place] for place in executor["cells"]["A"] if place >= 0]
    assert [0, 0.0] in [one[1:3] for one in zero]


def test_steps_comparison_failures_and_provenance_are_there(page: Page, results: Path) -> None:
    failures = RunTables(results, FIRST).read_part("failures", "part-0").to_pylist()
    mine = [row for row in failures if (row["task"], row["mode"]) == ("sub", "executor")]
    tenths = [0] * 10
    for row in mine:
        tenths[min(10 * row["step"] // row["num_calls"], 9)] += 1
    assert panel_of(page, "sub executor")["tenths"]["A"] == tenths
    text = flat(page)
    assert "+41.7" in text
    assert "final answer right" in text  # of the rollout
    assert f"1 run left out: {STOPPED[:8]} is not finished; go on with: caef-data eval --adapters stopped" in text
    for run in RUNS[:4]:
        assert run.id in text and f"caef-data eval --adapters {run.name}" in text
    assert hashlib.sha256(b"first").hexdigest() in text
    assert sum(tag == "mark" for tag, _ in page.elements) >= 2 * 10


def test_process_and_baseline_stand_side_by_side(tmp_path: Path) -> None:
    add_run(tmp_path, "machine", [{"n": 100, "correct": 99}])
    add_run(tmp_path, "alone", [{"n": 100, "correct": 3, "mode": RAW}], baseline=True, started=datetime(2027, 1, 1))
    page = report_of(tmp_path)
    assert (
        "in one go as a machine points in common add B 3.0% 3 of 100 · 1.0–8.5% A 99.0% 99 of 100 · 94.6–99.8% +96.0"
        in flat(page)
    )
    assert panel_of(page, "add process")["changes"] == {"A−B": ["A", 1, "B"]}
    assert list(panel_of(page, "add process")["lengths"]) == ["A", "B"]  # one chart holds both
    assert sum(attributes.get("data-kind") == "lengths" for _, attributes in page.elements) == 1
    other = {"baseline": True, "started": datetime(2026, 1, 1), "base_model": "/another"}
    more = [{"n": 50, "correct": 40, "mode": RAW, "len_b": length} for length in (2, 3)]
    add_run(tmp_path, "other", [{"n": 100, "correct": 80, "mode": RAW}, *more], **other)
    assert list(panel_of(report_of(tmp_path), "add process")["changes"]) == ["B−C"]  # not with another model's


def test_runs_are_compared_where_they_share_most_and_not_where_they_share_nothing(tmp_path: Path) -> None:
    def of(year: int, *lengths: int, **others: Any) -> dict[str, Any]:
        add_run(tmp_path, str(year), [{"len_a": one, "n": 10, "correct": year % 10, **others} for one in lengths],
                started=datetime(year, 1, 1))  # fmt: skip

    of(2021, 1)
    of(2022, 1, 2, task="sub")
    assert "Comparison" not in report_of(tmp_path).text
    of(2023, 1, 2)
    of(2024, 1, 2)
    of(2025, 2, 3)
    changes = panel_of(report_of(tmp_path), "add process")["changes"]
    assert list(changes) == ["C−A", "D−C", "E−C"]


def test_failures_alike_in_several_runs_are_one(tmp_path: Path) -> None:
    often = [{"a": str(number), "text": str(number)} for number in range(5)]
    alone = [{"mode": RAW, "adapter": "", "state": None, "num_calls": 1}] * 9
    add_run(
        tmp_path, "one", [{"n": 50, "correct": 0}], [*often, {"a": "864", "task": "sub", "b": "333", "state": "q1"}]
    )
    add_run(tmp_path, "two", [{"n": 50, "correct": 0}], often[1:], started=datetime(2027, 1, 1))
    add_run(tmp_path, "alone", [{"n": 50, "correct": 0, "mode": RAW}], alone, started=datetime(2028, 1, 1))
    text = flat(report_of(tmp_path))
    assert "A add process 5 of 50 · 10.0%" in text and "B add process 4 of 50" in text
    places = [
        text.index(one) for one in ("9 × executors/add, state q0", "1 × executors/add, state q1", "9 × base model, add")
    ]
    assert places == sorted(places)
    assert "1 + 2 A process, call 1 of 20 B process, call 1 of 20 expected r ight" in text
    assert "0 + 2 A process, call 1 of 20 expected r ight" in text
    assert "864 − 333 A process, call 1 of 20" in text


def test_failures_of_models_are_shown_before_shorter_ones_of_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(tmp_path, "one", [{"n": 50, "correct": 0}], [{"a": "12345", "len_a": 5}])
    add_run(tmp_path, "alone", [{"n": 50, "correct": 0, "mode": RAW}], [{"mode": RAW, "adapter": "", "a": "7"}])
    assert "12345 + 2" in flat(report_of(tmp_path)) and "7 + 2" in flat(report_of(tmp_path))
    monkeypatch.setattr("caef_data.eval.report.queries.MAX_EXAMPLES", 1)
    assert "12345 + 2" in flat(report_of(tmp_path)) and "7 + 2" not in flat(report_of(tmp_path))


def test_what_is_right_throughout_is_folded_and_the_worst_comes_first() -> None:
    def panel(task: str, mode: str, correct: int) -> Panel:
        return Panel("test", task, mode, {FIRST: {(1, 1): Count(20, correct)}})

    page = Page(render(numbers([panel("a", "x", 20), panel("b", "x", 19), panel("c", "x", 5), panel("d", RAW, 1)])))
    maps = [attributes for _, attributes in page.elements if attributes.get("data-kind") == "map"]
    assert [page.data["panels"][int(one["data-panel"] or 0)]["title"] for one in maps] == [
        "c x",
        "b x",
        f"d {RAW}",
        "a x",
    ]
    for where in ("class", "length"):
        assert f"At 100% in every {where} evaluated: a x" in flat(page)


def test_worst_process_comes_first_whatever_the_base_model_does() -> None:
    def panel(task: str, mode: str, correct: int) -> Panel:
        run = SECOND if mode == RAW else FIRST
        return Panel("test", task, mode, {run: {(1, 1): Count(20, correct)}})

    panels = [panel("add", "process", 19), panel("add", RAW, 1), panel("div", "process", 5), panel("div", RAW, 9)]
    runs = [{**dict.fromkeys(RESULTS["runs"]), "run_id": one} for one in (FIRST, SECOND)]
    page = Page(render(numbers(panels, runs)))
    drawn = [attributes for _, attributes in page.elements if attributes.get("data-kind") == "lengths"]
    assert [one["aria-label"].partition(":")[0] for one in drawn] == ["div process", "add process"]


def test_few_failed_problems_make_no_chart() -> None:
    def charts(failed: int) -> int:
        panel = Panel("test", "add", "x", {FIRST: {(1, 1): Count(20, 5)}}, {FIRST: [failed, *[0] * 9]})
        cause = {"adapter": "z", "state": "q", "split": "test", "task": "add", "mode": "x", "run_id": FIRST}
        page = Page(render(numbers([panel], causes=[{**cause, "problems": failed}])))
        return sum(attributes.get("data-kind") == "tenths" for _, attributes in page.elements)

    assert charts(9) == 0 and charts(10) == 1


def test_model_output_and_names_cannot_act(tmp_path: Path) -> None:
    names = {name: HOSTILE for name in ("task", "mode", "split", "dialect", "variant")}
    evil = {name: f"{name}'\"{HOSTILE}<!--" for name in ("base_model", "command", "device", "backend", "strategy")}
    tables = RunTables(tmp_path, FIRST)
    row = {**run_row(RUNS[0], {}, 0, 0, finished=True), **evil, "adapters": {HOSTILE: HOSTILE}, "tasks": [HOSTILE]}
    tables.write_run(row)
    classes = {name: [value] for name, value in names.items()} | {"len_a": [1], "len_b": [1], "n": [2], "correct": [1]}
    tables.write_part("class_accuracy", "classes", [classes])
    failure = {name: [HOSTILE] for name in ("a", "b", "adapter", "kind", "state", "prompt", "expected")}
    failure |= {name: [value] for name, value in names.items()} | {"text": [HOSTILE[:-1]]}
    failure |= {name: [number] for name, number in (("step", 1), ("num_calls", 2), ("len_a", 1), ("len_b", 1))}
    tables.write_part("failures", "part-0", [failure])
    out = tmp_path / "report.html"
    assert call("report", "--results", tmp_path, "--out", out)[0] == 0
    text = out.read_text(encoding="utf-8")
    assert not [one for one in text if not one.isprintable() and one != "\n"]
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert not {"img", "iframe", "object"} & tags and sum(tag == "script" for tag, _ in page.elements) == 3
    assert not page.attributes("onerror") and not page.attributes("src")
    assert "␛[31mred␇</script><img src=x onerror=alert(1)>|⟨U+202E⟩ `x`␍↵=1+1" in page.text
    assert page.data["panels"][0]["title"].startswith("␛[31mred␇</script>")


def test_same_tables_give_the_same_bytes_in_another_process(results: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        words = ["report", "--results", str(results), "--out", str(tmp_path / name), "--run", SECOND, "--run", FIRST]
        if name == "one":
            assert call(*words)[0] == 0
        else:
            command = [sys.executable, "-m", "caef_data", *words]
            subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONHASHSEED": "7"})
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_runs_are_chosen_by_how_their_ids_begin(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    code, said = call("report", "--results", results, "--out", out, "--run", SECOND[:6].upper())
    assert code == 0 and "1 run," in said
    assert Page(out.read_text(encoding="utf-8")).data["runs"] == ["A"]
    before = out.read_bytes()
    words = ("--results", results, "--out", out, "--run")
    said = refused(*words, FIRST[:-2] + "00")
    assert f"did you mean {FIRST!r}" in said and "caef-data query" in said
    assert "more than one run begins with 'a'" in refused(*words, "a")
    assert "not finished" in refused(*words, STOPPED) and "--adapters stopped" in refused(*words, STOPPED)
    assert "there is no run ''" in refused(*words, "")
    assert "\x1b" not in refused(*words, HOSTILE)
    assert out.read_bytes() == before


def test_what_cannot_be_reported_is_refused(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused("--results", tmp_path / "nothing", "--out", tmp_path / "x")
    assert "there are no results here" in said and "caef-data eval" in said
    RunTables(tmp_path, STOPPED).write_run(run_row(RUNS[4], {}, 0, 0, finished=False))
    said = refused("--results", tmp_path, "--out", tmp_path / "x")
    assert "no evaluation here is finished" in said and "--adapters stopped" in said
    assert "a report is a file on this machine" in refused("--results", results, "--out", tmp_path)
    for package in ("jinja2", "vl_convert"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            from caef_data.eval.report.page import library

            library.cache_clear()
            said = refused("--results", results, "--out", tmp_path / "x")
            assert "pip install 'caef-data[report]'" in said
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_the_page_that_was_there(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    with full_disk(100):
        code, said = call("report", "--results", results, "--out", page)
    assert code == 2 and "the disk is full" in said and str(page) in said and "make room" in said, said
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_two_reports_at_once_are_both_written(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, place = tmp_path / "page.html", atomic.place

    def while_another_writes(path: Path, attempt: str = "") -> None:
        monkeypatch.setattr(atomic, "place", place)
        words = ["-m", "caef_data", "report", "--results", str(results), "--out", str(page)]
        assert subprocess.run([sys.executable, *words], capture_output=True).returncode == 0
        place(path, attempt)

    monkeypatch.setattr(atomic, "place", while_another_writes)
    code, said = call("report", "--results", results, "--out", page)
    assert code == 0 and [path.name for path in tmp_path.iterdir()] == ["page.html"], said


def test_the_newest_ten_of_many_runs_are_taken(tmp_path: Path) -> None:
    ids = [run_id(f"many {number}") for number in range(12)]
    for number, one in enumerate(ids):
        row = run_row(RUNS[0], {}, 0, 0, finished=True)
        RunTables(tmp_path, one).write_run({**row, "started": row["started"].replace(day=1 + number)})
    out = tmp_path / "report.html"
    code, said = call("report", "--results", tmp_path, "--out", out)
    assert code == 0 and "10 runs, 0 tasks" in said and "2 older runs left out" in said
    text = out.read_text(encoding="utf-8")
    assert ids[0] not in text and ids[1] not in text and ids[11] in text
    many = [word for one in ids[:11] for word in ("--run", one)]
    assert "2 older runs left out" in text and "is not finished" not in text
    for number in range(5):
        row = run_row(RUNS[4], {}, 0, 0, finished=False)
        RunTables(tmp_path, run_id(f"stopped {number}")).write_run({**row, "command": f"caef-data eval {number}"})
    code, said = call("report", "--results", tmp_path, "--out", out)
    assert (
        code == 0 and said.count("is not finished; go on with: caef-data eval") == 3 and "2 more not finished" in said
    )
    assert out.read_text(encoding="utf-8").count("is not finished") == 3
    assert "11 runs are too many" in refused("--results", tmp_path, "--out", out, *many)


def test_one_class_without_failures_is_a_report() -> None:
    page = Page(render(numbers([Panel("test", "add", "one_step", {FIRST: {(3, 0): Count(2, 2)}})])))
    assert "No problem failed." in page.text and "100% 2 of 2" in " ".join(page.text.split())
    assert page.data["panels"][0]["b"] == [0]


def test_seven_tasks_of_100_by_100_classes_stay_below_a_megabyte() -> None:
    classes = {(a, b): Count(20, (a * b) % 21) for a in range(1, 101) for b in range(1, 101)}
    text = render(numbers([Panel("test", f"task{one}", "one_step", {FIRST: classes}) for one in range(7)]))
    assert len(text.encode()) < 1_000_000


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        ((0, 0), "–"),
        ((3, 0), "0%"),
        ((3, 3), "100%"),
        ((3, 2), "66.7%"),
        ((9999, 9998), ">99.9%"),
        ((9999, 1), "<0.1%"),
    ],
)
def test_percentages_do_not_round_failures_away(count: tuple[int, int], shown: str) -> None:
    assert percent(Count(*count)) == shown


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (("sub", "864", "333"), "864 − 333"),
        (("div", "103", "8"), "103 // 8"),
        (("mul", "13", "0"), "13 × 0"),
        (("reflection", "12", "34"), "reflection(12, 34)"),
        (("left_mask", "12", None), "left_mask(12)"),
        (("not_here", "1", "2"), "not_here(1, 2)"),
    ],
)
def test_problems_are_written_as_people_do(problem: tuple[str, str, str | None], shown: str) -> None:
    assert written(*problem) == shown


def test_runs_say_what_they_were() -> None:
    row = {"max_problems": None, **run_row(RUNS[0], {"problems": 1036}, 0, 0, finished=True)}
    assert title(row) == "first, verify"
    assert title({**row, "name": None, "max_problems": 150, "stage": "first"}) == (
        f"{model(row)}, verify, up to 150 expressions a task, with the instruction"
    )


def test_models_are_named_by_the_ends_of_their_paths() -> None:
    def named(base: str | None, command: str | None, baseline: bool = False) -> str:
        return model({"base_model": base, "backend": "oracle", "baseline": baseline, "command": command})

    assert named("/a/long/base", "caef-data eval --adapters out/one/ckpt/ --task add") == "long/base with one/ckpt"
    assert named("org/base", "caef-data eval --adapters='my ckpts/one'") == "org/base with my ckpts/one"
    assert named("base", "caef-data eval --adapters ckpt", baseline=True) == "base"
    assert named(None, None) == "oracle"


def test_runs_have_colours_of_their_own_on_light_and_on_dark() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    rule = r"^\.run\.(\w) { --light: (#\w{6}); --dark: (#\w{6});(?: border-style: (\w+);)? }$"
    runs = re.findall(rule, (PARTS / "style.css").read_text("utf-8"), re.MULTILINE)
    assert "".join(letter for letter, *_ in runs) == LETTERS and len({tuple(drawn) for _, *drawn in runs}) == 10
    assert all(1.05 / (light(on_light) + 0.05) >= 3 for _, on_light, _, _ in runs)
    assert all((light(on_dark) + 0.05) / (light("#1b1d23") + 0.05) >= 3 for _, _, on_dark, _ in runs)
    assert len({colour for _, *pair, border in runs for colour in pair if not border}) == 16


def test_difference_marks_the_first_wrong_character() -> None:
    assert difference("|1|2\nCMD", "|1|3") == [("expected", "|1|", "2", "↵CMD"), ("answered", "|1|", "3", "")]
    assert difference("12 3", "12") == [("expected", "12", "␣", "3"), ("answered", "12", END, "")]
    (_, before, _, _), (_, _, at, after) = difference("x" * 100, "x" * 60 + "\x1b" + "y" * 60)
    assert before == "…" + "x" * 22 and at == "␛" and after == "y" * 44 + "…"


def test_failure_that_was_not_decoded_says_so() -> None:
    row = {"run_id": FIRST, "task": "add", "mode": "one_step", "split": "test", "a": "1", "b": None, "step": None}
    row |= {name: None for name in ("num_calls", "adapter", "state", "prompt", "expected", "text")}
    row |= {"place": 1, "found": [{"run_id": FIRST, "mode": "one_step", "step": None, "num_calls": None}]}
    page = Page(render(numbers([], examples=[row])))
    assert "was not decoded" in page.text and "mark" not in {tag for tag, _ in page.elements}


def test_symbols_stand_for_what_does_not_print() -> None:
    assert symbols("a\x00\x7f\t\u202e\ud800é☃") == "a␀␡␉⟨U+202E⟩⟨U+D800⟩é☃"
