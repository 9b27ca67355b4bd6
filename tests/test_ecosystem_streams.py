"""A stream in torchdata's loader, which `make test-ecosystem` lays aside, and in TRL's trainer."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import caef_data
from caef_data.pipelines.stream import Stream
from caef_data.schemas.rows import COLUMNS
from caef_data.tests.real_vocabularies import ROOT
from caef_data.tests.small_model import make_model, make_tokenizer

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def stream(**given: Any) -> Stream:
    return caef_data.stream({"task": ["add", "reflection"], "max": 3, "num": 3}, **given)


@pytest.fixture
def stateful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return torchdata's loader; it alone is put where Python finds it, with its version."""
    if not (ROOT / "torchdata").is_dir():
        pytest.skip(f"torchdata is not in {ROOT}: make test-ecosystem")
    for path in ROOT.glob("torchdata*"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.syspath_prepend(tmp_path)
    from torchdata.stateful_dataloader import StatefulDataLoader

    yield StatefulDataLoader
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchdata"]:
        del sys.modules[name]


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("rows", [100, None])
@pytest.mark.parametrize("stop", [1, 7, 12])
def test_torchdata_goes_on(stateful: Any, workers: int, rows: int | None, stop: int) -> None:
    """From its state after some batches, in a new process it might be: the very batches that would have come."""

    def loader() -> Any:
        return stateful(stream(rows=rows), 4, collate_fn=list, num_workers=workers)

    whole = list(islice(loader(), 25))
    first = loader()
    assert list(islice(first, stop)) == whole[:stop]
    state = first.state_dict()
    second = loader()
    second.load_state_dict(state)
    assert list(islice(second, 25 - stop)) == whole[stop:]
    if rows:
        given = [row for batch in list(loader()) for row in batch]
        assert sorted(given, key=str) == sorted(stream(rows=rows), key=str)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("rows", [96, 98])
def test_torchdata_begins_the_next_epoch(stateful: Any, workers: int, rows: int) -> None:
    """From its state at the end of an epoch, or at its last batch; a loop that goes on in mid-epoch is whole, too."""

    def given(loader: Any, made: Stream, epoch: int) -> list[str]:
        made.set_epoch(epoch)
        return sorted(str(row) for batch in loader for row in batch)

    whole = [given(stateful(made := stream(rows=rows), 4, collate_fn=list), made, at) for at in range(4)]
    for stop, first in ((None, 2), (24, 1), (25, 1), (7, 1)):
        made = stream(rows=rows)
        made.set_epoch(1)
        loader = stateful(made, 4, collate_fn=list, num_workers=workers)
        before = [str(row) for batch in islice(iter(loader), stop) for row in batch]
        other = stream(rows=rows)
        again = stateful(other, 4, collate_fn=list, num_workers=workers)
        again.load_state_dict(loader.state_dict())
        if first == 1 and not (stop == 25 and rows == 96):
            assert sorted(before + given(again, other, 1)) == whole[1]
        assert [given(again, other, at) for at in (2, 3)] == whole[2:]


@pytest.mark.parametrize("workers", [0, 2])
def test_accelerate_is_told_the_epoch(stateful: Any, workers: int) -> None:
    """It counts epochs from 0 in every process, and tells no one: a state of another epoch goes on once it is told."""
    accelerate, torch = pytest.importorskip("accelerate"), pytest.importorskip("torch")
    settings = accelerate.utils.DataLoaderConfiguration(use_stateful_dataloader=True)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=settings)

    def loader() -> Any:
        def collate(rows: list[dict[str, Any]]) -> Any:
            return torch.tensor([[int(row["a"]), int(row["b"] or 0), row["step"]] for row in rows])

        plain = torch.utils.data.DataLoader(stream(rows=96), 4, collate_fn=collate, num_workers=workers)
        return accelerator.prepare(plain)

    def given(batches: Any) -> list[list[int]]:
        return sorted(row for batch in batches for row in batch.tolist())

    first = loader()
    epochs = [given(first) for _ in range(3)]
    for stop, number in ((7, 1), (24, 2)):  # 24: all
        saver = loader()
        given(saver)
        running, before = iter(saver), list[list[int]]()
        for batch in islice(running, stop):
            before, state = before + batch.tolist(), saver.state_dict()
        other = loader()
        other.load_state_dict(state)
        with pytest.raises(caef_data.UserError, match="is of epoch 1, after"):
            given(other)
        other = loader()
        other.load_state_dict(state)
        other.set_epoch(number)
        assert sorted(given(other) + (before if number == 1 else [])) == epochs[number]


def test_the_trainer_of_trl(tmp_path: Path) -> None:
    """Fifty steps on rows as evaluation asks for them, in the stream's order."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    tokenizer, made = make_tokenizer(), stream()

    def tokens(row: dict[str, str]) -> dict[str, list[int]]:
        prompt, completion = caef_data.tokenize_row(tokenizer, row["prompt"], row["completion"])
        return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}

    rows = datasets.IterableDataset.from_generator(made.__iter__).map(tokens, remove_columns=list(COLUMNS["one_step"]))
    seen: list[list[int]] = []

    class Collator:
        def __init__(self, own: Any) -> None:
            self.own = own

        def __call__(self, batch: list[dict[str, Any]]) -> Any:
            seen.extend(row["input_ids"] for row in batch)
            return self.own(batch)

    config = trl.SFTConfig(
        str(tmp_path / "out"),
        max_steps=50,
        per_device_train_batch_size=4,
        max_length=None,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    model = make_model(len(tokenizer), positions=512)
    trainer = trl.SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    trainer.data_collator = Collator(trainer.data_collator)
    trainer.train()
    assert trainer.state.global_step == 50
    assert seen[:200] == [tokens(row)["input_ids"] for row in islice(made, 200)]
