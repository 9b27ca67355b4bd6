"""The report without a browser: what it says, what it refuses, and that nothing in the results can act in it."""

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from caef_data.eval.report.numbers import Count, Numbers, Panel
from caef_data.eval.report.page import END, difference, good_up_to, percent, render, symbols
from caef_data.eval.tables import RunTables, run_id
from caef_data.tests.commands import call
from caef_data.tests.results_data import HOSTILE, RUNS, run_row

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
            self.text += data

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


def numbers(panels: list[Panel], runs: list[dict[str, Any]] | None = None, **others: Any) -> Numbers:
    row = {"run_id": FIRST, **run_row(RUNS[0], {}, 0, 0, finished=True)}
    rest = {"gains": [], "causes": [], "examples": [], "num_failures": 0, **others}
    return Numbers(runs or [row], panels, **rest)


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
    shown = f"{percent(Count(n, correct))} {correct} of {n}"
    assert shown in " ".join(page.text.split())
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
    text = " ".join(page.text.split())
    assert "Comparison with run A" in text and "+41.7" in text
    assert "final answer right" in text  # of the rollout
    assert STOPPED not in text
    for run in RUNS[:4]:
        assert run.id in text and f"caef-data eval --adapters {run.name}" in text
    assert hashlib.sha256(b"first").hexdigest() in text
    assert sum(tag == "mark" for tag, _ in page.elements) >= 2 * 20


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
            from caef_data.eval.report.charts import library

            library.cache_clear()
            said = refused("--results", results, "--out", tmp_path / "x")
            assert "pip install 'caef-data[report]'" in said
    assert not (tmp_path / "x").exists()


def test_the_newest_ten_of_many_runs_are_taken(tmp_path: Path) -> None:
    ids = [run_id(f"many {number}") for number in range(12)]
    for number, one in enumerate(ids):
        row = run_row(RUNS[0], {}, 0, 0, finished=True)
        RunTables(tmp_path, one).write_run({**row, "started": row["started"].replace(day=1 + number)})
    out = tmp_path / "report.html"
    code, said = call("report", "--results", tmp_path, "--out", out)
    assert code == 0 and "10 runs, 0 tasks" in said and "2 older ones are left out" in said
    text = out.read_text(encoding="utf-8")
    assert ids[0] not in text and ids[1] not in text and ids[11] in text
    many = [word for one in ids[:11] for word in ("--run", one)]
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


def test_longest_good_length() -> None:
    def panel(*accuracies: int) -> Panel:
        return Panel("test", "add", "x", {"r": {(n, 1): Count(100, one) for n, one in enumerate(accuracies, 1)}})

    assert good_up_to(panel(100, 99, 98, 100), "r") == 2
    assert good_up_to(panel(98, 100), "r") == 0
    assert good_up_to(panel(100, 100), "r") is None


def test_difference_marks_the_first_wrong_character() -> None:
    assert difference("|1|2\nCMD", "|1|3") == [("expected", "|1|", "2", "↵CMD"), ("answered", "|1|", "3", "")]
    assert difference("12 3", "12") == [("expected", "12", "␣", "3"), ("answered", "12", END, "")]
    (_, before, _, _), (_, _, at, after) = difference("x" * 100, "x" * 60 + "\x1b" + "y" * 60)
    assert before == "…" + "x" * 22 and at == "␛" and after == "y" * 44 + "…"


def test_failure_that_was_not_decoded_says_so() -> None:
    row = {"run_id": FIRST, "task": "add", "mode": "one_step", "split": "test", "a": "1", "b": None, "step": None}
    row |= {name: None for name in ("num_calls", "adapter", "state", "prompt", "expected", "text", "first_wrong_token")}
    page = Page(render(numbers([], examples=[row], num_failures=1)))
    assert "was not decoded" in page.text and "mark" not in {tag for tag, _ in page.elements}


def test_symbols_stand_for_what_does_not_print() -> None:
    assert symbols("a\x00\x7f\t\u202e\ud800é☃") == "a␀␡␉⟨U+202E⟩⟨U+D800⟩é☃"
