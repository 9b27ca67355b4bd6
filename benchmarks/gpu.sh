#!/usr/bin/env bash
# Tests and measures evaluation and training on a GPU, in 8 minutes at most. Runs from the tree: nothing is installed,
# no network.
#
#     benchmarks/gpu.sh                 everything; prints a table, and keeps it in benchmarks/gpu.json
#     benchmarks/gpu.sh --small         tries the script on small things, also on a CPU; its numbers say nothing
#     benchmarks/gpu.sh --wheels        fetches what whole evaluations and training need (duckdb, msgspec, polars) into
#                                       .wheels/: before, where there is a network; the GPU's machine gets them with the tree
#     python benchmarks/gpu.py --write docs/speed.md        puts what was kept into the page
#
# Needs torch, transformers, peft, pyarrow, typer and safetensors. PYTHON names another interpreter than python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

if [ "${1:-}" = --wheels ]; then
    exec "$python" -m pip download --quiet --no-deps --only-binary :all: --python-version "${2:-3.12}" \
        --constraint "$root/constraints.txt" --dest "$root/.wheels" duckdb msgspec polars polars-runtime-32
fi

# The repository's root is the package: Python finds it under its name through a link in a temporary folder.
link=$(mktemp -d)
trap 'rm -r "$link"' EXIT
ln -s "$root" "$link/caef_data"
for wheel in "$root"/.wheels/*.whl; do
    name=$(basename "$wheel")
    if [ -e "$wheel" ] && ! "$python" -c "import ${name%%-*}" 2>/dev/null; then
        "$python" -m zipfile -e "$wheel" "$link"
    fi
done
PYTHONPATH="$link${PYTHONPATH:+:$PYTHONPATH}" "$python" "$root/benchmarks/gpu.py" "$@"
