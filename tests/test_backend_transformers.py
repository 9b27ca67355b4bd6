"""The transformers backend against transformers' own generate, on a model that is right about some rows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import normalizers
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from caef_data.errors import UserError
from caef_data.eval.backends import local as module
from caef_data.eval.backends.device import find_device
from caef_data.eval.backends.greedy import LOOK_EVERY
from caef_data.eval.backends.local import TransformersBackend
from caef_data.eval.backends.tokens import load_tokenizers
from caef_data.eval.calls import BASE, SLACK, Answer, Request
from caef_data.tests.small_model import learn, make_model, make_texts, make_tokenizer, save

TEXTS = make_texts(64)
KNOWN = 40  # texts that the model learns; it guesses at the others
END = 1


@dataclass(frozen=True)
class Small:
    base: Path
    adapters: dict[str, Path]

    def backend(self, batch_tokens: int = 512, **options: str) -> TransformersBackend:
        tokens = load_tokenizers(self.base, self.adapters)
        return TransformersBackend(self.base, self.adapters, tokens, batch_tokens=batch_tokens, device="cpu", **options)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    rows = [(tokenizer.encode(prompt), tokenizer.encode(answer)) for prompt, answer in TEXTS]
    learn(model, rows[:KNOWN], 150)
    base = save(folder / "base", model, tokenizer)
    adapters = {}
    for seed, name in enumerate(["executors/add", "aligners/sub"]):
        torch.manual_seed(seed)
        adapted = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        )
        learn(adapted, [(tokenizer.encode(one), tokenizer.encode(two[::-1][seed:])) for one, two in TEXTS[:12]], 60)
        adapters[name] = folder / name
        adapted.save_pretrained(adapters[name])
    return Small(base, adapters)


def calls() -> list[Request]:
    return [Request(prompt, answer) for prompt, answer in TEXTS]


def asks(texts: Sequence[tuple[str, str]] = TEXTS) -> list[Request]:
    return [Request(prompt, answer) for prompt, answer in texts]


def verified(backend: TransformersBackend, questions: Sequence[Request], adapter: str = BASE) -> list[Answer]:
    found = list(backend.verify(adapter, questions))
    assert sorted(index for index, _ in found) == list(range(len(questions)))
    return [verdict for _, verdict in sorted(found, key=lambda one: one[0])]


def said(answer: Answer) -> tuple[str | None, bool, int]:
    return answer.text, answer.ended, answer.decoded


def decoded(backend: TransformersBackend, adapter: str, questions: Sequence[Request]) -> list[Answer]:
    found = list(backend.decode(adapter, questions))
    assert sorted(index for index, _ in found) == list(range(len(questions)))
    return [answer for _, answer in sorted(found, key=lambda one: one[0])]


def generated(model: torch.nn.Module, prompt: str, answer: str) -> list[int]:
    """Decode one row with the library's own generate; its end token is left out."""
    tokenizer = make_tokenizer()
    ids = torch.tensor([tokenizer.encode(prompt)])
    most = len(tokenizer.encode(answer)) + SLACK
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False)
    return found[0, ids.shape[1] :].tolist()


def test_verify_and_decode_give_what_generate_gives(small: Small) -> None:
    backend, tokenizer = small.backend(), make_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(small.base)
    verdicts, answers = verified(backend, calls()), decoded(backend, BASE, asks())
    for (prompt, text), verdict, answer in zip(TEXTS, verdicts, answers, strict=True):
        truth, right = generated(model, prompt, text), [*tokenizer.encode(text), END]
        agree = next((i for i, pair in enumerate(zip(truth, right, strict=False)) if pair[0] != pair[1]), None)
        assert verdict.at == agree
        assert verdict.right == (truth == right) == (answer.ended and answer.text == text)
        assert answer.ended == (truth[-1] == END)
        assert answer.text == tokenizer.decode(truth[: len(truth) - answer.ended])
        assert answer.decoded == len(truth)
        assert verdict.tokens == len(tokenizer.encode(prompt)) + len(right)
        assert verdict.completion_tokens == len(right)
        assert (verdict.margin >= 0) == verdict.right
    places = {verdict.at for verdict in verdicts}
    assert sum(verdict.right for verdict in verdicts) >= 20
    assert len(places) >= 4, "the model is to be wrong at many places"


