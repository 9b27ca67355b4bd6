"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.plan import make_plan


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the shipped declaration ``smoke``, built in this process; tests only read it."""
    out = tmp_path_factory.mktemp("smoke") / "data"
    build(make_plan(load_declaration("smoke")), out, workers=1)
    return out
