"""Files for people who change the project: they parse, name what is there, and their example works."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from caef_data import __version__
from caef_data.tm import tasks
from caef_data.tm.machine import REGISTRY

ROOT = Path(__file__).resolve().parents[1]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_machine_of_the_docs_passes_the_test_of_contributing() -> None:
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("docs/machines-of-your-own.md", "CONTRIBUTING.md")]
    code, test = re.findall(r"^```python\n(.*?)^```$", "".join(pages), re.MULTILINE | re.DOTALL)
    try:
        exec(compile(code, "machines-of-your-own.md", "exec"), {"__name__": "contributed"})
        assert "double" in tasks()
        space: dict[str, Any] = {}
        exec(compile(test, "CONTRIBUTING.md", "exec"), space)
        (run,) = [value for name, value in space.items() if name.startswith("test_")]
        run()
    finally:
        REGISTRY.pop("double", None)


def test_hooks_are_local_and_run_what_is_installed() -> None:
    (repository,) = load(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook for hook in repository["hooks"]}
    assert hooks.keys() == {"ruff", "ruff-format", "mypy"}
    assert all(hook["language"] == "system" for hook in hooks.values())
    development = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    names = {re.split("[>=<]", one)[0] for one in development}
    assert {"ruff", "mypy"} <= names
    assert re.search(r"^types:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["tests", "release"])
def test_workflows_run_the_tests(name: str) -> None:
    workflow = load(f".github/workflows/{name}.yml")
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert {"run": ".ci/run"} in steps
    trigger = workflow[True]  # YAML reads the key `on` as a truth value
    assert trigger["push"] == ({"tags": ["v*"]} if name == "release" else {"branches": ["main"]})


def test_issue_forms_have_what_the_site_asks_for() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 2
    for form in forms:
        held = load(str(form.relative_to(ROOT)))
        assert held["name"] and held["description"]
        assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in held["body"])


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = load("CITATION.cff")
    assert str(citation["version"]) == __version__ and citation["license"] == "Apache-2.0"
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2410.07896" and len(paper["authors"]) == 6
    assert paper["title"] in (ROOT / "README.md").read_text(encoding="utf-8")