def test_margins_are_those_of_a_plain_forward_pass(small: Small) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(small.base), make_tokenizer()
    for (prompt, text), verdict in zip(TEXTS, verified(small.backend(), calls()), strict=True):
        before, right = tokenizer.encode(prompt), [*tokenizer.encode(text), END]
        with torch.no_grad():
            logits = model(torch.tensor([before + right])).logits[0, len(before) - 1 : -1]
        margins = []
        for row, token in zip(logits, right, strict=True):
            others = torch.cat([row[:token], row[token + 1 :]])
            margins.append(float(row[token] - others.max()))
        until = len(right) if verdict.at is None else verdict.at + 1
        assert verdict.margin == pytest.approx(min(margins[:until]), abs=1e-4)


def test_neither_budget_nor_order_matters(small: Small) -> None:
    first = verified(small.backend(10_000), calls())
    answers = decoded(small.backend(10_000), BASE, asks())
    for batch_tokens in (16, 100, 900):
        backend = small.backend(batch_tokens)
        again = verified(backend, calls()[::-1])[::-1]
        assert [(one.right, one.at, one.tokens) for one in again] == [(one.right, one.at, one.tokens) for one in first]
        assert [*map(said, decoded(backend, BASE, asks(TEXTS[::-1])))][::-1] == [*map(said, answers)]


def test_decoding_starts_behind_what_is_known(small: Small) -> None:
    backend = small.backend()
    whole = decoded(backend, BASE, asks())
    verdicts = verified(backend, calls())
    known = [one.completion_tokens - 1 if one.at is None else one.at for one in verdicts]
    tails = decoded(
        backend,
        BASE,
        [Request(prompt, text, number) for (prompt, text), number in zip(TEXTS, known, strict=True)],
    )
    assert [(one.text, one.ended) for one in tails] == [(one.text, one.ended) for one in whole]
    assert [one.decoded + number for one, number in zip(tails, known, strict=True)] == [one.decoded for one in whole]
    assert any(known)


def test_every_adapter_gives_its_own_answers(small: Small) -> None:
    backend = small.backend()
    names = [BASE, *small.adapters]
    truth = {}
    for name in names:
        model = AutoModelForCausalLM.from_pretrained(small.base)
        if name != BASE:
            model.load_adapter(str(small.adapters[name]))
        truth[name] = [generated(model, *text) for text in TEXTS[:12]]
    texts = {name: [make_tokenizer().decode(tokens[:-1]) for tokens in truth[name]] for name in names}
    assert len({tuple(texts[name]) for name in names}) == 3
    for name in [*names, *names[::-1]]:  # there and back: switching leaves nothing behind
        answers = decoded(backend, name, asks(TEXTS[:12]))
        assert [one.text for one in answers if one.ended] == [
            text for text, tokens in zip(texts[name], truth[name], strict=True) if tokens[-1] == END
        ]
        own = [
            Request(prompt, answer.text) for (prompt, _), answer in zip(TEXTS, answers, strict=False) if answer.ended
        ]
        assert len(own) >= 8 and all(one.right for one in verified(backend, own, name))


