"""The command line: every command's happy path, and hostile input: exit code 2 and one message, never a traceback."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caef_data import __version__, cli
from caef_data.pipelines.verify import verify
from caef_data.tests.sizes import examples

COMMANDS = ("build", "plan", "show", "verify", "info")
TINY = ["--min", "1", "--max", "2", "--num", "2"]
SMALL = Path(__file__).with_name("data") / "dataset_0_1_0"


class Outcome:
    """What a command did: exit code, standard output, standard error."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command line in this process, as the installed script does."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["caef-data", *map(str, words)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Outcome(code or 0, captured.out, captured.err)

    return run


def refused(outcome: Outcome, *hints: str) -> None:
    """Check that input was refused as it should be."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert len(outcome.err) < 2500
    for hint in hints:
        assert hint in outcome.err


# What works


def test_help_lists_the_commands(call: Any) -> None:
    outcome = call("--help")
    assert outcome.code == 0
    assert all(name in outcome.out for name in COMMANDS)
    for name in COMMANDS:
        assert call(name, "--help").code == 0
    assert "Usage" in call().out + call().err


def test_version(call: Any) -> None:
    outcome = call("--version")
    assert (outcome.code, outcome.out) == (0, f"caef-data {__version__}\n")


def test_the_installed_script_and_the_module_are_the_same() -> None:
    for command in ([str(Path(sys.executable).with_name("caef-data"))], [sys.executable, "-m", "caef_data"]):
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout) == (0, f"caef-data {__version__}\n")


def test_plan(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call("plan", "--task", "sub", *TINY)
    assert outcome.code == 0
    assert "sub-one_step" in outcome.out
    assert "build it: caef-data build --task sub --min 1 --max 2 --num 2" in outcome.out
    assert "rows" in outcome.out
    assert not list(tmp_path.iterdir()), "plan writes nothing"


def test_plan_json_tells_what_build_writes(call: Any, tmp_path: Path) -> None:
    out = tmp_path / "data"
    words = ["--task", "equal", "--task", "left_mask", *TINY]
    plan = call("plan", *words, "--json").json()
    assert call("build", *words, "--out", out, "--workers", 1).code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    planned = {(config["config"], config["split"]): config for config in plan["configs"]}
    built = {(name, split): held for name, splits in manifest["configs"].items() for split, held in splits.items()}
    assert planned.keys() == built.keys()
    for key, config in planned.items():
        assert config["expressions"] == built[key]["expressions"]
        assert config["classes"] == built[key]["classes"]
        assert config["shards"] == len(built[key]["shards"])
        assert 0.5 <= config["rows"] / built[key]["rows"] <= 2  # from a sample
    assert plan["command"] == "caef-data build --task equal --task left_mask --min 1 --max 2 --num 2"
    assert any("left_mask" in note for note in plan["notes"])
    assert {"rows", "text_bytes", "disk_bytes", "seconds", "identity"} <= set(plan)


def test_build_says_what_it_did(call: Any, tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    flags = [
        "--task",
        "add",
        *TINY,
        "--num-test",
        1,
        "--split",
        "train",
        "--split",
        "test",
        "--view",
        "raw",
        "--seed",
        3,
    ]
    flags += ["--dialect", "published", "--steps", "all", "--no-balance", "--max-steps", 50, "--rows-per-shard", 5]
    outcome = call("build", *flags, "--out", out, "--workers", 1)
    assert outcome.code == 0, outcome.err
    assert "add-raw" in outcome.out
    assert f"caef-data verify '{out}'" in outcome.out
    assert f'load_dataset("{out}", "add-raw", split="train")' in outcome.out
    settings_ = json.loads((out / "manifest.json").read_text())["tasks"]["add"]["settings"]
    wanted = {"seed": 3, "dialect": "published", "steps": "all", "balance": False, "max_steps": 50, "rows_per_shard": 5}
    assert settings_.items() >= wanted.items()
    assert verify(out, workers=1).ok
    assert "kept" in call("build", *flags, "--out", out).out


def test_build_a_declaration_of_ones_own(call: Any, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('task = "add"\nmax = 2\nnum = 2\nviews = ["raw"]\n')
    assert call("build", file, "--out", tmp_path / "data").code == 0
    assert "made by: caef-data build my.toml" in call("info", tmp_path / "data").out


def test_show(call: Any) -> None:
    outcome = call("show", "47819-12345=")
    assert outcome.code == 0
    assert "35474" in outcome.out
    assert all(len(line) <= 100 for line in outcome.out.splitlines())
    shown = call("show", "12+34=", "--json").json()
    assert shown["task"] == "add"
    assert shown["aligner_out"][1] == "12+34=46"
    assert call("show", "--task", "left_mask", "45321").code == 0


def test_many_configs_are_listed_by_task(call: Any, smoke: Path) -> None:
    out = call("plan", "smoke").out
    assert "left_mask" in out and "left_mask-one_step" not in out
    whole = call("plan", "smoke", "--json").json()
    rows = sum(one["rows"] for one in whole["configs"] if one["config"].startswith("sub-"))
    assert re.search(rf"sub +\S +\d+ +\S +{rows:,} ", out)
    again = call("build", "smoke", "--out", smoke).out
    assert re.search(r"sub .*kept", again) and "sub-one_step" not in again.partition("check it")[0]


def test_info_and_verify(call: Any, smoke: Path) -> None:
    outcome = call("info", smoke)
    assert outcome.code == 0
    assert "mul-one_step" in outcome.out
    assert "made by: caef-data build smoke" in outcome.out
    manifest = json.loads((smoke / "manifest.json").read_text())
    assert call("info", smoke, "--json").json() == {**manifest, "unfinished": None}
    outcome = call("verify", smoke, "--json", "--workers", 1, "--fraction", "0.1")
    assert outcome.code == 0
    assert outcome.json()["ok"]
    assert outcome.json()["rows"] == sum(s["rows"] for c in manifest["configs"].values() for s in c.values())
    said = call("verify", SMALL, "--workers", 1).out
    assert "everything checked is right" in said and "no expression stands in two splits: yes" in said


# What is refused

NUMBERS = ["", " ", "-1", "+1", "1.0", "1e3", "0x10", "1_0", "٣", "１", "9" * 5000, "nan", "1\n", "a"]
EXPRESSIONS = [
    "", " ", "=", "+", "1+", "+1", "1+2+3=", "1++2=", "-1+2=", "01+2=", "1+02=", "1 + 2 =\n3", "٣+٤=", "１+２=",
    "1+2=4x", "1-2=", "1/0=", "1*0=", "1\n2", "a+b=", "²+1=", "9" * 1_000_000, "9" * 1_000_000 + "+1=", "../etc/passwd",
    "\x1b[31m", "1" + "+1" * 200_000, "𝟙+1=", "−1+1=",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda text: ascii(text)[:20])
def test_hostile_expressions(call: Any, expression: str) -> None:
    for more in ([], ["--json"]):
        refused(call("show", *more, "--", expression))
    refused(call("show", "--task", "add", "--", expression))


@pytest.mark.parametrize(
    "option", ["--min", "--max", "--num", "--num-test", "--seed", "--max-steps", "--rows-per-shard"]
)
@pytest.mark.parametrize("number", NUMBERS, ids=lambda text: ascii(text)[:12])
def test_hostile_numbers(call: Any, option: str, number: str) -> None:
    outcome = call("plan", "--task", "left_mask", "--max", "2", f"{option}={number}", "--json")
    if outcome.code == 0:  # what int() takes for a small number
        assert float(number) >= 0
    else:
        refused(outcome)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["plan", "--task", "ad"], "add"),
        (["plan", "--task", "add", "--min", "3", "--max", "2"], "max"),
        (["plan", "--task", "add", "--max", "1001"], "1,000"),
        (["plan", "--task", "add", "--view", "one-step"], "one_step"),
        (["plan", "--task", "add", "--split", "dev"], "train"),
        (["plan", "--task", "add", "--dialect", "english"], "consistent"),
        (["plan", "--task", "add", "--steps", "some"], "sampled"),
        (["plan", "--task", "mul", "--steps", "all", "--max", "9"], "steps"),
        (["plan", "--task", "left_mask", "--view", "raw"], "left_mask"),
        (["plan"], "--task"),
        (["plan", "smok"], "smoke"),
        (["plan", "smoke", "--num", "3"], "--num"),
        (["plan", "../smoke"], ".toml"),
        (["plan", "no such.toml"], "no such.toml"),
        (["plan", "/"], "smoke"),
        (["plan", "a" * 10_000 + ".toml"], "aaa"),
        (["build", "smoke", "--workers", "0"], "workers"),
        (["build", "--task", "add", "--frobnicate"], "frobnicate"),
        (["frobnicate"], "frobnicate"),
        (["info", "/nothing/here"], "/nothing/here"),
        (["info", "a" * 5000], "aaa"),
        (["info", "no\0thing"], "no\\x00thing"),
        (["verify", "/nothing/here"], "/nothing/here"),
        (["verify", "a" * 5000], "aaa"),
        (["verify", ".", "--fraction", "0"], "fraction"),
        (["verify", ".", "--fraction", "nan"], "fraction"),
        (["show", "--task", "sub", "1", "2"], "sub"),
        (["show", "1+1=", "--dialect", "x"], "dialect"),
        (["show", "1+1=", "-v"], "-v"),
    ],
)
def test_other_hostile_arguments(call: Any, words: list[str], hint: str) -> None:
    refused(call(*words), hint)


@pytest.mark.parametrize(
    "text", ["", "\0", "\n\n", "task", "task = ", "[[task]]", 'task = "add"\nmax = ٣', "\ufeff", "x = 1", '"']
)
def test_hostile_declarations(call: Any, tmp_path: Path, text: str) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text)
    refused(call("plan", file), "my.toml")
    refused(call("build", file, "--out", tmp_path / "data"), "my.toml")
    assert not (tmp_path / "data").exists()


def test_errors_leave_standard_output_to_the_data(call: Any, tmp_path: Path) -> None:
    for words in (["plan", "--task", "x", "--json"], ["info", tmp_path, "--json"], ["verify", tmp_path, "--json"]):
        refused(call(*words), "error: ")
    # notes of what is left out go to stderr too
    outcome = call("build", "--task", "left_mask", *TINY, "--out", tmp_path / "data", "--workers", 1)
    assert "left out" in outcome.err
    assert "left out" not in outcome.out


@pytest.mark.parametrize("words", [["info"], ["info", "--json"], ["verify", "--workers", "1", "--fraction", "0.001"]])
def test_output_to_a_full_disk_or_a_closed_pipe(words: list[str]) -> None:
    command = [sys.executable, "-m", "caef_data", *words, str(SMALL)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.close()
    _, errors = running.communicate(timeout=60) if running.stderr is None else (None, running.stderr.read())
    assert running.wait(60) in (0, 1)
    # verify tells how far it is every five seconds: nothing else may stand there
    assert re.sub(r"[\d,]+ of [\d,]+ rows, [\d,]+ rows/s\n", "", errors) == ""


WORDS = st.one_of(
    st.sampled_from([
        "--task", "--min", "--max", "--num", "--num-test", "--seed", "--view", "--split", "--dialect",
        "--steps", "--json", "--balance", "--no-balance", "--max-steps", "--rows-per-shard", "--workers",
        "--fraction", "--nested", "--", "-", "-v", "--out", "--help", "--version", "--overwrite", "-h",
        "--min=1", "--max=2", "--num=1", "--task=add", "--task=left_mask", "add", "sub", "mul", "div",
        "left_mask", "all", "raw", "one_step", "train", "test", "stress", "published", "smoke", "0", "1", "2",
        "3", "-1", "+1", "007", "1+1=", "7-5=", "9*0=", "9/3=", "5=5=", "..", ".", "/", "/dev/null", "", " ",
        "\n", "٣", "１+２=", "9" * 5000, "1" * 30 + "+1=", "\0", "\ud800", "\udcff", "\x1b[2J", "[/]",
        ":bug:", "x.toml",
    ]),
    st.text(max_size=6),
    st.integers(-3, 3).map(str),
)  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty working directory: the repository may hold a large `data`."""
    return tmp_path_factory.mktemp("elsewhere")


WRITES_NOTHING = st.sampled_from(["plan", "show", "info", "plan", "show", "verify", "--version", ""])


@settings(max_examples=examples(150, 400), deadline=None, database=None)
@given(WRITES_NOTHING, st.lists(WORDS, max_size=6))
def test_any_arguments(elsewhere: Path, command: str, words: list[str]) -> None:
    # smoke and all are planned with small numbers only, so that the test is quick
    if command == "plan" and ("smoke" not in words):
        words = ["--max=2", "--num=1", *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        patch.setattr(sys, "argv", ["caef-data", *([command] if command else []), *words])
        patch.setattr(sys, "stdin", io.StringIO())
        try:
            cli.main()
        except SystemExit as end:
            assert end.code in (None, 0, 2)


# Short forms


def test_names_are_cut_at_commas(call: Any) -> None:
    apart = call("plan", "--task", "add", "--task", "sub", "--view", "raw", "--view", "full", *TINY, "--json").json()
    assert call("plan", "--task", "add,sub", "--view", "raw, full", *TINY, "--json").json() == apart
    refused(call("plan", "--task", "add,", *TINY), "task")
    refused(call("plan", "--task", "add,ad", *TINY), '"ad"', "add")


def test_short_options(call: Any, tmp_path: Path) -> None:
    assert call("-V").out == f"caef-data {__version__}\n"
    built = call("build", "--task", "left_mask", *TINY, "-o", tmp_path / "data", "--workers", 1, "-q")
    assert built.code == 0 and built.err == "" and "left_mask-one_step" in built.out
    loud = call("build", "--task", "left_mask", *TINY, "-o", tmp_path / "loud", "--workers", 1)
    assert "left out" in loud.err
    refused(call("verify", tmp_path / "nothing", "--quiet"), "error: ")


def test_show_takes_several_expressions_and_standard_input(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = call("show", "1+2=", "3>4=").out
    assert both == call("show", "1+2=").out + "\n" + call("show", "3>4=").out
    for words in ([], ["-"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("1+2=\n\n 3>4= \n"))
        lines = call("show", *words, "--json").out.splitlines()
        assert [json.loads(line)["task"] for line in lines] == ["add", "greater_than"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("99 7\n9 5\n"))
    lines = call("show", "--task", "reflection", "-", "--json").out.splitlines()
    assert [json.loads(line)["a"] for line in lines] == ["99", "9"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    refused(call("show"), "no expression", "standard input")
    terminal = io.StringIO("1+2=\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    refused(call("show"), "no expression")
    monkeypatch.setattr(sys, "stdin", io.StringIO("1+2=\n1+x=\n"))
    refused(call("show", "-"), "'x'")
    for words in (["-3+4="], ["--", "-3+4="]):
        refused(call("show", *words), "operand a is negative")
    refused(call("show", "3+4=", "3-4="), "sub needs a >= b")
    refused(call("show", "12", "-", "9", "="), "no blanks", "caef-data show 12-9=")
    refused(call("show", "--jsn", "1+2="), "no option '--jsn'")


def test_adapters_that_a_task_needs(call: Any) -> None:
    own = "aligners/sub\nexecutors/add\nexecutors/left_mask\nexecutors/reflection\nexecutors/sub\n"
    assert call("adapters", "--task", "sub", "--mode", "process").out == own
    assert call("adapters", "--task", "sub", "--mode", "one_step").out == "executors/sub\n"
    assert len(call("adapters").out.splitlines()) == 16  # nine executors, seven aligners
    refused(call("adapters", "--mode", "proces"), "'process'")
    refused(call("adapters", "--task", "ad"), "add")
    refused(call("adapters", "--task", "reflection", "--mode", "process"), "one_step")


def test_accuracies_as_json(call: Any, smoke: Path, tmp_path: Path) -> None:
    words = [
        "eval",
        "--backend",
        "oracle",
        "--data",
        smoke,
        "--task",
        "add",
        "--mode",
        "one_step,process",
        "-o",
        tmp_path,
    ]
    asked = call(*words, "--json", "--quiet")
    assert (asked.code, asked.err) == (0, "")
    found = asked.json()
    assert [(one["task"], one["mode"], one["accuracy"]) for one in found["accuracy"]] == [
        ("add", "one_step", 1.0),
        ("add", "process", 1.0),
    ]
    assert all(one["n"] == one["correct"] > 0 and one["low"] < one["high"] for one in found["accuracy"])
    assert found["run_id"] in call(*words).out, "the form is no part of a run"


def test_a_shell_completes_commands_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def completed(*words: str) -> str:
        environment = {"_CAEF_DATA_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["caef-data", *words])}
        environment |= {"COMP_CWORD": str(len(words)), "PATH": os.environ["PATH"]}
        script = Path(sys.executable).with_name("caef-data")
        return subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60).stdout

    assert completed("ver").split() == ["verify"]
    assert completed("build", "--task", "add,s").split() == ["add,sub"]
    assert completed("build", "--view", "ra").split() == ["raw"]


MISTAKES = [  # each led to a message that named no way on, or a wrong one
    ("build --task add --num 0", "build --help"),
    ("build --task add --view raws", "build --help"),
    ("build --tasks add", "caef-data build --help"),
    ("build --num abc", "caef-data build --help"),
    ("build --task add sub", "--task add,sub"),
    ("build --task add subtraction", "--task add,subtraction"),
    ("build --task minus", "build --task sub"),
    ("build --task subtract", "build --task sub"),
    ("eval --backend oracle --task subtracton", "eval --task sub"),
    ("adapters --task multiply", "adapters --task mul"),
    ("adapters --mode proces", "adapters --help"),
    ("build nosuch.toml", "caef-data build smoke"),
    ("export --format alpacas", "--format alpaca"),
    ("verify --fraction 2", "--fraction 0.1"),
    ("tokens", "caef-data tokens --help"),
    ("compare a", "caef-data compare --help"),
    ("evla", "caef-data --help"),
    ("show 12-19=", "caef-data show --task sub 47 38"),
    ("show 12x4=", "caef-data show"),
    ("eval --backend oracle --mode raw", "eval --help"),
]


@pytest.mark.parametrize(("words", "advice"), MISTAKES)
def test_every_refusal_names_a_way_on(
    call: Any, words: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    outcome = call(*words.replace("12x4", "12\u00d74").split())
    refused(outcome)
    assert advice in outcome.err.partition("\n  next:    ")[2], outcome.err
    if "x4" in words:
        assert "did you mean '*'" in outcome.err
    if "raw" in words.split():
        assert "--baseline asks the raw question" in outcome.err


def test_a_declaration_that_is_wrong_is_mended_where_it_lies(call: Any, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("tusk = 'add'\n")
    refused(call("build", tmp_path / "my.toml"), f"next:    mend it there, then: caef-data plan {tmp_path}/my.toml")


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        (["eval", "--split", "test", "--split", "train"], ("--split is given 2 times", "one a run", "eval --help")),
        (["eval", "--out", "a", "--results=b"], ("--out or -o or --results is given 2 times",)),
        (["build", "--task", "add", "--seed", "1", "--seed", "1"], ("--seed is given 2 times", "caef-data build")),
        (["show", "1+2=", "--dialect", "published", "--dialect", "consistent"], ("--dialect is given 2 times",)),
    ],
)
def test_an_option_that_takes_one_value_is_given_once(call: Any, words: list[str], hints: tuple[str, ...]) -> None:
    """The last value was taken without a word: an evaluation of two splits was one of the second."""
    refused(call(*words), *hints)


def test_what_may_repeat_repeats(call: Any) -> None:
    assert call("plan", "--task", "add", "--task", "sub", *TINY, "--json", "--json").code == 0
