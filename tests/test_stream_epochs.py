"""Epochs and states of a stream, in every order: the right rows come, or an error where nobody can tell which."""

from itertools import islice
from typing import Any

import pytest
from torch.utils.data import DataLoader

import caef_data
from caef_data import UserError
from caef_data.pipelines.stream import Stream
from caef_data.tests.torch_worker import as_worker

Rows = list[dict[str, Any]]
ROWS = 60
State = dict[str, Any]


def stream(rows: int | None = ROWS) -> Stream:
    return caef_data.stream(task="add", max=6, num=3, rows=rows)


def epoch(number: int) -> Rows:
    return stream().__getitems__(range(number * ROWS, (number + 1) * ROWS))


def state(number: int, rows: int) -> State:
    """Return the state after some rows of an epoch."""
    made = stream()
    made.set_epoch(number)
    assert len(list(islice(made, rows))) == rows
    return made.state_dict()


@pytest.mark.parametrize("rows", [0, 20, ROWS])
def test_a_state_then_an_epoch(rows: int) -> None:
    """The same epoch goes on, exactly; a later one begins; one before it is refused where rows would come again."""
    for number, wanted in ((None, epoch(1)[rows:]), (1, epoch(1)[rows:]), (2, epoch(2)), (3, epoch(3))):
        made = stream()
        made.load_state_dict(state(1, rows))
        if number is not None:
            made.set_epoch(number)
        assert list(made) == wanted
        made.set_epoch(0)
        assert list(made) == epoch(0)
    made = stream()
    made.load_state_dict(state(1, rows))
    if rows:
        with pytest.raises(UserError, match="is of epoch 1: epoch 0 comes before it"):
            made.set_epoch(0)
        assert list(made) == epoch(1)[rows:]


@pytest.mark.parametrize("rows", [0, 20, ROWS])
def test_an_epoch_then_a_state(rows: int) -> None:
    """A loader restores so. Where rows of the state's epoch are left, another epoch is refused."""
    made = stream()
    made.set_epoch(1)
    made.load_state_dict(state(1, rows))
    assert list(made) == epoch(1)[rows:]
    for number in (0, 2, 3):
        made = stream()
        made.set_epoch(number)
        if rows == ROWS and number > 1:
            made.load_state_dict(state(1, rows))
            assert made.state_dict() == {"stream": made.identity, "epoch": number, "rows": 0}
            assert list(made) == epoch(number)
        else:
            with pytest.raises(UserError, match=f"epoch 1, after {rows} of 60 rows, but set_epoch has chosen") as told:
                made.load_state_dict(state(1, rows))
            assert str(told.value.next_step).startswith(f"set_epoch({2 if rows == ROWS else 1})")
            assert list(made) == epoch(number), "it is as before"


def test_an_iteration_ends_what_set_epoch_said() -> None:
    made = stream()
    made.set_epoch(3)
    assert list(made) == epoch(3)
    made.load_state_dict(state(1, 20))
    assert list(made) == epoch(1)[20:]


def restored(number: int | None, saved: State) -> Stream:
    """Do what torchdata does, without workers, at the end of an epoch: it asks for an iteration, and for another."""
    made = stream()
    if number is not None:
        made.set_epoch(number)
    made.load_state_dict(saved)
    iter(made)
    return made


def test_a_loader_at_the_end_of_an_epoch() -> None:
    assert list(restored(2, state(1, ROWS))) == epoch(2)
    assert list(restored(None, state(1, ROWS))) == epoch(1)
    with pytest.raises(UserError, match="epoch 1 has ended in this state, and set_epoch.1. asks for it again"):
        iter(restored(1, state(1, ROWS)))


def test_a_loader_at_its_last_batch() -> None:
    """It takes no row of the iteration that it asked for: nothing was left of the epoch of its state."""
    made = restored(2, state(1, ROWS))
    with pytest.raises(UserError, match="epoch 2 was begun and none of its rows was taken"):
        made.set_epoch(3)
    made = restored(1, state(1, ROWS))
    made.set_epoch(2)
    assert list(made) == epoch(2)


