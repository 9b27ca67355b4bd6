#!/usr/bin/env bash
# datasets 5.2.0: with one null in it, an int64 column comes as float32 under the format numpy: 16777217 is 16777216.
#
# Behaviour: with_format("numpy") gives an int64 column as int64. Where a slice or a batch holds a null, the same column
# comes as float32, with NaN for the null, and each other number of that slice is rounded to 24 bits. Another slice of
# the same column is exact. Nothing is said. The format torch does the same; pandas rounds to 53 bits; arrow, polars
# and rows without a format are exact.
# Expected (seen by the way, no guess before): float64 with NaN, as numpy and pandas have it, or an error.
# Way round: with_format("numpy", dtype="float64") up to 2**53; or nulls filled first, or no format.
#
# Output seen with numpy 2.4.6, pyarrow 26.0.1; the rows are 16777217, 16777219, None, 123456789:
#     rows 0 to 1  numpy  int64    16777217 16777219
#     rows 1 to 3  numpy  float32  16777220 nan 123456792
#     batches of 2 numpy  int64    16777217 16777219
#     batches of 2 numpy  float32  nan 123456792
#     rows 1 to 3  none   list     16777219 None 123456789
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
cat > run.py <<'PYTHON'
from datasets import Dataset, Features, Value

numbers = [16777217, 16777219, None, 123456789]
rows = Dataset.from_dict({"number": numbers}, features=Features({"number": Value("int64")}))
arrays = rows.with_format("numpy")


def show(name, style, values):
    kind = str(getattr(values, "dtype", "list"))
    texts = [value if value is None or value != value else int(value) for value in values]
    print(f"{name:<12} {style:<6} {kind:<8}", *texts)


show("rows 0 to 1", "numpy", arrays[0:2]["number"])
show("rows 1 to 3", "numpy", arrays[1:4]["number"])
for batch in arrays.iter(batch_size=2):
    show("batches of 2", "numpy", batch["number"])
show("rows 1 to 3", "none", rows[1:4]["number"])
PYTHON
HF_HOME="$folder/home" "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
rows 0 to 1  numpy  int64    16777217 16777219
rows 1 to 3  numpy  float32  16777220 nan 123456792
batches of 2 numpy  int64    16777217 16777219
batches of 2 numpy  float32  nan 123456792
rows 1 to 3  none   list     16777219 None 123456789
TEXT
diff expected.txt seen.txt
cat seen.txt
