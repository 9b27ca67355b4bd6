"""Weights on disk, looked at without loading them: headers of safetensors files, hashes, numbers that are none."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, clip
from ..pipelines.folder import shown

MAX_HEADER = 32 * 2**20  # bytes; a LoRA of the largest models has some hundred thousand
MAX_DIMENSIONS = 16
MAX_JSON = 64 * 2**20
MAX_DEPTH = 50  # of JSON; what is deeper can be read, but not shown or looked through
CHUNK = 2**20  # numbers looked at at once
# Of these formats a number is infinite or none exactly where all bits of its exponent are set.
EXPONENTS = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
}
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}
BITS |= {f"{kind}{bits}": bits for kind in "IU" for bits in (8, 16, 32, 64)}
BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One weight of a file.

    Args:
        dtype: safetensors' name of its number format.
        shape: its shape.
        start: where its first byte lies in the file.
        end: where its last byte ends.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read a file into a message.

    Raises:
        UserError: it refuses.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{shown(path.name)} cannot be read: {error.strerror}", where=shown(path.parent)) from error


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; a pipe or a device of that name is refused: reading it might never end.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    with readable(path):
        if not path.is_file():
            raise UserError(f"there is no file {shown(path.name)}", where=shown(path.parent))
        with path.open("rb") as file:
            yield file


def check_inside(path: Path, root: Path) -> None:
    """Refuse a path that leaves a folder through links.

    The Hub's cache is one folder to us: its snapshots are links to files beside them.

    Raises:
        UserError: it leaves the folder, or leads nowhere.
    """
    whole = root.resolve()
    allowed = [whole, *(above.parent / "blobs" for above in whole.parents if above.name == "snapshots")]
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UserError(f"{shown(path.name)} leads nowhere", where=shown(path.parent)) from error
    if not any(found.is_relative_to(place) for place in allowed):
        raise UserError(
            f"{shown(path.name)} is a link to {shown(found)}",
            where=shown(path.parent),
            allowed=f"files inside {shown(root)}",
            next_step="put the files themselves there",
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a small JSON file holds.

    Raises:
        UserError: there is no such file, it cannot be read, or it holds something else.
    """
    with opened(path) as file:
        content = file.read(MAX_JSON + 1)
    try:
        if len(content) > MAX_JSON:
            raise ValueError(f"it has more than {MAX_JSON:,} bytes")
        return _object(content)
    except (ValueError, RecursionError) as error:
        what = f"{shown(path.name)} is not what it should be: {clip(error, 100)}"
        raise UserError(what, where=shown(path.parent), allowed="a JSON object", next_step=AGAIN) from error


def read_header(path: Path) -> dict[str, Tensor]:
    """Return what a safetensors file holds by name; no weight is read.

    Raises:
        UserError: the file cannot be read, is cut short, or contradicts itself.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        try:
            if size < 8:
                raise ValueError(f"it is cut short: {size} bytes")
            if length > MAX_HEADER:
                raise ValueError(f"its header claims {length:,} bytes, at most {MAX_HEADER:,} make sense")
            if 8 + length > size:
                raise ValueError(f"it is cut short: it has {size:,} bytes, its header alone takes {8 + length:,}")
            held = _object(file.read(length))
            notes = held.pop("__metadata__", None) or {}
            if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
                raise ValueError("its __metadata__ holds more than texts")
            tensors = {name: _tensor(name, entry, 8 + length) for name, entry in held.items()}
            _check_layout(tensors, 8 + length, size)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{shown(path.name)} is damaged, or no safetensors file: {clip(error, 200)}",
                where=shown(path.parent),
                next_step=AGAIN,
            ) from error
    return tensors


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read floating-point weights once, a little at a time, and refuse those that are no numbers.

    Raises:
        UserError: a weight is NaN or infinite, or of a format in which that cannot be told.
    """
    with opened(path) as file:
        for name, tensor in tensors.items():
            if tensor.dtype not in EXPONENTS:
                what = f"the weight {clip(name, 120)} is of format {clip(tensor.dtype)}"
                raise UserError(what, where=shown(path), allowed=", ".join(EXPONENTS))
            kind, mask = EXPONENTS[tensor.dtype]
            left = (tensor.end - tensor.start) // np.dtype(kind).itemsize
            file.seek(tensor.start)
            while left:
                bits = np.fromfile(file, kind, min(CHUNK, left))
                if not len(bits):
                    raise UserError(f"{shown(path.name)} became shorter while it was read", where=shown(path.parent))
                if ((bits & np.array(mask, kind)) == mask).any():
                    raise UserError(
                        f"the weight {clip(name, 120)} holds NaN or infinity",
                        where=shown(path),
                        next_step="its training went wrong: take an earlier checkpoint of it",
                    )
                left -= len(bits)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises:
        UserError: it cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly.

    Raises:
        ValueError: it is none; a name stands in it twice; it is nested too deeply.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name stands in it twice")
        return found

    value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    if not isinstance(value, dict):
        raise ValueError(f"it holds {type(value).__name__} instead of names with values")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for held in inner for one in held]
    if level:
        raise ValueError("it is nested too deeply")
    return value


def _tensor(name: str, entry: object, offset: int) -> Tensor:
    """Return a weight from its entry in a header.

    Raises:
        ValueError: the entry is not what it should be.
    """
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"weight {name[:120]!r} has no dtype, shape and data_offsets")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"weight {name[:120]!r} is of the unknown format {str(dtype)[:40]!r}")
    for numbers in (shape, span):
        whole = isinstance(numbers, list) and len(numbers) <= MAX_DIMENSIONS
        if not whole or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError(f"weight {name[:120]!r} has the shape {str(shape)[:60]} at {str(span)[:60]}")
    if len(span) != 2 or (span[1] - span[0]) * 8 != math.prod(shape) * BITS[dtype]:
        raise ValueError(f"weight {name[:120]!r}: {dtype} numbers of shape {str(shape)[:60]} do not fill bytes {span}")
    return Tensor(dtype, tuple(shape), offset + span[0], offset + span[1])


def _check_layout(tensors: Mapping[str, Tensor], start: int, size: int) -> None:
    """Check that weights follow each other without gap or overlap up to the end of the file.

    Raises:
        ValueError: they do not.
    """
    at = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != at:
            raise ValueError(f"weight {name[:120]!r} overlaps with another one, or leaves a gap")
        at = tensor.end
    if at != size:
        short = "it is cut short" if at > size else "nothing is known of its last bytes"
        raise ValueError(f"{short}: it has {size:,} bytes, its header speaks of {at:,}")
