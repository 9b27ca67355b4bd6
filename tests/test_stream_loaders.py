"""A stream in what reads data for training: each row once, the same rows however many processes share them."""

import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import caef_data
from caef_data.pipelines.stream import Stream

Rows = list[dict[str, Any]]


def stream(**given: Any) -> Stream:
    return caef_data.stream({"task": ["add", "reflection"], "max": 3, "num": 3}, **given)


def loaded(source: Any, batch_size: int = 4, **more: Any) -> Rows:
    return [row for batch in DataLoader(source, batch_size, collate_fn=list, **more) for row in batch]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_torch(workers: int) -> None:
    made = stream(rows=100)
    assert isinstance(made, IterableDataset)
    rows = loaded(made, num_workers=workers)
    assert loaded(made, num_workers=workers) == rows, "the same order for the same number of workers"
    whole = list(made)
    if workers == 0:
        assert rows == whole
    assert sorted(rows, key=str) == sorted(whole, key=str)
    assert sorted(loaded(made, num_workers=workers, batch_size=7), key=str) == sorted(whole, key=str)


@pytest.mark.long
def test_torch_in_processes_of_their_own() -> None:
    """What is spawned knows nothing but what it is sent: a machine of a declaration, too."""
    table = {"name": "sent", "format": "bbchallenge", "table": "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"}
    made = caef_data.stream({"max": 6, "num": 10, "machine": [table], "max_steps": 200}, rows=60)
    rows = loaded(made, num_workers=2, multiprocessing_context="spawn")
    assert sorted(rows, key=str) == sorted(made, key=str)


def test_torch_without_an_end() -> None:
    made = stream()
    batches = islice(iter(DataLoader(made, 5, collate_fn=list, num_workers=2)), 4)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows, key=str) == sorted(islice(made, 20), key=str)


@pytest.mark.long
def test_torch_imported_later() -> None:
    code = (
        "import sys, caef_data; made = caef_data.stream(task='add', max=2, rows=10); assert 'torch' not in sys.modules;"
        "import torch.utils.data as data; assert isinstance(made, data.IterableDataset);"
        "assert [row for [row] in data.DataLoader(made, 1, collate_fn=list)] == list(made)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_ranks_and_workers() -> None:
    made = stream(rows=100)
    parts = [loaded(made.shard(rank, 2), num_workers=3) for rank in range(2)]
    assert sorted(parts[0] + parts[1], key=str) == sorted(made, key=str)


@pytest.mark.parametrize("workers", [0, 2])
def test_accelerate_shares_the_rows(workers: int) -> None:
    data_loader = pytest.importorskip("accelerate.data_loader")
    made, found = stream(rows=96), Rows()
    for rank in range(2):
        prepared = data_loader.prepare_data_loader(
            DataLoader(made, 4, collate_fn=list, num_workers=workers),
            num_processes=2,
            process_index=rank,
            put_on_device=False,
            dispatch_batches=False,
        )
        found += [row for batch in prepared for row in batch]
    assert sorted(found, key=str) == sorted(made, key=str)


def test_datasets_streams_it() -> None:
    datasets = pytest.importorskip("datasets")
    made = stream(rows=60)
    source = datasets.IterableDataset.from_generator(made.__iter__)
    assert list(source) == list(made)
    running = iter(source)
    for _ in range(23):
        next(running)
    other = datasets.IterableDataset.from_generator(stream(rows=60).__iter__)
    other.load_state_dict(source.state_dict())
    assert list(other) == list(made)[23:]


@pytest.mark.parametrize("wrapped", [False, True])
def test_datasets_streams_it_to_workers(wrapped: bool) -> None:
    """It gives the whole stream to one of them: this one must not leave rows to the others."""
    datasets, data_loader = pytest.importorskip("datasets"), pytest.importorskip("accelerate.data_loader")
    made = stream(rows=20)
    source = datasets.IterableDataset.from_generator(made.__iter__)
    if wrapped:
        source = data_loader.IterableDatasetShard(source, 4)
    assert loaded(source, num_workers=2) == list(made)


@pytest.mark.parametrize(
    "given", [pytest.param({}, marks=pytest.mark.long, id="endless"), pytest.param({"rows": 20}, id="three epochs")]
)
def test_the_trainer_goes_on(tmp_path: Path, given: dict[str, Any]) -> None:
    """After a stop in the middle it trains on the rows that an uninterrupted run would have had."""
    transformers = pytest.importorskip("transformers")

    class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.seen: list[list[int]] = []

        def forward(self, input_ids: Any) -> dict[str, Any]:
            self.seen += input_ids.tolist()
            return {"loss": self.weight.sum()}

    def collate(rows: Rows) -> dict[str, Any]:
        texts = [(row["prompt"] + row["completion"]).encode().ljust(300)[:300] for row in rows]
        return {"input_ids": torch.tensor([list(text) for text in texts])}

    def train(resume: str | None) -> list[list[int]]:
        model = Model()
        options = transformers.TrainingArguments(
            str(tmp_path / "out"),
            per_device_train_batch_size=4,
            max_steps=14,
            save_steps=8,
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = transformers.Trainer(model, options, train_dataset=stream(**given), data_collator=collate)
        trainer.train(resume_from_checkpoint=resume)
        return model.seen

    whole = train(None)
    assert len(whole) == 14 * 4
    assert (
        whole
        == collate(stream().__getitems__(range(56)) if not given else stream(**given).__getitems__(range(56)))[
            "input_ids"
        ].tolist()
    )
    assert train(str(tmp_path / "out" / "checkpoint-8")) == whole[8 * 4 :]
