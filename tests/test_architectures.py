"""Every architecture is judged as plain greedy decoding judges it, or refused by name: whatever strategy and budget."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="a model needs torch, transformers and peft")
pytest.importorskip("peft", reason="a model needs torch, transformers and peft")

from caef_data.eval.backends.tokens import load_tokenizers  # noqa: E402
from caef_data.eval.backends.transformers import TransformersBackend  # noqa: E402
from caef_data.eval.calls import Ask, Call  # noqa: E402
from caef_data.tests.architectures import TABLE, make_prompts, write_model  # noqa: E402
from caef_data.tests.plain import plain_greedy  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "executors/add"
MOST = 30  # tokens of an answer


@dataclass(frozen=True)
class Truth:
    """A model, and what plain greedy decoding gives.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter.
        texts: prompts, each with what plain decoding writes up to the end, or so far.
        rows: prompts, right answers and wrong ones, and which they are.
    """

    base: Path
    adapter: Path
    texts: dict[str, str]
    rows: list[tuple[str, str, bool]]

    def backend(self, batch_tokens: int, **options: str) -> TransformersBackend:
        adapters = {NAME: self.adapter}
        tokens = load_tokenizers(self.base, adapters)
        return TransformersBackend(self.base, adapters, tokens, batch_tokens=batch_tokens, device="cpu", **options)


def truth_of(folder: Path, name: str, number: int) -> Truth:
    base, adapter = write_model(folder, name)
    prompts = make_prompts(number)
    texts = dict(zip(prompts, plain_greedy(base, adapter, prompts, MOST), strict=True))
    chance, rows = random.Random(0), []
    for prompt, text in texts.items():
        rows.append((prompt, text, True))
        place = chance.randrange(len(text) + 1)
        rows.append((prompt, text[:place] + chance.choice("ab012") + text[place + chance.randint(0, 1) :], False))
    ended = [(prompt, text, right) for prompt, text, right in rows if len(text) < MOST]
    return Truth(base, adapter, texts, [(prompt, text, text == texts[prompt]) for prompt, text, _ in ended])


def verified(backend: TransformersBackend, truth: Truth) -> Iterator[tuple[int, bool]]:
    calls = [Call(NAME, prompt, text) for prompt, text, _ in truth.rows]
    yield from ((index, verdict.right) for index, verdict in backend.verify(NAME, calls))


def generated(backend: TransformersBackend, truth: Truth) -> Iterator[tuple[int, bool]]:
    asks = [Ask(prompt, text) for prompt, text, _ in truth.rows]
    for index, answer in backend.decode(NAME, asks):
        prompt, text, _ = truth.rows[index]
        assert not answer.ended or answer.text == truth.texts[prompt] or len(truth.texts[prompt]) >= MOST
        yield index, answer.ended and answer.text == text


@pytest.mark.parametrize("name", TABLE)
def test_verdicts_are_those_of_plain_greedy_decoding(name: str, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, name, 12)
    right = [right for *_, right in truth.rows]
    assert any(right) and not all(right)
    for judge in (verified, generated):
        found = dict(judge(truth.backend(400), truth))
        assert [found[index] for index in range(len(right))] == right, judge.__name__
