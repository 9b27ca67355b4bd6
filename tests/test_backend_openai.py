"""The backend that asks a server, against what a real vLLM said, over real sockets."""

import json
from copy import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from caef_data.errors import UserError
from caef_data.eval.backends.server import OpenAIBackend, _Choice
from caef_data.eval.backends.tokens import Tokens
from caef_data.eval.calls import BASE, SLACK, Answer, Request
from caef_data.eval.settings import base_url
from caef_data.tests.checkpoints import END
from caef_data.tests.vllm_server import ADAPTERS, OPTIONS, SERVED, TOLD, FakeVLLM, asks_of, calls_of, of_all, on, told


@pytest.mark.parametrize("adapter", [*ADAPTERS, BASE])
def test_recorded_answers_give_the_recorded_verdicts(vllm_backend: OpenAIBackend, adapter: str) -> None:
    found = dict(vllm_backend.verify(adapter, calls_of(adapter)))
    assert told(found) == TOLD[adapter]["verdicts"]
    answers = dict(vllm_backend.decode(adapter, asks_of(adapter)))
    assert told(answers, "ended", "text", "decoded") == TOLD[adapter]["answers"]


def test_records_hold_right_and_wrong_rows_and_both_ways_agree() -> None:
    """A row is right exactly where decoding gives its completion; the records are of a server, not of this code."""
    right = 0
    for held in TOLD.values():
        decoded = {
            prompt: one for (prompt, _, known), one in zip(held["asks"], held["answers"], strict=True) if not known
        }
        for (prompt, completion), verdict in zip(held["calls"], held["verdicts"], strict=True):
            answer = decoded[prompt]
            assert verdict["right"] == (answer["ended"] and answer["text"] == completion)
            assert (verdict["margin"] > 0) == verdict["right"]
            right += verdict["right"]
    assert right >= 4


def test_margin_is_the_smallest_lead_up_to_the_first_wrong_token(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, vllm_tokens: Tokens
) -> None:
    [call] = [
        call
        for call, one in zip(calls_of("executors/add"), TOLD["executors/add"]["verdicts"], strict=True)
        if one["right"]
    ]
    [(_, verdict)] = vllm_backend.verify("executors/add", [call])
    asked = [
        reply
        for (path, body), reply in ((json.loads(key), reply) for key, reply in vllm.replies.items())
        if path == "/v1/completions"
        and "prompt_logprobs" in body
        and body["model"] == "executors/add"
        and body["prompt"] == vllm.asked[-1][1]["prompt"]
    ]
    [(_, found)] = asked
    ids, scores = vllm.asked[-1][1]["prompt"], found["choices"][0]["prompt_logprobs"]
    start = len(vllm_tokens.prompts([call.prompt])[0])
    ranks = [scores[at][str(ids[at])]["rank"] for at in range(start, len(ids))]
    assert set(ranks) == {1} and ids[-1] == END
    leads = [
        scores[at][str(ids[at])]["logprob"] - max(one["logprob"] for one in scores[at].values() if one["rank"] == 2)
        for at in range(start, len(ids))
    ]
    assert verdict.margin == min(leads)


