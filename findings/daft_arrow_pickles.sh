#!/usr/bin/env bash
# daft 0.7.26: a column by dictionary or by view, taken from Arrow, is written to Parquet as pickles, in silence.
#
# Behaviour: from_arrow has no type of its own for texts by dictionary, for string_view and for decimals of 76 digits.
# It makes Python objects of their values; to_pydict and filters show nothing of it. write_parquet writes each value as
# a pickle, in bytes of an extension type. Another reader gets these bytes in place of "12+9=21", without an error, and
# would have to unpickle what stands in a file. Plain texts and decimals of 38 digits are written as they are.
# Expected (guess before the run): the values are written as they are, or an error for a type that daft does not know.
# Way round: cast such columns to string() or decimal128 in Arrow before from_arrow.
#
# Output seen with pyarrow 25.0.1, Python 3.11:
#     text                  in daft: String    in the file: the value, large_string
#     large text            in daft: String    in the file: the value, large_string
#     decimal of 38 digits  in daft: Decimal   in the file: the value, decimal128(38, 0)
#     text by dictionary    in daft: Python    in the file: a pickle of it, an extension type
#     text by view          in daft: Python    in the file: a pickle of it, an extension type
#     decimal of 76 digits  in daft: Python    in the file: a pickle of it, an extension type
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet daft==0.7.26 pyarrow==25.0.1
cd "$folder"
cat > run.py <<'PYTHON'
import pickle
from decimal import Decimal

import daft
import pyarrow as pa
import pyarrow.parquet as pq

KINDS = {
    "text": pa.array(["12+9=21", "7"]),
    "large text": pa.array(["12+9=21", "7"], pa.large_string()),
    "decimal of 38 digits": pa.array([Decimal(10**37 + 1), Decimal(7)], pa.decimal128(38, 0)),
    "text by dictionary": pa.array(["12+9=21", "7"]).dictionary_encode(),
    "text by view": pa.array(["12+9=21", "7"], pa.string_view()),
    "decimal of 76 digits": pa.array([Decimal(10**75 + 1), Decimal(7)], pa.decimal256(76, 0)),
}
for number, (name, values) in enumerate(KINDS.items()):
    frame = daft.from_arrow(pa.table({"x": values}))
    [path] = frame.write_parquet(f"written{number}").to_pydict()["path"]
    column = pq.read_table(path.removeprefix("file://")).column("x")
    wanted, found = values.to_pylist()[1], column.to_pylist()[1]
    end = "the value" if found == wanted else "a pickle of it" if pickle.loads(found) == wanted else "neither"
    kind = "an extension type" if isinstance(column.type, pa.BaseExtensionType) else column.type
    print(f"{name:<21} in daft: {str(frame.schema()['x'].dtype).partition('[')[0]:<9} in the file: {end}, {kind}")
PYTHON
"$folder/venv/bin/python" run.py > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
text                  in daft: String    in the file: the value, large_string
large text            in daft: String    in the file: the value, large_string
decimal of 38 digits  in daft: Decimal   in the file: the value, decimal128(38, 0)
text by dictionary    in daft: Python    in the file: a pickle of it, an extension type
text by view          in daft: Python    in the file: a pickle of it, an extension type
decimal of 76 digits  in daft: Python    in the file: a pickle of it, an extension type
TEXT
diff expected.txt seen.txt
cat seen.txt
