"""verify, generate and rollout say the same of a model that is partly right: seven operators, all modes, any batch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="a model needs torch, transformers and peft")
pytest.importorskip("peft", reason="a model needs torch, transformers and peft")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from caef_data.eval.backends.local import TransformersBackend  # noqa: E402
from caef_data.eval.backends.tokens import load_tokenizers  # noqa: E402
from caef_data.eval.calls import Request  # noqa: E402
from caef_data.eval.problems import WALKED  # noqa: E402
from caef_data.eval.results import ResultStore  # noqa: E402
from caef_data.tests.evaluating import OPERATORS, build_short, judge, planned_all, requests_of  # noqa: E402
from caef_data.tests.small_model import learn_batches, save  # noqa: E402

CKPT = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "ckpt"
PROBLEMS = 2  # a task and mode
STEPS, RATE = 40, 1e-4


class ShortestFirst(TransformersBackend):
    """Takes its rows from the other end."""

    def _rows(self, questions: Any) -> Iterator[list[Any]]:
        for chunk in reversed(list(super()._rows(questions))):
            yield chunk[::-1]


WAYS: dict[str, tuple[str, type[TransformersBackend], int]] = {
    "verify, all at once": ("verify", TransformersBackend, 4096),
    "verify, a few": ("verify", TransformersBackend, 600),
    "verify, one by one": ("verify", TransformersBackend, 16),
    "verify, shortest first": ("verify", ShortestFirst, 600),
    "generate, all at once": ("generate", TransformersBackend, 4096),
    "generate, a few": ("generate", ShortestFirst, 300),
    "rollout, all at once": ("rollout", TransformersBackend, 4096),
    "rollout, a few": ("rollout", ShortestFirst, 200),
}


SOME = ("verify, all at once", "generate, a few", "rollout, all at once")
SHORT = tuple(task for task in OPERATORS if task not in ("mul", "div"))  # whose runs are short


@pytest.fixture(scope="module")
def plan(tasks: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    return planned_all(build_short(folder / "data", 4), folder, PROBLEMS, tasks)


@pytest.fixture(scope="module")
def calls(plan: Path) -> dict[str, list[Request]]:
    """Return all requests by their adapter."""
    store, found = ResultStore(plan), dict[str, list[Request]]()
    for call in requests_of(store):
        found.setdefault(call.adapter, []).append(Request(call.prompt, call.completion))
    store.close()
    return found


@pytest.fixture(scope="module")
def base(calls: dict[str, list[Request]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model, taught something wrong about one call to each of its adapters."""
    tokenizer, chance = AutoTokenizer.from_pretrained(CKPT / "base"), random.Random(0)
    model, lessons = AutoModelForCausalLM.from_pretrained(CKPT / "base", dtype=torch.float32), []
    for own in calls.values():
        call = chance.choice(own)
        at = chance.randrange(len(call.completion))
        lessons.append((call.prompt, call.completion[:at] + chance.choice("0123456789")))
    rows = [(tokenizer.encode(prompt), tokenizer.encode(answer)) for prompt, answer in lessons]
    learn_batches(model, [rows] * STEPS, RATE)
    return save(tmp_path_factory.mktemp("base"), model, tokenizer)


@pytest.mark.parametrize(
    ("tasks", "ways"),
    [pytest.param(SHORT, SOME, id="some"), pytest.param(OPERATORS, tuple(WAYS), id="all", marks=pytest.mark.long)],
    scope="module",
)
def test_all_ways_say_the_same_of_every_problem(
    tasks: tuple[str, ...],
    ways: tuple[str, ...],
    plan: Path,
    calls: dict[str, list[Request]],
    base: Path,
    tmp_path: Path,
) -> None:
    """Right or not, which call fails first, and what the model says there."""
    paths = {name: CKPT / name for name in calls}
    plain: npt.NDArray[np.int64] | None = None
    said: dict[int, str] = {}
    for way in ways:
        strategy, kind, batch_tokens = WAYS[way]
        tokens = load_tokenizers(base, paths)
        backend = kind(base, paths, tokens, batch_tokens=batch_tokens, device="cpu", dtype="float32")
        found = judge(plan, tmp_path / way, strategy, backend)
        modes, asked = (np.array(found.problems.column(name).to_pylist()) for name in ("mode", "task"))
        walked, places = np.isin(modes, WALKED), found.first_wrong(found.correct)
        mine = walked if strategy == "rollout" else np.ones(len(modes), np.bool_)
        first = set(found.flat[places[mine & (places >= 0)]].tolist())
        texts = {request: text for request, text in found.texts.items() if request in first}
        plain, said = (places, texts) if plain is None else (plain, said)
        np.testing.assert_array_equal(places[mine], plain[mine], err_msg=way)
        assert texts.keys() == first and texts.items() <= said.items(), way
        if strategy == "rollout":
            assert (found.finals[walked & (places < 0)] == 1).all(), way
    assert plain is not None
    right = plain < 0
    steps = plain - found.starts[:-1]
    assert (steps[walked & ~right] > 0).sum() > 5  # not only the first call fails
    both = [task for task in tasks if len(set(right[walked & (asked == task)].tolist())) == 2]
    assert len(both) >= 3 and all(right[asked == task].any() for task in tasks)
    assert all((~right[modes == mode]).any() and right[modes == mode].any() for mode in WALKED)
