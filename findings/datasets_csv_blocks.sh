#!/usr/bin/env bash
# datasets 5.2.0: in a CSV column of texts, a block of 10,000 rows that look like numbers loses its zeros.
#
# Behaviour: a CSV file is read in blocks of 10,000 rows. The first block settles the column's type, here text. pandas
# guesses a type for each later block anew; what it took for numbers is then written as text again. The same "007" is
# "007" in a block with a word in it, and "7" in one without. The column is text everywhere, and nothing is said.
# Expected (guess before the run): a column of texts holds the texts of the file; or a block of another type is an
# error, as it is where the first block has numbers only.
# Way round: features=Features({"text": Value("string")}), or chunksize=None, which reads the file as one block.
#
# Output seen: the same text in the first block, beside a word, and in the second.
#     first block         second, plain       second, streaming     second, features     second, one block
#     007                 7                   7                     007                  007
#     -0                  0                   0                     -0                   -0
#     +21                 21                  21                    +21                  +21
#     2.50                2.5                 2.5                   2.50                 2.50
#     1e10                1e+10               1e+10                 1e10                 1e10
#     0.1000000000000000  0.1                 0.1                   0.1000000000000000   0.1000000000000000
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pandas==3.1.1 pyarrow==26.0.1
cd "$folder"
cat > run.py <<'PYTHON'
import datasets
from datasets import Features, Value, load_dataset

datasets.disable_progress_bars()
TEXTS = ["007", "-0", "+21", "2.50", "1e10", "0.1000000000000000"]
WAYS = {
    "plain": {},
    "streaming": {"streaming": True},
    "features": {"features": Features({"text": Value("string")})},
    "one block": {"chunksize": None},
}
row = "{:<19} {:<19} {:<21} {:<20} {}"
print(row.format("first block", *(f"second, {way}" for way in WAYS)))
for text in TEXTS:
    with open("rows.csv", "w") as file:
        file.write(f"text\nADD\n{text}\n" + "ADD\n" * 9_998 + f"{text}\n" * 2)
    found = {}
    for way, options in WAYS.items():
        rows = list(load_dataset("csv", data_files="rows.csv", split="train", cache_dir="cache", **options))
        assert len(rows) == 10_002 and all(type(row["text"]) is str for row in rows)
        found[way] = rows
    print(row.format(found["plain"][1]["text"], *(rows[-1]["text"] for rows in found.values())))
PYTHON
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
first block         second, plain       second, streaming     second, features     second, one block
007                 7                   7                     007                  007
-0                  0                   0                     -0                   -0
+21                 21                  21                    +21                  +21
2.50                2.5                 2.5                   2.50                 2.50
1e10                1e+10               1e+10                 1e10                 1e10
0.1000000000000000  0.1                 0.1                   0.1000000000000000   0.1000000000000000
TEXT
diff expected.txt seen.txt
cat seen.txt