def test_set_epoch_after_iter() -> None:
    """A loader that was asked for its state has asked for an iteration; it begins at its first row."""
    made = stream()
    made.load_state_dict(state(1, 20))
    rows = iter(made)
    made.set_epoch(2)
    assert list(rows) == epoch(2)
    made.load_state_dict(state(2, 20))
    rows = iter(made)
    made.set_epoch(2)
    assert list(rows) == epoch(2)[20:]


@pytest.mark.parametrize("rows", [20, ROWS])
def test_a_state_after_set_epoch(rows: int) -> None:
    """It is that of the epoch to come, unless the iteration before it goes on."""
    made = stream()
    running = iter(made)
    assert len(list(islice(running, rows))) == rows
    made.set_epoch(1)
    assert made.state_dict() == {"stream": made.identity, "epoch": 1, "rows": 0}
    assert len(list(islice(running, 5))) == min(5, ROWS - rows)
    if rows == 20:
        assert made.state_dict() == {"stream": made.identity, "epoch": 0, "rows": 25}
    assert list(made) == epoch(1)


def test_epochs_do_not_move_a_stream_without_an_end() -> None:
    """accelerate sets them all the same."""
    whole = list(islice(stream(None), 30))
    for before, after in ((None, 1), (2, None), (2, 0)):
        made, source = stream(None), stream(None)
        list(islice(source, 20))
        if before is not None:
            made.set_epoch(before)
        made.load_state_dict(source.state_dict())
        if after is not None:
            made.set_epoch(after)
        assert made.state_dict()["rows"] == 20 and list(islice(made, 10)) == whole[20:]


# In DataLoader's workers


def loaded(made: Stream, workers: int, **more: Any) -> Rows:
    return [row for batch in DataLoader(made, 4, collate_fn=list, num_workers=workers, **more) for row in batch]


def test_workers_share_what_is_left() -> None:
    made = stream()
    made.load_state_dict(state(0, 20))
    made.set_epoch(0)
    assert sorted(loaded(made, 2), key=str) == sorted(epoch(0)[20:], key=str)
    parts = [list(made.shard(rank, 2)) for rank in range(2)]
    assert [row for pair in zip(*parts, strict=True) for row in pair] == epoch(0)[20:]
    made.load_state_dict(state(0, 21))
    with pytest.raises(UserError, match="cannot have shared evenly"), as_worker(0, 2):
        iter(made)


def test_what_workers_would_leave_out_in_every_epoch() -> None:
    made = stream()
    made.load_state_dict(state(0, 20))
    with pytest.raises(UserError, match="a state was loaded before the rows went to workers"), as_worker(0, 1):
        iter(made)
    made = stream(None)
    made.load_state_dict({"stream": made.identity, "rows": 20})
    with as_worker(0, 2):
        assert list(islice(made, 5)) == stream(None).__getitems__(range(20, 30, 2))


def test_workers_that_stay_do_not_hear_of_epochs() -> None:
    made = stream()
    with as_worker(0, 2):
        assert list(made) == list(made) == epoch(0)[::2], "nobody set an epoch"
    made = stream()
    made.set_epoch(1)
    with as_worker(0, 2):
        assert list(made) == epoch(1)[::2]
        with pytest.raises(UserError, match="does not hear of set_epoch") as told:
            iter(made)
    assert told.value.next_step == "persistent_workers=False"


def test_a_state_of_a_worker_is_for_as_many() -> None:
    """Others are a batch ahead or behind: the rows of another number of workers would be doubled and lost."""
    made = stream()
    with as_worker(0, 2):
        running = iter(made)
        list(islice(running, 12))
        saved = made.state_dict()
        other = stream()
        other.load_state_dict(saved)
        assert list(other) == list(running)
    for workers in (1, 3):
        with as_worker(0, workers), pytest.raises(UserError, match=f"one of 2 workers of all .*, not of {workers}"):
            stream().load_state_dict(saved)