def test_a_tie_is_not_taken_for_right(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    """Which of two equal tokens is decoded, only decoding tells."""

    def tie(choice: dict[str, Any], _: Any) -> None:
        last = choice["prompt_logprobs"][-1]
        last[str(END)]["logprob"] = max(one["logprob"] for one in last.values())
        for one in last.values():
            one["logprob"] = last[str(END)]["logprob"]

    vllm.faults.append(on("verify", tie, vllm))
    rights = [i for i, one in enumerate(TOLD["executors/add"]["verdicts"]) if one["right"]]
    found = dict(vllm_backend.verify("executors/add", calls_of("executors/add")))
    assert [found[i].right for i in rights] == [False]
    assert [found[i].at for i in rights] == [found[i].completion_tokens - 1 for i in rights]
    assert all(found[i].margin == 0 for i in rights)


def test_requests_are_greedy_whatever_the_server_defaults_to(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    list(vllm_backend.decode("executors/add", asks_of("executors/add")[:1]))
    body = vllm.asked[-1][1]
    assert {body[name] for name in ("temperature", "presence_penalty", "frequency_penalty", "top_k", "min_p")} == {0}
    assert {body[name] for name in ("top_p", "repetition_penalty", "n")} == {1}
    assert body["model"] == "executors/add" and body["max_tokens"] == 8 + SLACK


def test_known_tokens_are_sent_and_count_as_answered(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, vllm_tokens: Tokens
) -> None:
    ask = next(ask for ask in asks_of(BASE) if ask.known)
    [(_, answer)] = vllm_backend.decode(BASE, [ask])
    proved = vllm_tokens.encode([ask.completion])[0][: ask.known]
    assert vllm.asked[-1][1]["prompt"] == vllm_tokens.prompts([ask.prompt])[0] + proved
    assert answer.text.startswith(ask.completion[:3])


def test_an_end_of_another_kind_is_no_end(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    """Some models stop at several tokens; only the end-of-text token ends an answer."""

    def other(choice: dict[str, Any], _: Any) -> None:
        if choice["finish_reason"] == "stop":
            choice["token_ids"][-1], choice["stop_reason"] = 7, 7

    vllm.faults.append(on("decode", other, vllm))
    assert not any(one.ended for _, one in vllm_backend.decode("executors/add", asks_of("executors/add")))


def test_another_spelling_of_the_right_text_comes_back_as_that_text(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, vllm_tokens: Tokens
) -> None:
    def spelled(choice: dict[str, Any], _: Any) -> None:
        choice["token_ids"], choice["finish_reason"] = (
            [*map(vllm_tokens.tokenizer.convert_tokens_to_ids, "|1|2"), END],
            "stop",
        )

    vllm.faults.append(on("decode", spelled, vllm))
    assert len(vllm_tokens.encode(["|1|2"])[0]) == 1
    [(_, answer)] = vllm_backend.decode("executors/add", asks_of("executors/add")[:1])
    assert (answer.text, answer.ended, answer.decoded) == ("|1|2", True, 5)


def test_a_token_without_a_word_is_not_nothing(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    """A model may have more tokens than its tokenizer has words; decoders leave such tokens out."""
    ask = asks_of("executors/add")[0]

    def odd(choice: dict[str, Any], _: Any) -> None:
        right = vllm_backend.tokens[BASE].encode([ask.completion])[0]
        choice["token_ids"], choice["finish_reason"] = [*right[:2], 5000, *right[2:], END], "stop"

    vllm.faults.append(on("decode", odd, vllm))
    [(_, answer)] = vllm_backend.decode("executors/add", [ask])
    assert answer.text == f"{ask.completion[:2]}\ufffd{ask.completion[2:]}" and answer.ended


def test_one_adapter_at_a_time_many_requests_at_once(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    vllm.delay = 0.05
    for adapter in (*ADAPTERS, BASE):
        results = vllm_backend.decode(adapter, asks_of(adapter))
        next(results)  # the rest is under way when the next adapter is asked
        results.close()
    assert vllm.most > 2
    assert all(len(models) == 1 for models in vllm.mixed)


def test_a_question_longer_than_the_server_takes_is_not_sent(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    asked = len(vllm.asked)
    with pytest.raises(UserError, match=r"takes 514 tokens .*more than the server takes") as raised:
        list(vllm_backend.verify("executors/add", [Request("1" * 511, "2")]))
    assert "512" in str(raised.value) and "--max-model-len 514" in str(raised.value)
    with pytest.raises(UserError, match="takes 513 tokens"):
        list(vllm_backend.decode("executors/add", [Request("1" * 511, "2")]))
    assert len(vllm.asked) == asked


def test_a_rambling_prompt_that_is_too_long_has_no_answer(vllm_backend: OpenAIBackend) -> None:
    """In a rollout the model's own text may grow beyond what fits: that is its failure, not the user's."""
    asked = [Request("1" * 600, "1", certain=False)]
    assert list(vllm_backend.decode("executors/add", asked)) == [(0, Answer(False, text=""))]


def test_served_names(vllm_backend: OpenAIBackend) -> None:
    assert vllm_backend.models == SERVED


def test_an_adapter_that_is_not_served(vllm: FakeVLLM, vllm_tokens: Tokens) -> None:
    folders = {"executors/sub": Path("ckpt/executors/subtraction")}
    with pytest.raises(UserError, match="does not serve executors/sub") as raised:
        OpenAIBackend(vllm.url, ["executors/add", "executors/sub"], of_all(vllm_tokens), folders=folders)
    assert "--lora-modules executors/sub=ckpt/executors/subtraction" in str(raised.value)
    assert "base, executors/add, aligners-addition" in str(raised.value)


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ([{"id": "executors-add"}, {"id": "executors_addition"}], "may be each of"),
        ([{"id": "x", "root": "x"}, {"id": "y", "root": "y"}], "the base model alone"),
        ([], "not what vLLM gives"),
        ([{"id": 5}], "not what vLLM gives"),
        ("no", "not what vLLM gives"),
    ],
)
def test_odd_lists_of_models(vllm: FakeVLLM, vllm_tokens: Tokens, cards: Any, words: str) -> None:
    vllm.faults.append(lambda path, body: (200, {"data": cards}) if path == "/v1/models" else None)
    wanted = [BASE] if words.startswith("the base") else ["executors/add"]
    with pytest.raises(UserError, match=words):
        OpenAIBackend(vllm.url, wanted, of_all(vllm_tokens))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("http://[::1]:80/x/", "http://[::1]:80/x/v1"),
    ],
)
def test_addresses(given: str, url: str) -> None:
    assert base_url(given) == url


@pytest.mark.parametrize(
    "given", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://x/?q=1", "http://[x"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(UserError, match="http://localhost:8000, or https://host/v1"):
        base_url(given)


@pytest.mark.parametrize("given", ["http://me:secret@host", "http://me:secret@host:99999", "me:secret@host"])
def test_a_password_in_the_address_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(UserError) as raised:
        base_url(given)
    assert "secret" not in str(raised.value) and "OPENAI_API_KEY" in str(raised.value)


def test_several_processes_are_refused(vllm: FakeVLLM, vllm_tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))


def test_the_guide_starts_the_server_as_the_tests_do() -> None:
    guide = " ".join((Path(__file__).parents[1] / "docs" / "vllm.md").read_text().replace("\\\n", " ").split())
    assert OPTIONS in guide


def test_an_adapters_own_end_token_stops_the_server(
    vllm_backend: OpenAIBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copy(vllm_backend.tokens[BASE])
    own.end = 5
    vllm_backend.tokens = {**vllm_backend.tokens, "executors/add": own}
    bodies: list[dict[str, Any]] = []

    def answer(body: dict[str, Any], length: int) -> _Choice:
        bodies.append(body)
        return _Choice("stop", stop_reason=5, token_ids=[7, 5])

    monkeypatch.setattr(vllm_backend, "_ask", answer)
    [(_, ended)] = vllm_backend.decode("executors/add", [Request("1", "2")])
    [(_, cut)] = vllm_backend.decode("aligners/add", [Request("1", "2")])
    assert bodies[0]["stop_token_ids"] == [5] and ended.ended
    assert "stop_token_ids" not in bodies[1] and not cut.ended


def test_the_end_token_of_a_template_stops_the_server(
    vllm_backend: OpenAIBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model is asked through it too, and the server knows only the end token of the model."""
    templated = Tokens(vllm_backend.tokens[BASE].tokenizer, "{prompt}{completion}<unk>")
    vllm_backend.tokens = dict.fromkeys(vllm_backend.tokens, templated)
    bodies: list[dict[str, Any]] = []
    monkeypatch.setattr(
        vllm_backend,
        "_ask",
        lambda body, _: bodies.append(body) or _Choice("stop", token_ids=[7, templated.end]),
    )
    [(_, answer)] = vllm_backend.decode("executors/add", [Request("1", "2")])
    assert bodies[0]["stop_token_ids"] == [templated.end] != [END] and answer.ended
