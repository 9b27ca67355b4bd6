"""Reads files out of the local store that hf_xet writes for a ``local://`` address.

Only plain files are read: shards (``shards/*.mdb``), which say of which chunks a file is made, and xorbs, which hold
the chunks. The store's database belongs to one process at a time, the client's, and is never opened here. The layout
is undocumented: what is written here was found in the files of hf_xet 1.8.0.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

RECORD = 48  # bytes; headers, segments, verifications and extensions of a shard all have this size
VERIFIED, EXTENDED = 1 << 31, 1 << 30  # flags of a file: what follows its segments
STORED, LZ4, GROUPED_LZ4 = range(3)  # how a chunk is kept


@dataclass(frozen=True)
class Segment:
    """Chunks ``first`` to ``last`` (excluded) of a xorb."""

    xorb: str
    first: int
    last: int


def _hex(raw: bytes) -> str:
    """Return a hash as the clients write it: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def _files(shard: bytes) -> Iterator[tuple[str, str, list[Segment]]]:
    """Yield (sha256, Xet hash, segments) of each file that a shard describes."""
    at = RECORD  # behind the shard's own header

    def take(records: int) -> list[bytes]:
        nonlocal at
        at += records * RECORD
        return [shard[start : start + RECORD] for start in range(at - records * RECORD, at, RECORD)]

    while (head := take(1)[0])[:32] != b"\xff" * 32:
        flags, num_segments = struct.unpack_from("<II", head, 32)
        segments = []
        for record in take(num_segments):
            _, _, first, last = struct.unpack_from("<4I", record, 32)
            segments.append(Segment(_hex(record[:32]), first, last))
        take(num_segments if flags & VERIFIED else 0)
        extension = take(1)[0] if flags & EXTENDED else bytes(RECORD)
        yield _hex(extension[:32]), _hex(head[:32]), segments


def _chunks(xorb: bytes, last: int) -> Iterator[bytes]:
    """Yield the first ``last`` chunks of a xorb."""
    at = 0
    for _ in range(last):
        packed = int.from_bytes(xorb[at + 1 : at + 4], "little")
        scheme, length = xorb[at + 4], int.from_bytes(xorb[at + 5 : at + 8], "little")
        data = xorb[at + 8 : at + 8 + packed]
        at += 8 + packed
        if scheme != STORED:
            data = pa.decompress(data, decompressed_size=length, codec="lz4", asbytes=True)
        yield _ungrouped(data) if scheme == GROUPED_LZ4 else data


def _ungrouped(data: bytes) -> bytes:
    """Undo a grouping of every fourth byte."""
    whole, start = bytearray(len(data)), 0
    for offset in range(4):
        size = len(whole[offset::4])
        whole[offset::4] = data[start : start + size]
        start += size
    return bytes(whole)


def read_xet_file(cas: Path, sha256: str) -> tuple[bytes, str] | None:
    """Return the bytes of the file with this sha256 and its Xet hash, or None if the store does not know it."""
    store = cas / "xet" / "xorbs"
    for shard in sorted(store.glob("shards/*.mdb")):
        for found, xet_hash, segments in _files(shard.read_bytes()):
            if found == sha256:
                xorbs = {one.xorb: (store / "xorbs" / f"default.{one.xorb}").read_bytes() for one in segments}
                parts = [list(_chunks(xorbs[one.xorb], one.last))[one.first :] for one in segments]
                return b"".join(chunk for part in parts for chunk in part), xet_hash
    return None
