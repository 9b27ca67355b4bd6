"""Memory that a process has freed: kept for its next use, or handed back to the system."""

from __future__ import annotations

import ctypes

import pyarrow as pa


def keep_freed_memory(up_to: int, *, below: int) -> None:
    """Have this process reuse what it frees rather than hand it back: it costs page faults to get it again.

    glibc alone is told; allocators of other systems have their own ways. Arrow uses the same allocator then, whose
    peak was 100 MB a worker where Arrow's own held on to 150.

    Args:
        up_to: bytes that stay with the process.
        below: a block of memory of so many bytes or more goes back as soon as it is freed.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, min(up_to, 2**31 - 1))  # M_TRIM_THRESHOLD
        mallopt(-3, min(below, 2**31 - 1))  # M_MMAP_THRESHOLD
