"""This process as one of DataLoader's workers: what a dataset sees of it, without its cost."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data._utils import worker


@contextmanager
def as_worker(number: int, workers: int) -> Iterator[None]:
    """Be a worker of several until the block ends."""
    worker._worker_info = worker.WorkerInfo(id=number, num_workers=workers, seed=0, dataset=None)
    try:
        yield
    finally:
        worker._worker_info = None
