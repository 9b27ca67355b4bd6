"""Every architecture is judged as plain greedy decoding judges it, or refused by name: whatever strategy and budget.

``python tests/test_architectures.py`` runs the whole product and writes docs/tested-models.md anew.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="a model needs torch, transformers and peft")
pytest.importorskip("peft", reason="a model needs torch, transformers and peft")

from caef_data.errors import UserError  # noqa: E402
from caef_data.eval.backends import prefix  # noqa: E402
from caef_data.eval.backends.local import TransformersBackend  # noqa: E402
from caef_data.eval.backends.rows import NEAR  # noqa: E402
from caef_data.eval.backends.tokens import load_tokenizers  # noqa: E402
from caef_data.eval.calls import Request  # noqa: E402
from caef_data.tests.architectures import SEEDS, TABLE, make_prompts, write_model  # noqa: E402
from caef_data.tests.plain import plain_greedy  # noqa: E402

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "tested-models.md"
NAME = "executors/add"
MOST = 30  # tokens of an answer
BUDGETS = (16, 150, 400, 4096)
DTYPES = ("float32", "bfloat16", "float16")
REFUSED = {"bert, not causal"}
SAID = "a=b|0a1 b2,a=b|0a1 b2,a="  # longer than windows; with others fewer of these models end their answers
STATES = ["mamba", "lfm2, convolutions", "falcon_h1, attention and states"]  # of all tokens: they share nothing
# One of each kind of positions, masks and states; of all of them, the tests marked long tell.
SOME = ["llama", "llama, dynamic rope", "phi3, longrope", "mistral, sliding window", "gemma3", "gpt2", "opt"]
SOME += ["falcon, alibi", "cohere", "mixtral", *STATES]


@dataclass(frozen=True)
class Truth:
    """A model, and what plain greedy decoding gives.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter.
        dtype: number format.
        texts: prompts, each with what plain decoding writes up to the end, or so far.
        rows: prompts, answers, and whether they are the right ones.
        said: an instruction that stands before each prompt.
    """

    base: Path
    adapter: Path
    dtype: str
    texts: dict[str, str]
    rows: list[tuple[str, str, bool]]
    said: str = ""

    def backend(self, batch_tokens: int, **options: str) -> TransformersBackend:
        adapters = {NAME: self.adapter}
        tokens = {name: own.behind(self.said) for name, own in load_tokenizers(self.base, adapters).items()}
        told = {"dtype": self.dtype, "device": "cpu", **options}
        return TransformersBackend(self.base, adapters, tokens, batch_tokens=batch_tokens, **told)

    def decoded(self, prompts: list[str]) -> list[str]:
        for prompt in (new := [prompt for prompt in prompts if prompt not in self.texts]):
            assert len(prompt) < 60, "short enough for every model"
        asked = [self.said + prompt for prompt in new]
        texts = plain_greedy(self.base, self.adapter, asked, MOST, dtype=getattr(torch, self.dtype))
        self.texts.update(zip(new, texts, strict=True))
        return [self.texts[prompt] for prompt in prompts]


def truth_of(folder: Path, name: str, number: int, dtype: str = "float32", said: str = "") -> Truth:
    """Return what the first random model says that ends some answers and says different things."""
    for seed in range(SEEDS.get(name, 0), 30):
        truth = Truth(*write_model(folder, name, seed), dtype, {}, [], said)
        prompts, chance = make_prompts(number), random.Random(0)
        for prompt, text in zip(prompts, truth.decoded(prompts), strict=True):
            place = chance.randrange(len(text) + 1)
            other = text[:place] + chance.choice("ab012") + text[place + chance.randint(0, 1) :]
            # An answer that takes more tokens than this may be without an end.
            truth.rows.extend((prompt, answer, answer == text) for answer in (text, other) if len(text) < MOST)
        if len(truth.rows) >= 6 and len({text for _, text, _ in truth.rows}) >= 5:
            return truth
    raise AssertionError("no model that says different things")


Judge = Callable[[TransformersBackend, Truth], Iterator[tuple[int, bool]]]


def verify(backend: TransformersBackend, truth: Truth) -> Iterator[tuple[int, bool]]:
    calls = [Request(prompt, text) for prompt, text, _ in truth.rows]
    for index, verdict in backend.verify(NAME, calls):
        if verdict.right:
            assert verdict.at is None and verdict.margin >= 0
        yield index, verdict.right


def generate(backend: TransformersBackend, truth: Truth) -> Iterator[tuple[int, bool]]:
    asks = [Request(prompt, text) for prompt, text, _ in truth.rows]
    for index, answer in backend.decode(NAME, asks):
        prompt, text, _ = truth.rows[index]
        assert (answer.text == truth.texts[prompt]) or not answer.ended
        yield index, answer.ended and answer.text == text


def roll_out(backend: TransformersBackend, truth: Truth) -> Iterator[tuple[int, bool]]:
    """Yield whether the second answers are right: each is asked about the model's own text, unless that is empty."""
    first = [prompt for prompt, _, right in truth.rows if right]
    second = [f"{text}=" for text in truth.decoded(first)]
    expected = dict(zip(second, truth.decoded(second), strict=True))
    answers = dict(backend.decode(NAME, [Request(prompt, "a" * MOST, certain=False) for prompt in first]))
    asked = [f"{answers[index].text}=" for index in range(len(first))]
    assert asked == second
    for index, answer in backend.decode(NAME, [Request(prompt, "a" * MOST, certain=False) for prompt in asked]):
        text = expected[asked[index]]
        yield index, answer.text.startswith(text) if len(text) >= MOST else answer.ended and answer.text == text


