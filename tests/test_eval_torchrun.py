"""Several processes under torchrun share an evaluation: the tables are those of one."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("torch", reason="torchrun comes with torch")
pytest.importorskip("peft", reason="the tiny model needs peft")

from caef_data.tests.commands import call

CKPT = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "ckpt"
TABLES = ("calls", "class_accuracy", "failures")


def rows(results: Path, table: str) -> pl.DataFrame:
    return pl.read_parquet(results / table / "**" / "*.parquet")


def test_two_processes_leave_the_tables_of_one(tmp_path: Path) -> None:
    lengths = ["--min", "3", "--max", "5", "--num", "1", "--num-test", "1"]  # of additions of 5 digits it fails many
    code, said = call("build", "--task", "add,equal", *lengths, "--out", tmp_path / "data")
    assert code == 0, said
    asked = ["eval", "--adapters", CKPT, "--data", tmp_path / "data"]
    asked += ["--limit", "3", "--dtype", "float32", "--batch-tokens", "1024"]
    code, said = call(*asked, "--out", tmp_path / "alone")
    assert code == 0, said
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    torchrun += ["--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", "-m", "caef_data"]
    done = subprocess.run(
        [*torchrun, *map(str, asked), "--out", str(tmp_path / "together")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run ") == 1  # one process speaks
    for table in TABLES:
        alone, together = rows(tmp_path / "alone", table), rows(tmp_path / "together", table)
        assert len(alone) > 0
        same = [name for name in alone.columns if name != "margin"]  # of other batches: the last bits differ
        assert alone.select(same).sort(same).equals(together.select(same).sort(same)), table
    wrong = rows(tmp_path / "alone", "class_accuracy")
    assert 0 < wrong["correct"].sum() < wrong["n"].sum()  # right and wrong ones, so that there is something to share
