"""The benchmarks run, at a size that says nothing of speed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_evaluating(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ["--small", "--repeat", "1", "--json", str(out), "--only", "one_step", "half", "padding", "gpu"]
    command = [sys.executable, str(ROOT / "benchmarks" / "eval.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in json.loads(out.read_text())["rows"]}
    assert {"one_step", "half", "padding"} <= set(rows)
    assert 0.97 <= rows["padding"]["measured"] <= 1
    assert min(seconds for row in rows.values() for found in row["runs"].values() for seconds in found) > 0
    assert "gpu" in rows or "gpu: skipped, torch sees no GPU" in done.stderr