def check(truth: Truth, judge: Judge, batch_tokens: int) -> TransformersBackend:
    backend = truth.backend(batch_tokens)
    found = dict(judge(backend, truth))
    right = [right for *_, right in truth.rows] if judge is not roll_out else [True] * len(found)
    assert [found[index] for index in range(len(found))] == right, (judge.__name__, batch_tokens)
    assert len(found) == len(right) and len(right) > 2
    return backend


@pytest.mark.parametrize("name", SOME)
def test_verdicts_are_those_of_plain_greedy_decoding(name: str, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, name, 10)
    for judge in (verify, generate, roll_out):
        check(truth, judge, 400)


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_no_decoding_fits_are_refused_by_name(name: str, tmp_path: Path) -> None:
    base, adapter = write_model(tmp_path, name, 0)
    with pytest.raises(UserError, match="not causal|causal"):
        list(verify(Truth(base, adapter, "float32", {}, []).backend(400), Truth(base, adapter, "float32", {}, [])))


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_half_precision_is_judged_as_a_plain_loop_judges_it(name: str, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, name, 8, "bfloat16")
    for judge in (verify, generate, roll_out):
        check(truth, judge, 400)
    counted = dict(truth.backend(400, near_ties="count").verify(NAME, [Request(*row[:2]) for row in truth.rows]))
    assert any(verdict.near_tie for verdict in counted.values())
    for verdict in counted.values():
        assert verdict.near_tie or verdict.margin is None or abs(verdict.margin) >= NEAR["bfloat16"]


def judged_behind_an_instruction(
    name: str, dtype: str, number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judge rows that share what they begin with, and rows that do not; short ones, whatever that costs."""
    monkeypatch.setattr(prefix, "LEAST", 8)
    truth = truth_of(folder, name, number, dtype, SAID)
    for budget in (16, 400):
        check(truth, generate, budget)
        backend = check(truth, verify, budget)
        if name in STATES:
            assert not backend.stats["shared"]
        elif dtype == "float32" and backend.longest_shared > 100:  # rounding, or rope, may keep some from it
            assert backend.stats["shared"]
        check(truth, roll_out, budget)
    monkeypatch.setattr(prefix, "LEAST", 10**6)
    assert not check(truth, verify, 400).stats["shared"]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_an_instruction_is_computed_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged_behind_an_instruction(name, "float32", 12, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(TABLE) - REFUSED))
def test_an_instruction_is_computed_once_by_all(
    name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "mixtral" and dtype != "float32":
        pytest.skip("its rows share no batch")
    judged_behind_an_instruction(name, dtype, 12, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(TABLE) - REFUSED))
def test_every_budget_gives_the_same_verdicts(name: str, dtype: str, tmp_path: Path) -> None:
    truth = truth_of(tmp_path, name, 24, dtype)
    for budget in BUDGETS:
        for judge in (verify, generate, roll_out):
            check(truth, judge, budget)


def result(name: str, dtype: str) -> str:
    """Return in a few words how an architecture is judged."""
    with tempfile.TemporaryDirectory() as folder:
        if name in REFUSED:
            test_models_that_no_decoding_fits_are_refused_by_name(name, Path(folder))
            return "refused: not causal"
        try:
            test_every_budget_gives_the_same_verdicts(name, dtype, Path(folder))
        except AssertionError as error:
            return f"DIFFERENT: {error}"
        return "equal"


def table() -> str:
    """Return the results of the whole product, which takes half an hour."""
    lines = [f"| architecture | class | {' | '.join(DTYPES)} |", f"|---|---|{'---|' * len(DTYPES)}"]
    for name in sorted(TABLE):
        cells = [name, TABLE[name][0], *(result(name, dtype) for dtype in DTYPES)]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, mark, rest = text.partition("<!-- table: -->\n")
    _, after, end = rest.partition("<!-- /table -->")
    DOCUMENT.write_text(f"{before}{mark}\n{table()}\n\n{after}{end}", encoding="utf-8")
