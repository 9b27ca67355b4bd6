"""What the README and the pages beyond it show works: commands, Python, the TOML file, the set-up commands."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from caef_data import cli
from caef_data.tm import transition
from caef_data.tm.machine import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^(<!-- [^\n]+ -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(README)
BEYOND = ("building", "training", "evaluating", "machines-of-your-own")  # read after the README, in the same folder


@pytest.fixture
def registry() -> Iterator[None]:
    """Forget the README's own machine afterwards: other tests look at all tasks."""
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in (0, None), line


def load_machine(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import a machine from a file of its own; workers of a build find it by that file."""
    path = folder / Path(code.partition("\n")[0].removeprefix("# ")).name
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"readme_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec.loader.exec_module(module)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("registry")
def test_everything_works_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    done = {"sh": 0, "python": 0, "toml": 0}
    pages = [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in BEYOND]
    for mark, language, text in [*BLOCKS, *(block for page in pages for block in BLOCK.findall(page))]:
        if mark:  # other tests run these, or make them again
            continue
        if language == "toml":
            (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        elif language == "python" and text.startswith("# tm/"):
            load_machine(text, tmp_path, monkeypatch)
        elif language == "python":
            exec(compile(text, "README.md", "exec"), {})
        elif language == "sh":
            commands = [line for line in text.splitlines() if line.startswith("caef-data")]
            for line in commands:
                run(line, monkeypatch)
            done["sh"] += len(commands) - 1
        if language in done:
            done[language] += 1
    assert done["sh"] >= 15 and done["python"] == 2 and done["toml"] == 2, done
    printed = capsys.readouterr().out
    (told,) = [text for mark, _, text in BLOCKS if mark.startswith("<!-- eval:")]
    accuracies = [line for line in told.splitlines() if line.startswith("│")]
    assert len(accuracies) == 2 and all(line in printed for line in accuracies)
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "smoke" / "manifest.json").is_file()
    assert (tmp_path / "double" / "manifest.json").is_file()


def recipe(target: str, **variables: str) -> list[str]:
    """Return what ``make`` would run for a target where nothing is installed yet."""
    settings = {"VENV": "/nowhere/.venv", **variables}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    result = subprocess.run(
        ["make", "-n", target, *(f"{name}={value}" for name, value in settings.items())],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return [line.replace("/nowhere/", "").rstrip() for line in result.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_two_commands_do_what_the_plain_lines_do() -> None:
    plain = next(text for _, language, text in BLOCKS if language == "sh" and "-m venv" in text)
    venv, install, build, _, install_dev, tests = plain.splitlines()
    data, test = recipe("data"), recipe("test")
    for made, wanted in ((data, (venv, install, build)), (test, (venv, install_dev, tests))):
        found = [line.replace(" --quiet --constraint ", " -c ").replace("--editable", "-e") for line in made]
        at = [found.index(line) for line in wanted]
        assert at == sorted(at)
    # the system's Python makes the virtual environment and does nothing else
    for line in (*data, *test):
        if line.startswith("python3"):
            assert line.startswith("python3 -c 'import sys") or line == venv
        assert not line.startswith(("pip ", "sudo "))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_an_old_python_is_refused_with_the_way_out(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    venv = tmp_path / "venv"
    result = subprocess.run(
        ["make", "data", f"PYTHON={old}", f"VENV={venv}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "3.11 or later" in result.stderr and "PYTHON=" in result.stderr
    assert not venv.exists()


def test_ci_runs_the_tests_as_the_readme_does() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = re.findall(r"^step (.+)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == ["make -j3 test lint"]
    assert re.search(r"^make test\b", README, re.MULTILINE)


def test_the_readme_is_short_and_shows_a_step_as_it_is() -> None:
    assert len(README.splitlines()) <= 220
    step = transition("add", 12, 9, 1)
    prompt, completion = step.prompt.splitlines(), step.completion.splitlines()
    left = ("prompt      ", " " * 12, "completion  ", " " * 12)
    assert "\n".join(map(str.__add__, left, prompt + completion)) in README
    for name in {path.name for path in (ROOT / "docs").glob("*.md")}:
        assert f"](docs/{name})" in README, f"the README does not lead to docs/{name}"


def test_links_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [(one, link) for one in documents for link in re.findall(r"\]\(([^)#][^)]*)\)", one.read_text("utf-8"))]
    assert links
    for document, link in links:
        link = link.partition("#")[0]
        assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"


def test_constraints_pin_what_the_project_needs() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if not line.startswith("#")}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = {name.lower() for name in re.findall(r'^  "([\w-]+)>=', text, re.MULTILINE)}
    assert needed and needed <= pinned
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines if not line.startswith("#"))