@pytest.mark.parametrize("before", [False, True], ids=["twin above", "twin below"])
def test_ties_go_to_the_lowest_token(small: Small, tmp_path: Path, before: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(small.base)
    tokenizer = make_tokenizer()
    letter, twin = tokenizer.encode("a")[0], tokenizer.encode("!" if before else "~")[0]
    assert (twin < letter) == before
    with torch.no_grad():
        model.lm_head.weight[twin] = model.lm_head.weight[letter]
    tied = Small(save(tmp_path, model, tokenizer), {})
    for batch_tokens in (16, 512):
        backend = tied.backend(batch_tokens)
        verdicts, answers = verified(backend, calls()), decoded(backend, BASE, asks())
        plain = verified(small.backend(batch_tokens), calls())
        touched = 0
        for (_, text), verdict, answer, other in zip(TEXTS, verdicts, answers, plain, strict=True):
            assert verdict.right == (answer.ended and answer.text == text)
            if other.right and letter in tokenizer.encode(text):
                touched += 1
                assert verdict.right != before
                assert verdict.margin == 0
                assert verdict.at == (tokenizer.encode(text).index(letter) if before else None)
        assert touched >= 5


def test_end_and_white_space_are_part_of_an_answer(small: Small) -> None:
    backend, tokenizer = small.backend(), make_tokenizer()
    known = [text for text, one in zip(TEXTS, verified(backend, calls()), strict=True) if one.right]
    changed = {
        "ends too early": [(prompt, answer + "x") for prompt, answer in known],
        "goes on": [(prompt, answer[:-1]) for prompt, answer in known if answer[-2:] not in ("12", "34", "ab")],
        "space behind": [(prompt, answer + " ") for prompt, answer in known],
        "line break behind": [(prompt, answer + "\n") for prompt, answer in known],
        "space before": [(prompt, " " + answer) for prompt, answer in known],
    }
    for what, texts in changed.items():
        verdicts = verified(backend, [Request(*text) for text in texts])
        answers = decoded(backend, BASE, asks(texts))
        assert not any(one.right for one in verdicts), what
        assert [one.text for one in answers] == [dict(known)[prompt] for prompt, _ in texts], what
        if what != "space before":
            ends = [
                min(len(tokenizer.encode(text)), len(tokenizer.encode(dict(known)[prompt]))) for prompt, text in texts
            ]
            assert [one.at for one in verdicts] == ends, what


def test_another_spelling_of_the_right_text_is_the_right_text(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    spelled = [token for letter in "1234ab" for token in tokenizer.encode(letter)]
    learn(model, [(tokenizer.encode("spell:"), spelled)], 40)
    backend = Small(save(tmp_path, model, tokenizer), {}).backend()
    [verdict] = verified(backend, [Request("spell:", "1234ab")])
    assert (verdict.right, verdict.at, verdict.completion_tokens) == (True, None, 3)
    [answer] = decoded(backend, BASE, [Request("spell:", "1234ab")])
    assert said(answer) == said(verdict) == ("1234ab", True, 7)
    assert verdict.margin == answer.margin > 0, "the margin is of the tokens that the model gives"
    [wrong] = verified(backend, [Request("spell:", "21ab")])
    assert (wrong.right, wrong.text) == (False, None), "no token of it can begin the right text"


def test_an_answer_that_takes_more_tokens_than_decoding_waits_for_is_right(tmp_path: Path) -> None:
    """Plain decoding has no limit of its own: what is on the right way is let go on."""
    tokenizer, text = make_tokenizer(), "1234" * 12
    model = make_model(len(tokenizer))
    learn(model, [(tokenizer.encode("spell:"), [token for one in text for token in tokenizer.encode(one)])], 80)
    backend = Small(save(tmp_path, model, tokenizer), {}).backend()
    assert len(tokenizer.encode(text)) + SLACK < len(text)
    [verdict] = verified(backend, [Request("spell:", text)])
    assert verdict.right and said(verdict) == (text, True, len(text) + 1)


def test_a_tokenizer_that_loses_something_does_not_make_another_text_right(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    model = make_model(len(tokenizer))
    learn(model, [(tokenizer.encode("spell:"), tokenizer.encode("acb"))], 40)
    backend = Small(save(tmp_path, model, tokenizer), {}).backend()
    assert not verified(backend, [Request("spell:", "ACB")])[0].right
    assert [*map(said, decoded(backend, BASE, [Request("spell:", "ACB")]))] == [("acb", True, 4)]


def test_models_with_learnt_positions_and_padding(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": len(tokenizer)}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=None, eos_token_id=END, pad_token_id=0))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    backend = Small(save(tmp_path, model.eval(), tokenizer), {}).backend()
    answers = decoded(backend, BASE, asks())
    assert backend.stats["steps"] <= 2 * (SLACK + 30), "rows of different lengths go together"
    assert len({answer.text for answer in answers}) >= 30
    for (prompt, text), answer in zip(TEXTS, answers, strict=True):
        assert answer.text == tokenizer.decode(generated(model, prompt, text)[: answer.decoded - answer.ended])
    given = [(prompt, tokenizer.encode(answer.text)) for (prompt, _), answer in zip(TEXTS, answers, strict=True)]
    found = verified(backend, [Request(prompt, tokenizer.decode(tokens)) for prompt, tokens in given])
    same = [one.at == len(tokens) for one, (_, tokens) in zip(found, given, strict=True) if one.at is not None]
    assert sum(same) >= 30  # others are spelled with other tokens


def test_looking_seldom_changes_nothing(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    often = decoded(small.backend(), BASE, asks())
    monkeypatch.setitem(LOOK_EVERY, "cpu", 5)
    backend = small.backend(near_ties="count")
    assert decoded(backend, BASE, asks()) == often
    assert backend.stats["decoded"] == sum(answer.decoded for answer in often)


def test_no_step_waits_for_the_device(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a tensor is true is a question to the device, which answers when all before is done."""
    questions, asked = [], torch.Tensor.__bool__
    backend = small.backend(near_ties="count")
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: questions.append(tensor) or asked(tensor))
    decoded(backend, BASE, asks())  # of several lengths: padded
    assert 0 < len(questions) <= 5 < backend.stats["steps"]


def test_models_whose_positions_are_in_the_mask(tmp_path: Path) -> None:
    """Falcon's alibi counts the tokens of a mask of positions: it cannot be handed one that is ready."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": len(tokenizer)}
    model = FalconForCausalLM(FalconConfig(**shape, alibi=True, bos_token_id=None, eos_token_id=END, pad_token_id=0))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    place = save(tmp_path, model.eval(), tokenizer)
    together = decoded(Small(place, {}).backend(), BASE, asks())
    alone = [decoded(Small(place, {}).backend(), BASE, [ask])[0] for ask in asks()[:8]]
    assert [answer.text for answer in together[:8]] == [answer.text for answer in alone]


def test_logits_that_are_not_finite_stop_the_evaluation(small: Small) -> None:
    """Finite weights can overflow."""
    backend = small.backend()
    with torch.no_grad():
        backend.model.net.lm_head.weight[40] = 3e38
    for ask in (lambda: verified(backend, calls()), lambda: decoded(backend, BASE, asks())):
        with pytest.raises(UserError, match="the base model gives logits that are not finite") as caught:
            ask()
        assert "tokens: '" in str(caught.value)


def test_which_wrong_token_comes_may_be_a_near_tie(tmp_path: Path) -> None:
    """One of two equal tokens begins the right text in another spelling: where the pass cannot know, decoding tells."""
    tokenizer = make_tokenizer()
    model, (one, zero) = make_model(len(tokenizer)), (tokenizer.encode(letter)[0] for letter in "10")
    assert zero < one
    learn(model, [(tokenizer.encode("spell:"), [token for letter in "12" for token in tokenizer.encode(letter)])], 60)
    with torch.no_grad():
        model.lm_head.weight[zero] = model.lm_head.weight[one]  # equal: the lower number wins, 0 comes
    backend = Small(save(tmp_path, model, tokenizer), {}).backend()
    [verdict] = verified(backend, [Request("spell:", "12")])
    assert verdict.near_tie and not verdict.right
    assert verdict.text is not None and verdict.text.startswith("0")


def test_near_ties_are_counted_or_decoded_alone(small: Small) -> None:
    """In float32 they are few; with every row taken for one, all are decoded as the library does it."""
    for near, few in ((1e-3, True), (100.0, False)):
        backend = small.backend()
        backend.near = near
        assert (backend.stats["alone"], [one.right for one in verified(backend, calls())]) == (
            0, [one.right for one in verified(small.backend(near_ties="count"), calls())],
        )  # fmt: skip
        assert backend.stats["alone"] <= 2 if few else backend.stats["alone"] == len(TEXTS)
        backend.near_alone = False
        assert all(one.near_tie and one.text is None for one in verified(backend, calls())) != few


def test_decoding_gives_up(small: Small) -> None:
    backend = small.backend()
    prompt, text = next((prompt, text) for prompt, text in TEXTS if len(text) > SLACK + 6)
    [answer] = decoded(backend, BASE, [Request(prompt, "x")])
    assert (answer.ended, answer.decoded) == (False, 1 + SLACK)
    assert text.startswith(answer.text)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_the_budget(
    small: Small, monkeypatch: pytest.MonkeyPatch, error: type[RuntimeError]
) -> None:
    truth, texts = verified(small.backend(), calls()), decoded(small.backend(), BASE, asks())
    backend = small.backend(4096)
    plain, refused = backend.model.logits, []

    def logits(ids: torch.Tensor, index: torch.Tensor, **options: object) -> torch.Tensor:
        if ids.numel() > limit:
            refused.append(ids.numel())
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return plain(ids, index, **options)

    monkeypatch.setattr(backend.model, "logits", logits)
    limit = 150
    found = verified(backend, calls())
    assert [(one.right, one.at) for one in found] == [(one.right, one.at) for one in truth]
    assert [*map(said, decoded(backend, BASE, asks()))] == [*map(said, texts)]
    assert 2 <= len(refused) <= 20
    limit = 10
    with pytest.raises(UserError, match="memory ran out on a single row of 4. tokens"):
        verified(backend, calls())
    with pytest.raises(UserError, match="memory ran out on a single row"):
        decoded(backend, BASE, asks())


def test_other_failures_are_not_taken_for_lack_of_memory(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = small.backend()

    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("something else")

    monkeypatch.setattr(backend.model, "logits", broken)
    with pytest.raises(RuntimeError, match="something else"):
        verified(backend, calls())


def test_only_what_decides_a_token_meets_the_vocabulary(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = small.backend(10_000)
    shapes: list[tuple[int, ...]] = []
    backend.model.net.lm_head.register_forward_hook(lambda _, args, __: shapes.append(tuple(args[0].shape)))
    needed = sum(one.completion_tokens for one in verified(backend, calls()))
    assert [shape[:2] for shape in shapes] == [(1, shape[1]) for shape in shapes]
    assert sum(shape[1] for shape in shapes) == needed < backend.stats["tokens"] * 0.7
    shapes.clear()
    decoded(backend, BASE, asks())
    assert max(shape[1] for shape in shapes) <= len(TEXTS)
    shapes.clear()
    monkeypatch.setitem(module.LOGITS, "cpu", 60 * backend.model.vocabulary)
    verified(backend, calls())
    assert max(shape[1] for shape in shapes) <= 60
    assert sum(shape[1] for shape in shapes) == needed


def test_what_follows_the_projection_still_counts(tmp_path: Path) -> None:
    from transformers import CohereConfig, CohereForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        logit_scale=0.5, eos_token_id=1, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    margins = []
    for scale in (0.5, 0.25):
        config.logit_scale = scale
        torch.manual_seed(0)
        backend = Small(save(tmp_path / str(scale), CohereForCausalLM(config), tokenizer), {}).backend()
        margins.append([one.margin for one in verified(backend, calls())])
    assert margins[1] == pytest.approx([margin / 2 for margin in margins[0]], rel=1e-4)


def test_padding_is_little_and_counted(small: Small) -> None:
    backend = small.backend(10_000)
    verified(backend, calls())
    lengths = [one.tokens - 1 for one in verified(backend, calls())]
    assert backend.stats["tokens"] == 2 * sum(lengths)
    assert 0.97 <= backend.stats["tokens"] / backend.stats["computed"] <= 1


def test_rows_longer_than_the_model_are_refused_before_the_pass(small: Small) -> None:
    backend = small.backend()
    fits, over = Request("x" * 100, "y" * 28), Request("x" * 100, "y" * 29)
    assert len(verified(backend, [fits])) == 1
    with pytest.raises(UserError, match="a row of 129 tokens is longer") as caught:
        verified(backend, [*calls(), over])
    assert "128 tokens" in str(caught.value)
    with pytest.raises(UserError, match="a row of 129 tokens is longer"):
        decoded(backend, BASE, [Request(over.prompt, over.completion)])
    # Off the track of a rollout nothing is expected but some text: it may fail, the evaluation goes on.
    assert decoded(backend, BASE, [Request("x" * 100, "x" * 100, certain=False)])[0].decoded <= 29
    for number in (129, 200):
        assert decoded(backend, BASE, [Request("x" * number, "x", certain=False)]) == [Answer(False, text="")]


def test_bfloat16_and_its_adapters(small: Small) -> None:
    backend = small.backend(dtype="bfloat16")
    assert len(verified(backend, calls(), "executors/add")) == len(TEXTS)
    net = backend.model.net
    assert {weight.dtype for weight in net.parameters()} == {torch.bfloat16}
    assert net.model.rotary_emb.inv_freq.dtype == torch.float32  # positions would be rounded
    assert backend.provenance() | {"torch": 0, "transformers": 0, "peft": 0} == {
        "device": "cpu", "dtype": "bfloat16", "near_tie_below": 1.0, "batch_tokens": 512,
        "torch": 0, "transformers": 0, "peft": 0,
    }  # fmt: skip


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "toaster", "cuda:x", "meta"):
        with pytest.raises(UserError, match="there is no device"):
            find_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_device("auto") == find_device("cuda") == torch.device("cuda:1")
    assert find_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="no device 'cuda:2': this machine has 2 GPUs"):
        find_device("auto")
