#!/usr/bin/env bash
# datasets 2.14.7: what a card says in a config's `description` is left out of the key under which rows are kept.
#
# Behaviour: load_dataset keeps what it has read of a local folder with a card under the folder's last name and the
# card's `configs`. The files are replaced by others and `description`, a field of every configuration, is changed with
# them: 3.6.0 and 5.2.0 read the files, 2.14.7 gives the old rows without a word. With nothing changed in the card all
# three give the old rows. A changed `version` has all three read the files.
# Expected (guess before the run): 2.14.7 takes note of a changed description as 3.6.0 and 5.2.0 do.
# Way round: change `version`; it is part of the path of what is kept.
#
# Output seen with pyarrow 26.0.1, Python 3.11:
#     2.14.7 nothing: old rows, description: old rows, version: new rows
#     3.6.0 nothing: old rows, description: new rows, version: new rows
#     5.2.0 nothing: old rows, description: new rows, version: new rows
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat > run.py <<'PYTHON'
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq


def write(folder: Path, number: int, line: str) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"number": [number]}), folder / "train-0.parquet")
    card = "---\nconfigs:\n- config_name: one\n%s  data_files:\n  - split: train\n    path: train-*.parquet\n---\n"
    (folder / "README.md").write_text(card % line)


def read(folder: Path) -> int:
    return datasets.load_dataset(str(folder), "one", split="train", cache_dir=f"cache-{folder}")[0]["number"]


datasets.disable_progress_bar()
found = []
lines = {"nothing": "", "description": "  description: content %d\n", "version": "  version: 0.0.%d\n"}
for key, line in lines.items():
    folder = Path(f"{key}-{datasets.__version__}")
    write(folder, 1, line.replace("%d", "1"))
    assert read(folder) == 1
    write(folder, 2, line.replace("%d", "2"))
    found.append(f"{key}: {'new' if read(folder) == 2 else 'old'} rows")
print(datasets.__version__, ", ".join(found))
PYTHON
found=
for version in 2.14.7 3.6.0 5.2.0; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet "datasets==$version" 2> errors || { cat errors; exit 1; }
    line=$(HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$folder/home" "$version/bin/python" run.py 2> errors | tail -n 1)
    found+="$line"$'\n'
done
printf '%s' "$found"
wanted='2.14.7 nothing: old rows, description: old rows, version: new rows
3.6.0 nothing: old rows, description: new rows, version: new rows
5.2.0 nothing: old rows, description: new rows, version: new rows
'
[ "$found" = "$wanted" ] || { cat errors; echo "another output than the one described" >&2; exit 1; }
