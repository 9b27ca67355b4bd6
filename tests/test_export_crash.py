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
from caef_data.pipelines.export import Style, export

small, root, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
count = -1  # operations to go until the process dies; below 0: none are counted
def hook(event, args):
    global count
    if count >= 0 and event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(root) in str(args[0]):
        count -= 1
        if count < 0:
            os._exit(9)
sys.addaudithook(hook)
os.fsync = lambda handle: None  # the process dies here, the machine does not: waiting for the disk proves nothing

def child(out, dies):
    global count
    if (pid := os.fork()) == 0:
        count = dies
        try:
            export(str(small), str(out), Style("alpaca", "second"))
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def contents(folder):
    return {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in folder.rglob("*")}

kills, out = 0, root / "out" / "export"
assert child(root / "reference", -1) == 0
while True:
    out.parent.mkdir()
    code = child(out, kills)
    assert code in (0, 9), (kills, code)
    assert out.exists() or child(out, -1) == 0, kills  # it is there whole, or not at all
    left, right = contents(out), contents(root / "reference")
    assert left == right, (kills, [k for k in left.keys() | right.keys() if left.get(k) != right.get(k)])
    assert os.listdir(out.parent) == ["export"]
    shutil.rmtree(out.parent)
    if code == 0:
        break
    kills += every
print(kills)
"""


def test_a_kill_before_any_operation_on_a_file(tmp_path: Path) -> None:
    settings = {"min": 1, "max": 1, "num": 2, "splits": ["test"], "views": ["one_step"], "rows_per_shard": 50}
    build(make_plan(from_flags(["add", "equal"], **settings)), tmp_path / "small", workers=1)
    result = subprocess.run(
        [sys.executable, "-c", CRASH, tmp_path / "small", tmp_path, "1" if LONG else "3"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert int(result.stdout) > 10
