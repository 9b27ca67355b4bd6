# ruff: noqa: E402, F811  (the imports below are of packages that need not be installed; a fixture is one of them)
"""Several processes under torchrun train what one trains; they refuse, stop and go on as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

for name in ("torch", "transformers", "peft", "accelerate"):
    pytest.importorskip(name, reason="training needs caef-data[train]")

from safetensors.numpy import load_file

from caef_data.errors import UserError
from caef_data.eval.backends.ranks import Rank
from caef_data.eval.tables import read_runs
from caef_data.eval.training import console, loop
from caef_data.eval.training.plan import make_plan
from caef_data.eval.training.rows import WORK
from caef_data.eval.training.settings import train_settings
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.plan import make_plan as make_build
from caef_data.tests.test_train import ALONE, base, declared, learnt, losses, train  # noqa: F401

ONE = ALONE.replace("device_tokens = 700", "device_tokens = 350") + 'task = "add"\nwhich = "executors"\n'
# What happens in one of the processes, after step 5.
SCRIPT = """
import os, runpy, signal, time, pytest
from caef_data.errors import UserError
from caef_data.eval.training import rows
from caef_data.tests.test_train import ending_at
def refuse(*_):
    raise UserError("this row is too long")
if os.environ["RANK"] == "1":
    ending_at(5, {act}, pytest.MonkeyPatch())
runpy.run_module("caef_data", run_name="__main__")
"""
KILL = "lambda: os.kill(os.getpid(), signal.SIGKILL)"
# As a terminal does it to torchrun, which tells the processes.
CTRL_C = "lambda: (os.kill(os.getppid(), signal.SIGINT), time.sleep(3))"
REFUSE = 'lambda: setattr(rows.Job, "spell", refuse)'


def torchrun(folder: Path, path: str, out: Path, act: str = "lambda: None") -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT.replace("{act}", act))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    words += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", script, "train", path, "--out", out]
    alone = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run([*map(str, words)], env={**os.environ, **alone}, capture_output=True, text=True, timeout=400)


def losses_in(out: Path) -> list[float]:
    return [loss for _, loss, _ in losses(out / WORK / "executors-add" / loop.STATE)]


def test_the_rows_of_a_step_are_divided_among_the_processes(tmp_path: Path, base: Path) -> None:
    asked = train_settings(declared(tmp_path, base, ONE))
    [alone], [shared] = make_plan(*asked).jobs, make_plan(*asked, processes=2).jobs
    assert alone.identity == shared.identity
    assert (alone.parts, shared.parts, alone.stages) == (4, 4, shared.stages)
    [three] = make_plan(*asked, processes=3).jobs
    rows = [row for item in range(4) for row in alone[item]]
    assert three.parts == 3 and [row for item in range(3) for row in three[item]] == rows
    with pytest.raises(UserError, match=r"reads \d+ rows, too few for 9\d processes"):
        make_plan(*asked, processes=99 - len(rows) % 2)


def test_the_first_process_alone_tells_of_one_that_is_gone() -> None:
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    for rank, error, told in (
        (0, gone, UserError),
        (1, gone, SystemExit),
        (1, UserError("no"), UserError),  # only this one knows of it
        (1, RuntimeError("shapes differ"), RuntimeError),
    ):
        with pytest.raises(told), console._ending(Rank(rank, 2)):
            raise error


@pytest.mark.long
def test_two_processes_train_and_evaluate_as_one_does(tmp_path: Path, base: Path) -> None:
    asking = f'eval_every = 3\neval_limit = 3\ndata = "{tmp_path / "data"}"\n'
    path = declared(tmp_path, base, ONE + asking)
    build(make_build(load_declaration(path)), tmp_path / "data", workers=1)
    runs = {}
    for out in ("one", "two"):
        kept = declared(tmp_path / out, base, ONE + asking + f'results = "{tmp_path / out / "results"}"\n')
        if out == "one":
            train(kept, tmp_path / out / "ckpt")
        else:
            done = torchrun(tmp_path, kept, tmp_path / out / "ckpt")
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("executors/add in ") == 1 and done.stderr.count("executors-add-step-3: ") == 1
        runs[out] = {(row["name"], row["calls"], row["status"]) for row in read_runs(tmp_path / out / "results")}
    assert runs["one"] == runs["two"] and len(runs["one"]) == 2
    one, two = tmp_path / "one" / "ckpt", tmp_path / "two" / "ckpt"
    assert losses_in(two) == pytest.approx(losses_in(one), rel=1e-5) and len(losses_in(one)) == 6
    one_kept, two_kept = (load_file(out / "executors" / "add" / "adapter_model.safetensors") for out in (one, two))
    assert one_kept.keys() == two_kept.keys()
    for name, weights in one_kept.items():
        assert abs(weights - two_kept[name]).max() < 2e-4 * max(1.0, abs(weights).max()), name


@pytest.mark.long
def test_after_one_process_is_killed_or_stopped_the_same_command_goes_on(tmp_path: Path, base: Path) -> None:
    path = declared(tmp_path, base, ONE.replace("steps = 6", "steps = 12"))
    assert torchrun(tmp_path, path, tmp_path / "whole").returncode == 0
    for act, said in ((KILL, "another process of this training ended"), (CTRL_C, "stopped: what was learnt")):
        out = tmp_path / said[:7]
        done = torchrun(tmp_path, path, out, act)
        assert done.returncode != 0 and done.stderr.count(said) == 1, done.stderr
        assert "eval/training/" not in done.stderr  # no traceback of ours
        state = loop.last_state(out / WORK / "executors-add")
        assert state is not None and int(state.name.rpartition("-")[2]) >= 4
        assert torchrun(tmp_path, path, out).returncode == 0
        assert learnt(out) == learnt(tmp_path / "whole")


@pytest.mark.long
def test_what_one_process_refuses_ends_all_with_one_message(tmp_path: Path, base: Path) -> None:
    path = declared(tmp_path, base, ONE.replace("steps = 6", "steps = 12"))
    done = torchrun(tmp_path, path, tmp_path / "out", REFUSE)
    assert done.returncode != 0 and done.stderr.count("this row is too long") == 1, done.stderr
    assert loop.last_state(tmp_path / "out" / WORK / "executors-add") is not None
