"""Environments run by the libraries that they are for, in a virtual environment of their own: make test-ecosystem."""

import os
import sys
from pathlib import Path

import pytest

from caef_data.tests.test_environment_packages import run

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

ROOT = Path(os.environ.get("CAEF_TOOLS") or sys.prefix)


@pytest.mark.parametrize("name", ["inspect_ai", "lm_eval", "openenv", "verifiers", "verifiers_command"])
def test_by_its_own_library(name: str, tmp_path: Path) -> None:
    python = ROOT / ("verifiers" if name.startswith("verifiers") else "tools") / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no {python}: make test-ecosystem")
    run(name, tmp_path, python)


def test_grpo(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="training needs caef-data[train]")
    run("trl", tmp_path)
