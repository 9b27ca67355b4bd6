#!/usr/bin/env bash
# @dsnp/parquetjs 1.8.8: a column of booleans in data pages of version 2 is read as false throughout, in silence.
#
# Behaviour: pages of version 2 hold booleans as runs (RLE), as pyarrow writes them with data_page_version="2.0". The
# reader takes such a file, gives the right number of rows, nulls in their places, and false for each true. A file of
# rows that are all checked is one of rows that all failed. Integers and texts of such pages are right; encodings that the
# reader does not know, as DELTA_BINARY_PACKED, raise an error. Apart from that, unsigned integers come out negative
# in pages of either version: uint32 from 2**31 on, uint64 from 2**63 on.
# Expected (guess before the run): the values of the file, or an error.
# Way round: data_page_version="1.0" (pyarrow's default) and signed integers; hyparquet 1.33.0 reads all of it.
#
# Output seen with pyarrow 26.0.1, Python 3.11, Node.js 20; six rows:
#     pages  column  parquetjs                                  hyparquet
#     1.0    flag    true,null,false,true,true,true             true,null,false,true,true,true
#     2.0    flag    false,null,false,false,false,false         true,null,false,true,true,true
#     2.0    number  1,null,9007199254740993,4,5,6              1,null,9007199254740993,4,5,6
#     2.0    text    12,null,9=,12,,7                           12,null,9=,12,,7
#     1.0    seed    1,null,-2147483648,-1,5,6                  1,null,2147483648,4294967295,5,6
#     2.0    seed    1,null,-2147483648,-1,5,6                  1,null,2147483648,4294967295,5,6
#
# Installs these packages in a temporary folder and fails where the output is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
cd "$folder"
npm init -y > npm.txt 2>&1
npm install --silent --no-audit --no-fund @dsnp/parquetjs@1.8.8 hyparquet@1.33.0 >> npm.txt 2>&1 || { cat npm.txt; exit 1; }
cat > write.py <<'PYTHON'
import pyarrow as pa
import pyarrow.parquet as pq

columns = {
    "flag": pa.array([True, None, False, True, True, True]),
    "number": pa.array([1, None, 2**53 + 1, 4, 5, 6]),
    "text": pa.array(["12", None, "9=", "12", "", "7"]),
    "seed": pa.array([1, None, 2**31, 2**32 - 1, 5, 6], pa.uint32()),
}
for version in ("1.0", "2.0"):
    for name, values in columns.items():
        pq.write_table(pa.table({name: values}), f"{version}-{name}.parquet", data_page_version=version)
PYTHON
"$folder/venv/bin/python" write.py
cat > read.mjs <<'JAVASCRIPT'
import parquetjs from "@dsnp/parquetjs";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";

const text = (rows, column) => rows.map((row) => String(row[column])).join();
console.log("pages  column  parquetjs                                  hyparquet");
for (const [pages, column] of [
  ["1.0", "flag"], ["2.0", "flag"], ["2.0", "number"], ["2.0", "text"], ["1.0", "seed"], ["2.0", "seed"],
]) {
  const path = `${pages}-${column}.parquet`;
  const reader = await parquetjs.ParquetReader.openFile(path);
  const cursor = reader.getCursor();
  const rows = [];
  for (let row = await cursor.next(); row; row = await cursor.next()) rows.push(row);
  await reader.close();
  const others = await parquetReadObjects({ file: await asyncBufferFromFile(path) });
  console.log(`${pages}    ${column.padEnd(6)}  ${text(rows, column).padEnd(41)}  ${text(others, column)}`);
}
JAVASCRIPT
node read.mjs > seen.txt 2> errors.txt || { cat errors.txt; exit 1; }
cat > expected.txt <<'TEXT'
pages  column  parquetjs                                  hyparquet
1.0    flag    true,null,false,true,true,true             true,null,false,true,true,true
2.0    flag    false,null,false,false,false,false         true,null,false,true,true,true
2.0    number  1,null,9007199254740993,4,5,6              1,null,9007199254740993,4,5,6
2.0    text    12,null,9=,12,,7                           12,null,9=,12,,7
1.0    seed    1,null,-2147483648,-1,5,6                  1,null,2147483648,4294967295,5,6
2.0    seed    1,null,-2147483648,-1,5,6                  1,null,2147483648,4294967295,5,6
TEXT
diff expected.txt seen.txt
cat seen.txt
