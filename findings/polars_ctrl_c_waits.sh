#!/usr/bin/env bash
# polars 2.1.0: after `import polars`, Ctrl-C does not end a wait for a thread any more.
#
# Behaviour: a process whose main thread waits on an event, a lock or a pool's result raises KeyboardInterrupt at SIGINT.
# With polars imported, and nothing of it used, it waits on, until what it waits for happens. Python's handler still
# stands in signal.getsignal. After signal.siginterrupt(signal.SIGINT, True) the wait ends as before: the call of the
# system was begun again after the signal.
# Expected (guess before the run): an import alone leaves signals as they are.
# Way round: signal.siginterrupt(signal.SIGINT, True) after the import, or waits with a time limit in a loop.
#
# Output seen with Python 3.11:
#     nothing: KeyboardInterrupt
#     import polars: still waiting after 4 s
#     import polars, siginterrupt: KeyboardInterrupt
#
# Installs polars in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > run.py <<'PYTHON'
import signal
import subprocess
import sys
import time

AGAIN = "import signal; signal.siginterrupt(signal.SIGINT, True)"
WAIT = """
import threading
print("waiting", flush=True)
try:
    threading.Event().wait()
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
"""
BEFORE = {"nothing": "", "import polars": "import polars", "import polars, siginterrupt": f"import polars; {AGAIN}"}
for name, line in BEFORE.items():
    with subprocess.Popen([sys.executable, "-c", line + WAIT], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            print(f"{name}: {process.communicate(timeout=4)[0].strip()}")
        except subprocess.TimeoutExpired:
            print(f"{name}: still waiting after 4 s")
            process.kill()
PYTHON
python3 -m venv env
env/bin/python -m pip install --quiet polars==2.1.0
env/bin/python run.py | tee seen
diff seen - <<'SEEN'
nothing: KeyboardInterrupt
import polars: still waiting after 4 s
import polars, siginterrupt: KeyboardInterrupt
SEEN
