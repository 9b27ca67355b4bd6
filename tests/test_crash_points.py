"""A kill before an operation on a file: the same command still finishes, with the same bytes.

``make test-all`` kills it before every single one, other tests before every second.
"""

import os
import subprocess
import sys
from pathlib import Path

from caef_data.tests.sizes import LONG

CRASH = """
import os, shutil, sys
from pathlib import Path
import pyarrow
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan

pyarrow.set_cpu_count(1)
root, every = Path(sys.argv[1]), int(sys.argv[2])
base = {"min": 1, "max": 2, "num": 2, "splits": ["train"], "rows_per_shard": 200}
small, other, more, less = (
    make_plan(from_flags(tasks, **{**base, **settings}))
    for tasks, settings in (
        (["add"], {"views": ["one_step", "raw"]}),
        (["add"], {"views": ["one_step", "full"], "num": 3}),
        (["add", "left_mask"], {"views": ["one_step", "raw"]}),
        (["left_mask"], {"views": ["one_step"]}),
    )
)
count = -1  # operations to go until the process dies; below 0: none are counted
def hook(event, args):
    global count
    if count >= 0 and event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(root) in str(args[0]):
        count -= 1
        if count < 0:
            os._exit(9)
sys.addaudithook(hook)
os.fsync = lambda handle: None  # the process dies here, the machine does not: waiting for the disk proves nothing

def child(plan, out, dies, **options):
    global count
    if (pid := os.fork()) == 0:
        count = dies
        try:
            build(plan, out, workers=1, **options)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def contents(folder):
    return {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in folder.rglob("*")}

scenarios = {  # what is there, what is built when the kill comes, what is built then
    "fresh": ([], small, small, {}),
    "adding": ([small], more, more, {}),
    "overwriting": ([small, less], other, other, {"overwrite": True}),
    "another after": ([less], small, other, {"overwrite": True}),
}
for first, (name, (before, killed, then, options)) in enumerate(scenarios.items()):
    first %= every
    start, reference = root / f"{name} start", root / f"{name} reference"
    for plan in before:
        build(plan, start, workers=1)
    if before:
        shutil.copytree(start, reference)
    build(then, reference, workers=1, **options)
    kills = first
    while True:
        out = root / "out"
        if before:
            shutil.copytree(start, out)
        code = child(killed, out, kills, **(options if killed is then else {}))
        assert code in (0, 9), (name, kills, code)
        assert child(then, out, -1, **options) == 0, (name, kills)
        left, wanted = contents(out), contents(reference)
        assert left.keys() == wanted.keys(), (name, kills, left.keys() ^ wanted.keys())
        assert left == wanted, (name, kills)
        shutil.rmtree(out)
        if code == 0:
            break
        kills += every
    print(name, kills)
"""


def test_a_kill_before_any_operation_on_a_file(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CRASH, tmp_path, "1" if LONG else "2"],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    kills = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in result.stdout.splitlines()}
    assert set(kills) == {"fresh", "adding", "overwriting", "another after"}
    assert min(kills.values()) > 10
