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

from caef_data.eval.agenda import Agenda  # noqa: E402
from caef_data.eval.backends.tokens import load_tokenizers  # noqa: E402
from caef_data.eval.backends.transformers import TransformersBackend  # noqa: E402
from caef_data.eval.evaluate import first_failing_places  # noqa: E402
from caef_data.eval.kept import RIGHT  # noqa: E402
from caef_data.eval.rollout import WALKED  # noqa: E402
from caef_data.tests.evaluating import OPERATORS, agenda_of_all, build_short, judge  # noqa: E402
from caef_data.tests.small_model import learn_batches, save  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
CKPT = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "ckpt"
PROBLEMS = 3  # a task and mode
STEPS, RATE = 20, 1e-4


class ShortestFirst(TransformersBackend):
    """Takes its rows from the other end."""

    def _rows(self, adapter: str, questions: Any) -> Iterator[list[Any]]:
        for chunk in reversed(list(super()._rows(adapter, questions))):
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


@pytest.fixture(scope="module")
def agenda(tmp_path_factory: pytest.TempPathFactory) -> Agenda:
    folder = tmp_path_factory.mktemp("agenda")
    return agenda_of_all(build_short(folder / "data", 4), folder, PROBLEMS)


@pytest.fixture(scope="module")
def base(agenda: Agenda, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model, taught something wrong about one call to each of its adapters."""
    tokenizer, chance = AutoTokenizer.from_pretrained(CKPT / "base"), random.Random(0)
    model, lessons = AutoModelForCausalLM.from_pretrained(CKPT / "base", dtype=torch.float32), []
    for adapter in agenda.adapters:
        call = chance.choice([call for window in agenda.windows(adapter) for call in window.calls])
        at = chance.randrange(len(call.completion))
        lessons.append((call.prompt, call.completion[:at] + chance.choice("0123456789")))
    rows = [(tokenizer.encode(prompt), tokenizer.encode(answer)) for prompt, answer in lessons]
    learn_batches(model, [rows] * STEPS, RATE)
    return save(tmp_path_factory.mktemp("base"), model, tokenizer)


def test_all_ways_say_the_same_of_every_problem(agenda: Agenda, base: Path, tmp_path: Path) -> None:
    """Right or not, which call fails first, and what the model says there."""
    paths = {name: CKPT / name for name in agenda.adapters}
    modes, tasks = (np.array(agenda.problems.column(name).to_pylist()) for name in ("mode", "task"))
    walked = np.isin(modes, WALKED)
    plain: npt.NDArray[np.int64] | None = None
    said: dict[int, str] = {}
    for way, (strategy, kind, batch_tokens) in WAYS.items():
        tokens = load_tokenizers(base, paths)
        backend = kind(base, paths, tokens, batch_tokens=batch_tokens, device="cpu", dtype="float32")
        kept, finals = judge(agenda, tmp_path / way, strategy, backend)
        places = first_failing_places(agenda, kept.right)
        mine = walked if strategy == "rollout" else np.ones(len(modes), np.bool_)
        first = set(agenda.flat[places[mine & (places >= 0)]].tolist())
        texts = {call: text for call, text, _ in kept.texts() if call in first}
        plain, said = (places, texts) if plain is None else (plain, said)
        np.testing.assert_array_equal(places[mine], plain[mine], err_msg=way)
        assert texts.keys() == first and texts.items() <= said.items(), way
        if finals is not None:
            assert (finals[walked & (places < 0)] == RIGHT).all(), way
    assert plain is not None
    right = plain < 0
    steps = plain - agenda.starts[:-1]
    assert (steps[walked & ~right] > 0).sum() > 5  # not only the first call fails
    both = [task for task in OPERATORS if len(set(right[walked & (tasks == task)].tolist())) == 2]
    assert len(both) >= 3 and all(right[tasks == task].any() for task in OPERATORS)
    assert all((~right[modes == mode]).any() and right[modes == mode].any() for mode in WALKED)
