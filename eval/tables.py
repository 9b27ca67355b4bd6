"""Result tables on disk: parts written in one step, read back only when whole, and the accuracy of classes.

``results/<table>/run_id=<16 hex digits>/<part>.parquet``
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import TEMPORARY, aside, place
from ..errors import UserError, printable_path
from ..pipelines.engine import LEVEL
from ..schemas import RESULTS, part_schema, results

RUN_ID = re.compile(r"[0-9a-f]{16}")
RUN, CLASSES = "run", "classes"  # the one part of the tables runs and class_accuracy
CLASS = tuple(results.CLASS)
Z = 1.959963984540054  # the normal distribution's 97.5% quantile: intervals of 95%
T = TypeVar("T")
Chunk: TypeAlias = "pa.Table | pa.RecordBatch | Mapping[str, Sequence[Any]]"
ACCURACY = f"""
SELECT {", ".join(CLASS)}, count("right") AS n, count(*) FILTER ("right") AS correct,
    CASE WHEN count(final_right) > 0 THEN count(*) FILTER (final_right) END AS final_correct,
    count(*) FILTER (right_stripped) AS correct_stripped, count(*) FILTER (near_tie) AS near_ties
FROM (FROM outcomes UNION ALL BY NAME FROM classes) GROUP BY ALL ORDER BY {", ".join(CLASS)}
"""


def results_folder(name: str | Path) -> Path:
    """Return the folder of all results, once Arrow and DuckDB can open files in it.

    Raises:
        UserError: its name is no text.
    """
    absolute = str(Path(name).absolute())
    if absolute.encode(errors="replace").decode() != absolute:
        what = "result tables need a folder whose name is UTF-8 text"
        raise UserError(what, where=printable_path(name), next_step="choose another one")
    return Path(name)


def run_id(identity: str) -> str:
    """Return the id of the run with this identity: 16 hex digits, a letter first, or readers take some for numbers."""
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return "abcdef"[int(digest[16], 16) % 6] + digest[1:16]


def key_column(requests: Sequence[bytes]) -> pa.Array:
    """Return the 128-bit hash (hex) that adapter, prompt and right answer, joined by zeros, have in every run."""
    return pa.array([hashlib.blake2b(request, digest_size=16).hexdigest() for request in requests], pa.string())


@dataclass(frozen=True)
class RunTables:
    """The result tables of one run, in the folder of all results."""

    results: Path
    run_id: str

    def folder(self, table: str) -> Path:
        """Return the folder of the run's parts of a table."""
        return self.results / table / f"run_id={self.run_id}"

    def path(self, table: str, part: str) -> Path:
        """Return the path of a part."""
        return self.folder(table) / f"{part}.parquet"

    def parts(self, table: str) -> list[str]:
        """Return the names of a table's parts, sorted; that they are whole is for ``read_part`` to say."""
        return sorted(path.stem for path in self.folder(table).glob("[!.]*.parquet"))

    def write_part(self, table: str, part: str, chunks: Iterable[Chunk]) -> None:
        """Write a part in one step, over one of this name.

        Args:
            table: the name of a table.
            part: a file name without its ending.
            chunks: the rows, of which one chunk is held in memory at once. Columns left out are null.

        Raises:
            KeyError: a chunk has a column that the table has not.
            OSError: the disk is full or cannot be written; nothing is left behind.
        """
        schema, path = part_schema(table), self.path(table, part)
        options = {"compression": "zstd", "compression_level": LEVEL, "write_page_checksum": True}
        with aside(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
            for chunk in ahead(chunks):
                writer.write_table(_rows(schema, chunk))
                del chunk  # before the next but one is made
        place(path)

    def read_part(self, table: str, part: str) -> pa.Table | None:
        """Return a part with the columns that it has; None where there is none, or a damaged one."""
        return read_whole(self.path(table, part))

    def write_run(self, values: Mapping[str, Any]) -> None:
        """Write the run's row of the table runs, over one that is there: first unfinished, at the end finished."""
        self.write_part("runs", RUN, [{name: [value] for name, value in values.items()}])

    def read_run(self) -> dict[str, Any] | None:
        """Return the run's row of the table runs; None where there is none."""
        table = self.read_part("runs", RUN)
        return next(iter(table.to_pylist(maps_as_pydicts="strict")), None) if table is not None else None

    def read_finished(self) -> dict[str, Any] | None:
        """Return the run's row if it is finished and every table is whole, with all its rows; None otherwise."""
        row, classes = self.read_run(), self.read_classes()
        if row is None or row["status"] != "finished" or classes is None:
            return None
        wrong = sum(classes["n"].to_pylist()) - sum(classes["correct"].to_pylist())
        for table, num_rows in (("calls", row["calls"]), ("failures", wrong), ("problems", row["problems"])):
            counts = [count_whole(self.path(table, part)) for part in self.parts(table)]
            if None in counts or sum(filter(None, counts)) != num_rows:
                return None
        return row

    def read_classes(self) -> pa.Table | None:
        """Return the run's table class_accuracy; None where it is missing or damaged."""
        return self.read_part("class_accuracy", CLASSES)

    def remove(self) -> None:
        """Remove all that lies in the run's folders."""
        for table in RESULTS:
            shutil.rmtree(self.folder(table), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed evaluation was writing."""
        for table in RESULTS:
            for path in self.folder(table).glob(f"{TEMPORARY}*.parquet"):
                path.unlink(missing_ok=True)


def part_files(results: Path, table: str) -> list[tuple[str, Path]]:
    """Return (run, file) of every part of a table, sorted."""
    paths = sorted((results / table).glob("run_id=*/[!.]*.parquet"))
    parts = [(path.parent.name.removeprefix("run_id="), path) for path in paths]
    return [(run, path) for run, path in parts if RUN_ID.fullmatch(run)]


def read_runs(results: Path) -> list[dict[str, Any]]:
    """Return the rows of the table runs with their ids, of any version; the damaged are left out."""
    rows = {run: RunTables(results, run).read_run() for run, _ in part_files(results, "runs")}
    return [{"run_id": run, **row} for run, row in rows.items() if row is not None]


def class_accuracy(outcomes: pa.Table | pa.RecordBatchReader, classes: pa.Table | pa.RecordBatchReader) -> pa.Table:
    """Return the accuracy of every class, as rows of the table class_accuracy without the run's id, sorted.

    Args:
        outcomes: one row a problem: the columns of ``CLASS``, ``right``, ``right_stripped``, ``near_tie``, and
            ``final_right`` (null unless known); a null ``right`` is a problem that was not evaluated.
        classes: the columns of ``CLASS``: classes to be listed even where they have no outcome, with n = 0.
    """
    import duckdb

    with duckdb.connect(":memory:", config={"temp_directory": ""}) as database:
        database.register("outcomes", outcomes)
        database.register("classes", classes)
        counts = database.sql(ACCURACY).to_arrow_table().to_pydict()
    pairs = list(zip(counts["correct"], counts["n"], strict=True))
    shares = [(correct / n, *wilson(correct, n)) if n else (None, None, None) for correct, n in pairs]
    counts |= {name: [share[place] for share in shares] for place, name in enumerate(("accuracy", "low", "high"))}
    return _rows(part_schema("class_accuracy"), counts)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson interval of an accuracy, which is good near 0 and 1 and for small n; 0 to 1 where n is 0.

    Its ends are 0 and 1 exactly where no problem, or every one, is right; sums of rounded numbers miss that.
    """
    if not n:
        return 0.0, 1.0
    share, zz = correct / n, Z * Z / n
    middle = (share + zz / 2) / (1 + zz)
    half = Z * math.sqrt(share * (1 - share) / n + zz / (4 * n)) / (1 + zz)
    return (max(0.0, middle - half) if correct else 0.0, min(1.0, middle + half) if correct < n else 1.0)


def read_whole(path: Path) -> pa.Table | None:
    """Return the rows of a Parquet file; None where there is none, or a damaged one."""
    groups: list[pa.Table] = []
    return pa.concat_tables(groups) if count_whole(path, groups.append) is not None else None


def count_whole(path: Path, take: Callable[[pa.Table], object] = len) -> int | None:
    """Return the number of rows of a Parquet file; None where there is none, or a damaged one.

    ``take`` is given an empty table, and then one row group after the other.

    Raises:
        OSError: the file cannot be read for another reason.
    """
    try:
        with open(path, "rb") as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            take(file.schema_arrow.empty_table())
            count = 0
            for rows in map(file.read_row_group, range(file.num_row_groups)):
                take(rows)
                count += len(rows)
            # Checksums cover the pages, not what the file says of them: a flipped bit there can make a group empty.
            return count if count == file.metadata.num_rows else None
    except FileNotFoundError:
        return None
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; Arrow's own have no number
            raise
        return None


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield items; another thread makes each while the one before it is used."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lambda: list(islice(iterator, 1)))
        while item := coming.result():
            coming = pool.submit(lambda: list(islice(iterator, 1)))
            yield item[0]


def _rows(schema: pa.Schema, chunk: Chunk) -> pa.Table:
    """Return a chunk with the columns of a schema, in their order."""
    given = chunk if isinstance(chunk, Mapping) else dict(zip(chunk.schema.names, chunk.columns, strict=True))
    if unknown := given.keys() - set(schema.names):
        raise KeyError(f"no such columns: {', '.join(sorted(unknown))}")
    num_rows = max(map(len, given.values()), default=0)
    columns = {field.name: given.get(field.name, pa.nulls(num_rows, field.type)) for field in schema}
    return pa.Table.from_pydict(columns, schema=schema)
