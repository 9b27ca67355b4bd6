#!/usr/bin/env bash
# grain 0.2.18: one null in a row group turns the integers of the whole group into floats, other numbers above 2**53.
#
# Behaviour: ParquetIterDataset reads a row group by way of pandas. An int64 column comes as int64 where its group has no
# null, as float64 where it has one: the null is NaN there, and 2**53 + 1 is 2**53. A column of booleans comes as bool, and
# as bool with None. The type of a column changes from row to row of one file, and nothing is said.
# Expected (guess before the run): int, None and str, as they stand in the file; texts and texts by dictionary do come so.
# Way round: rows by pyarrow (`to_pylist`) in a source of one's own, or integers without nulls.
#
# Output seen with Python 3.11, pyarrow 26.0.1; a file with two row groups of two rows:
#     int64     1                    bool      True
#     int64     2                    NoneType  None
#     float64   9007199254740992.0   bool      False
#     float64   nan                  bool      True
#     pyarrow: [1, 2, 9007199254740993, None]
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grain==0.2.18 pyarrow==26.0.1
cd "$folder"
cat > run.py <<'PYTHON'
import pyarrow as pa
import pyarrow.parquet as pq
from grain.experimental import ParquetIterDataset

numbers = pa.array([1, 2, 2**53 + 1, None], pa.int64())
flags = pa.array([True, None, False, True])
pq.write_table(pa.table({"number": numbers, "flag": flags}), "rows.parquet", row_group_size=2)
for row in ParquetIterDataset("rows.parquet"):
    number, flag = row["number"], row["flag"]
    print(f"{type(number).__name__:<9} {number!s:<20} {type(flag).__name__:<9} {flag}")
print("pyarrow:", pq.read_table("rows.parquet")["number"].to_pylist())
PYTHON
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
int64     1                    bool      True
int64     2                    NoneType  None
float64   9007199254740992.0   bool      False
float64   nan                  bool      True
pyarrow: [1, 2, 9007199254740993, None]
TEXT
diff expected.txt seen.txt
cat seen.txt
