"""What an evaluation knows so far of each call, in memory and, part by part, on disk: no stored call is asked again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..pipelines.shard import TEMPORARY, aside, place
from ..tm.columns import I64
from .calls import Answer, Verdict
from .tables import read_whole

EVERY = 10.0  # seconds between parts, at most this much work is lost by a kill
MOST = 65_536  # results that wait for the next part, at most
UNKNOWN, WRONG, RIGHT = -1, 0, 1
RESULTS = pa.schema(
    [
        pa.field("call", pa.int64()),
        pa.field("right", pa.bool_()),
        pa.field("at", pa.int32()),
        pa.field("margin", pa.float32()),
        pa.field("tokens", pa.int32()),
        pa.field("completion_tokens", pa.int32()),
        pa.field("decoded", pa.bool_()),
        pa.field("stripped", pa.bool_()),
        pa.field("near_tie", pa.bool_()),
        pa.field("merges", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("ended", pa.bool_()),
    ]
)
NUMBERS = RESULTS.names[:10]


class Kept:
    """The results of an evaluation's calls.

    Args:
        folder: where parts are kept; those of an earlier, killed evaluation are read.
        num_calls: number of calls.
        rank: of this process among those that share the work: it alone writes its parts.

    Attributes, all of shape (num_calls,):
        right: UNKNOWN, WRONG or RIGHT.
        stripped: the answer is right once white space at both ends of it and of the right one is stripped.
        decoded: the answer was decoded; a wrong call that is not decoded is wrong by the one forward pass.
        at: index of the first wrong token in the completion, -1 for none or unknown.
        margin: see ``Verdict``; NaN where unknown.
        tokens: tokens of the call; 0 where unknown.
        completion_tokens: of these, those of the completion and the end; 0 where unknown.
        near_tie: a token leads the next one by so little that rounding could have decided.
        merges: the tokenizer merges the end of the prompt with the completion.
    """

    def __init__(self, folder: Path, num_calls: int, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self.right: npt.NDArray[np.int8] = np.full(num_calls, UNKNOWN, np.int8)
        self.stripped = np.zeros(num_calls, np.bool_)
        self.decoded = np.zeros(num_calls, np.bool_)
        self.at: npt.NDArray[np.int32] = np.full(num_calls, -1, np.int32)
        self.margin: npt.NDArray[np.float32] = np.full(num_calls, np.nan, np.float32)
        self.tokens: npt.NDArray[np.int32] = np.zeros(num_calls, np.int32)
        self.completion_tokens: npt.NDArray[np.int32] = np.zeros(num_calls, np.int32)
        self.near_tie = np.zeros(num_calls, np.bool_)
        self.merges = np.zeros(num_calls, np.bool_)
        self.waiting: list[tuple[object, ...]] = []
        self.written, self.read = time.monotonic(), set[str]()
        self.spans: dict[str, tuple[int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.load()

    def load(self) -> None:
        """Read the parts that are new: those of an earlier evaluation, or of other processes."""
        for path in self._parts():
            if path.name in self.read:
                continue
            part = read_whole(path)
            if part is None:  # damaged: its calls are asked again
                path.unlink(missing_ok=True)
                continue
            self.read.add(path.name)
            found = {name: part.column(name).to_numpy() for name in NUMBERS}
            # A decoded answer carries what the forward pass found, and stands whatever the order of the parts.
            rows = np.flatnonzero(found["decoded"] | ~self.decoded[found["call"]])
            for name in NUMBERS[1:]:
                getattr(self, name)[found["call"][rows]] = found[name][rows]

    def verified(self, call: int, verdict: Verdict) -> None:
        """Keep what a forward pass found."""
        at = -1 if verdict.at is None else verdict.at
        margin = np.nan if verdict.margin is None else verdict.margin
        self.right[call], self.at[call], self.margin[call] = verdict.right, at, margin
        self.stripped[call] = verdict.right
        self.tokens[call], self.completion_tokens[call] = verdict.tokens, verdict.completion_tokens
        self.near_tie[call], self.merges[call] = verdict.near_tie, verdict.merges
        self._keep(call, None, None)

    def answered(self, call: int, expected: str, answer: Answer) -> None:
        """Keep what decoding gave, beside the right answer; the text of a wrong one."""
        right = answer.ended and answer.text == expected
        if not self.tokens[call]:  # no forward pass has told
            self.at[call] = -1 if answer.at is None else answer.at
            self.margin[call] = answer.margin if right and answer.margin is not None else np.nan
            self.tokens[call], self.completion_tokens[call] = answer.tokens, answer.completion_tokens
        self.near_tie[call] |= answer.near_tie
        self.merges[call] = answer.merges
        self.right[call], self.decoded[call] = right, True
        self.stripped[call] = answer.ended and answer.text.strip() == expected.strip()
        # A server may send a lone surrogate, which no file of texts can hold.
        text = answer.text.encode("utf-8", "backslashreplace").decode()
        self._keep(call, None if right else text, answer.ended)

    def flush(self) -> None:
        """Write what waits to disk."""
        self.written = time.monotonic()
        if not self.waiting:
            return
        columns = zip(*self.waiting, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, RESULTS, strict=True)]
        name = f"{self.rank:04}-{time.time_ns()}-{os.getpid()}.parquet"
        with aside(self.folder / name) as file:
            table = pa.Table.from_arrays(arrays, schema=RESULTS)
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        place(self.folder / name)
        self.read.add(name)
        self.waiting = []

    def texts(self) -> Iterator[tuple[int, str, bool]]:
        """Yield the calls whose decoded answers were wrong: number, what came, whether the model ended it."""
        for path in self._parts():
            yield from _wrong_texts(path)

    def texts_of(self, calls: I64) -> dict[int, str]:
        """Return what came, for those of these calls whose decoded answers were wrong."""
        wanted = set(calls[(self.right[calls] == WRONG) & self.decoded[calls]].tolist())
        found: dict[int, str] = {}
        for path in self._parts() if wanted else []:
            low, high = self._span(path)
            if any(low <= call <= high for call in wanted):
                found.update((call, text) for call, text, _ in _wrong_texts(path) if call in wanted)
        return found

    def _parts(self) -> list[Path]:
        return [path for path in sorted(self.folder.glob("*.parquet")) if not path.name.startswith(TEMPORARY)]

    def _span(self, path: Path) -> tuple[int, int]:
        """Return the smallest and the largest call with a text in a part."""
        if path.name not in self.spans:
            calls = [call for call, _, _ in _wrong_texts(path)]
            self.spans[path.name] = (min(calls, default=1), max(calls, default=0))
        return self.spans[path.name]

    def _keep(self, call: int, text: str | None, ended: bool | None) -> None:
        found = (getattr(self, name)[call].item() for name in NUMBERS[2:])
        self.waiting.append((call, bool(self.right[call] == RIGHT), *found, text, ended))
        if len(self.waiting) >= MOST or time.monotonic() - self.written >= EVERY:
            self.flush()


def _wrong_texts(path: Path) -> Iterator[tuple[int, str, bool]]:
    for batch in pq.ParquetFile(path).iter_batches(columns=["call", "decoded", "right", "text", "ended"]):
        wrong = pa.compute.and_(batch.column("decoded"), pa.compute.invert(batch.column("right")))
        for row in batch.filter(wrong).to_pylist():
            yield row["call"], row["text"], row["ended"]
