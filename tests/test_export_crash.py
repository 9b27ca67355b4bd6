"""A kill before an operation on a file: the same export still finishes, with the same bytes.

``make test-all`` kills it before every single one, other tests before every third.
"""

import subprocess
import sys
from pathlib import Path

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.tests.sizes import LONG

CRASH = """
import os, shutil, sys
from pathlib import Path
from caef_data.pipelines.export import export
from caef_data.pipelines.export_rows import Style

small, other, root, every = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
count = -1  # operations to go until the process dies; below 0: none are counted
def hook(event, args):
    global count
    if count >= 0 and event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(root) in str(args[0]):
        count -= 1
        if count < 0:
            os._exit(9)
sys.addaudithook(hook)
os.fsync = lambda handle: None  # the process dies here, the machine does not: waiting for the disk proves nothing

def child(out, dies, dataset, style, **options):
    global count
    if (pid := os.fork()) == 0:
        count = dies
        try:
            export(str(dataset), str(out), style, **options)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def contents(folder):
    return {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in folder.rglob("*")}

one, two = {"configs": ["add-one_step"]}, {"configs": ["equal-one_step"]}
alpaca, jsonl = Style("alpaca", "second"), Style("jsonl", "second")
killed = {**one, "progress": lambda *_: os._exit(9)}  # once a file is finished
scenarios = {  # what is there, then what is killed
    "fresh": ([], (small, alpaca, one)),
    "adding": ([(small, alpaca, one)], (small, alpaca, two)),
    "another style": ([(small, alpaca, one)], (small, jsonl, two)),
    "another stage": ([(small, Style("jsonl", "first"), killed)], (small, jsonl, one)),
    "other rows": ([(small, alpaca, one), (small, alpaca, two)], (other, alpaca, one)),
}
for first, (name, (before, (dataset, style, options))) in enumerate(scenarios.items()):
    first %= every
    options = {**options, "overwrite": len(before) > 0 and name != "adding"}
    start, reference, out = root / f"{name} start", root / f"{name} reference", root / "out"
    for old, form, own in before:
        assert child(start, -1, old, form, **own) == (9 if own is killed else 0)
    if before:
        shutil.copytree(start, reference)
    assert child(reference, -1, dataset, style, **options) == 0
    kills = first
    while True:
        if before:
            shutil.copytree(start, out)
        code = child(out, kills, dataset, style, **options)
        assert code in (0, 9), (name, kills, code)
        assert child(out, -1, dataset, style, **options) == 0, (name, kills)
        left, right = contents(out), contents(reference)
        assert left == right, (name, kills, [k for k in left.keys() | right.keys() if left.get(k) != right.get(k)])
        shutil.rmtree(out)
        if code == 0:
            break
        kills += every
    print(name, kills)
"""


def test_a_kill_before_any_operation_on_a_file(tmp_path: Path) -> None:
    small, other = tmp_path / "small", tmp_path / "other"
    settings = {"min": 1, "max": 1, "num": 2, "splits": ["test"], "views": ["one_step"], "rows_per_shard": 50}
    for out, seed in ((small, 0), (other, 1)):
        build(make_plan(from_flags(["add", "equal"], **settings, seed=seed)), out, workers=1)
    result = subprocess.run(
        [sys.executable, "-c", CRASH, small, other, tmp_path, "1" if LONG else "3"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    kills = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in result.stdout.splitlines()}
    assert set(kills) == {"fresh", "adding", "another style", "another stage", "other rows"}
    assert min(kills.values()) > 10
