"""Environments as other libraries take them: what needs no library, and reasoning-gym and verifiers themselves.

``make test`` lays these two below ``.venv/environments``; ``CAEF_ENVIRONMENTS`` names another folder. The others are
run by tests/test_ecosystem_environments.py.
"""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from caef_data import UserError, environment, successor
from caef_data.eval.environments.trl_rewards import reward
from caef_data.tests.test_successor import ADD, MUL

ROOT = Path(__file__).resolve().parents[1]
ASIDE = Path(os.environ.get("CAEF_ENVIRONMENTS") or Path(sys.prefix, "environments"))


def run(name: str, folder: Path, python: Path | str = sys.executable, aside: Path | None = None) -> None:
    """Run a function of foreign_environments.py in a process of its own."""
    links = folder / "links"
    links.mkdir()
    (links / "caef_data").symlink_to(ROOT)
    (links / "caef_taskset").symlink_to(ROOT / "eval" / "environments" / "caef_taskset")
    path = os.pathsep.join(map(str, (links, *([aside] if aside else []))))
    command = [str(python), str(Path(__file__).with_name("foreign_environments.py")), name, str(folder)]
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, cwd=folder, check=False)
    assert done.returncode == 0 and done.stdout.endswith("right\n"), (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize("name", ["reasoning_gym", "verifiers"])
def test_by_its_own_library(name: str, tmp_path: Path) -> None:
    if not (ASIDE / name).is_dir():
        pytest.skip(f"{name} is not in {ASIDE}: make test")
    run(name, tmp_path, aside=ASIDE)


def test_rewards() -> None:
    right = [successor(ADD), successor(MUL)]
    asked = dict(prompts=[ADD, MUL, ADD], completions=[*right, right[0].replace("[C]0", "[C]1")])
    assert reward(**asked, task=["add", "mul", "add"], a=["1"] * 3) == reward(**asked) == [1.0, 1.0, 0.0]
    assert reward(["12+9=", "x"], ["21", "21\n"], expected=["21", "21"]) == [1.0, 0.0]
    talk = [[{"role": "system", "content": "x"}, {"role": "user", "content": ADD}]]
    assert reward(talk, [[{"role": "assistant", "content": right[0]}]]) == [1.0]
    assert (
        reward(talk, [[{"role": "assistant", "content": None}]]) == reward(talk, [[]]) == reward(talk, [None]) == [0.0]
    )
    with pytest.raises(UserError, match="must begin with the name of a machine"):
        reward(["What is 1 + 2?"], ["3"])
    with pytest.raises(UserError, match="the answer must be a text"):
        reward(talk, [[{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]])


def test_scores_of_lm_eval() -> None:
    spec = spec_from_file_location("caef_rows", ROOT / "eval/environments/lm_eval_tasks/caef_rows.py")
    assert spec is not None and spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = environment("smoke", split="test").rows
    for row in map(rows.__getitem__, range(5)):
        assert module.process_results(row, [row["completion"]]) == {"exact": 1.0}
        assert module.process_results(row, [row["completion"][:-1]]) == {"exact": 0.0}
