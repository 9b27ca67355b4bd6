"""A server that fails, hangs, refuses or talks nonsense: the evaluation goes on, or stops and says what to do."""

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("transformers")

from caef_data.errors import UserError
from caef_data.eval.backends import server
from caef_data.eval.backends.server import OpenAIBackend
from caef_data.eval.backends.tokens import Tokens
from caef_data.eval.calls import Request
from caef_data.tests.checkpoints import END
from caef_data.tests.vllm_server import ADAPTERS, RECORDED, TOLD, FakeVLLM, asks_of, calls_of, of_all, on, told

DEEP = b"[" * 100_000 + b"]" * 100_000


def ask(backend: OpenAIBackend) -> Any:
    return list(backend.verify("executors/add", calls_of("executors/add")[:1]))


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408, 0])
def test_bad_moments_pass(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    left = [1] * 4

    def fail(path: str, body: Any) -> Any:
        return (status, {"error": {"message": "in a minute"}}) if left and left.pop() else None

    vllm.faults.append(fail)
    found = dict(vllm_backend.verify("executors/add", calls_of("executors/add")))
    assert told(found) == TOLD["executors/add"]["verdicts"]
    assert not left
    assert "again in 0 s" in capfd.readouterr().err


def test_a_server_that_dies_ends_the_evaluation_and_what_came_is_kept(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM
) -> None:
    vllm_backend.concurrency = 1
    found = []
    with pytest.raises(UserError, match=r"asking the server failed 8 times") as raised:
        for index, _ in vllm_backend.verify("executors/add", calls_of("executors/add")):
            found.append(index)
            if len(found) == 2:
                vllm.faults.append(lambda path, body: (500, {"error": "EngineDeadError"}))
    assert len(found) >= 2
    assert "start it again (docs/vllm.md)" in str(raised.value) and vllm.url in str(raised.value)


def test_nothing_listens(vllm_tokens: Tokens, vllm: FakeVLLM) -> None:
    vllm.stop()
    with pytest.raises(UserError, match=r"failed 8 times; the last time: Connect"):
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))


def test_no_answer_in_time(vllm: FakeVLLM, vllm_tokens: Tokens) -> None:
    backend = OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens), timeout=0.2, concurrency=1, near_ties="count")
    vllm.delay = 1.0
    with pytest.raises(UserError, match="answered nothing within 0 s"):
        list(backend.verify("executors/add", calls_of("executors/add")[:1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda choice, whole: choice.update(prompt_logprobs=None), "prompt_logprobs"),
        (lambda choice, whole: choice["prompt_logprobs"].pop(), "prompt_logprobs"),
        (lambda choice, whole: choice["prompt_logprobs"].__setitem__(-1, None), "prompt_logprobs"),
        (lambda choice, whole: choice["prompt_logprobs"].__setitem__(-1, {"5": {"logprob": 0}}), "prompt_logprobs"),
        (lambda choice, whole: choice["prompt_logprobs"][-1][str(END)].update(logprob="x"), "not what vLLM gives"),
        (lambda choice, whole: whole["choices"].append(choice), "not what vLLM gives"),
        (lambda choice, whole: whole.update(model="other"), "it is one of the model other, and executors/add was"),
        (lambda choice, whole: whole.update(choices=None), "not what vLLM gives"),
        (lambda choice, whole: [whole], "not what vLLM gives"),
        (lambda choice, whole: b"<html>", "not what vLLM gives: .DecodeError"),
    ],
)
def test_nonsense_is_refused(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, change: Callable[[Any, Any], Any], words: str
) -> None:
    vllm.faults.append(on("verify", change, vllm))
    with pytest.raises(UserError, match=words):
        list(vllm_backend.verify("executors/add", calls_of("executors/add")[:1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda choice, whole: choice.update(token_ids=None), "token_ids"),
        (lambda choice, whole: choice.update(token_ids=[]), "token_ids"),
        (lambda choice, whole: choice.update(token_ids=[1, -1]), "not what vLLM gives"),
        (
            lambda choice, whole: choice.update(token_ids=[5, 1_000_000]),
            "token 1,000,000; the base model's last one is",
        ),
        (lambda choice, whole: choice.update(token_ids=[5, 5], finish_reason="stop"), "no end token is the last"),
        (lambda choice, whole: whole.update(model="other"), "it is one of the model other, and executors/add was"),
        (lambda choice, whole: choice.update(finish_reason="abort"), "not what vLLM gives"),
        (lambda choice, whole: choice.update(prompt_token_ids=[1, 2]), "prompt_token_ids"),
        (
            lambda choice, whole: choice.update(token_ids=[5, 5], finish_reason="length"),
            r"the server ended an answer after 2 of the \d+ tokens that were asked for, though it takes 512, and the",
        ),
    ],
)
def test_nonsense_in_decoding_is_refused(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, change: Callable[[Any, Any], Any], words: str
) -> None:
    vllm.faults.append(on("decode", change, vllm))
    vllm_backend.most = 200
    with pytest.raises(UserError, match=words):
        list(vllm_backend.decode("executors/add", asks_of("executors/add")[:1]))


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (
            512,
            "after 19 of the 32 tokens that were asked for, though it takes 512, and the question has 2",
        ),
        (None, "after 19 of the 32 tokens that were asked for\n.*\n.*--max-model-len 34 or more"),
        (21, "a question takes 34 tokens with its answer and end, more than the server takes"),
    ],
)
def test_an_answer_that_is_cut_and_may_become_right_is_not_called_wrong(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, most: int | None, words: str
) -> None:
    vllm_backend.max_length = most
    right = Request("qHq", "|1|2" + "1" * 15)  # 16 tokens, or 19, one for each character
    ids = vllm_backend.tokens["executors/add"].encode([*right.completion])
    cut = {"token_ids": [one for [one] in ids], "finish_reason": "length"}
    vllm.faults.append(lambda path, body: (200, {"choices": [cut]}))
    assert len(ids) == 19
    with pytest.raises(UserError, match=words):
        list(vllm_backend.decode("executors/add", [right]))
    if most == 512:  # what a rollout goes on with would be another text
        with pytest.raises(UserError, match=words):
            list(vllm_backend.decode("executors/add", [replace(right, certain=False)]))


@pytest.mark.parametrize("name", ["too long", "unknown token", "unknown model"])
def test_recorded_refusals_are_explained(vllm_backend: OpenAIBackend, vllm: FakeVLLM, name: str) -> None:
    status, found = RECORDED["refusals"][name]
    vllm.faults.append(lambda path, body: (status, found))
    with pytest.raises(UserError) as raised:
        list(vllm_backend.verify("executors/add", calls_of("executors/add")[:1]))
    assert found["error"]["message"][:30] in str(raised.value).replace("\\'", "'")
    assert "docs/vllm.md" in str(raised.value)
    assert status != 400 or "a request of 14 tokens to 'executors/add'" in str(raised.value)


def test_the_key_is_sent_and_never_shown(
    vllm: FakeVLLM, vllm_tokens: Tokens, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    backend = OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))
    assert vllm.headers["authorization"] == "Bearer sk-very-secret"
    for status in (400, 401, 404, 500):
        echo = {"error": {"message": "you sent sk-very-secret"}}
        vllm.faults[:] = [lambda path, body, status=status, echo=echo: (status, echo)]
        with pytest.raises(UserError) as raised:
            list(backend.verify("executors/add", calls_of("executors/add")[:1]))
        assert "sk-very-secret" not in str(raised.value)
    assert "sk-very-secret" not in "".join(capfd.readouterr())


def test_a_key_is_asked_for(vllm: FakeVLLM, vllm_tokens: Tokens) -> None:
    vllm.faults.append(lambda path, body: (401, {"error": "Unauthorized"}))
    with pytest.raises(UserError, match="wants a key") as raised:
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))
    assert "OPENAI_API_KEY" in str(raised.value)


def test_a_key_that_cannot_be_one(vllm: FakeVLLM, vllm_tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a\nX-Other: b")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))


@pytest.mark.parametrize(("name", "value"), [("ALL_PROXY", "socks9://x"), ("SSL_CERT_FILE", "/no/such/file")])
def test_a_proxy_or_certificate_that_cannot_be_one(
    vllm: FakeVLLM, vllm_tokens: Tokens, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the environment asks for connections that cannot be made") as raised:
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))
    assert name in str(raised.value)


def test_an_answer_without_end(vllm_backend: OpenAIBackend, vllm: FakeVLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_ANSWER", 10_000)
    assert ask(vllm_backend)
    vllm.faults.append(on("verify", lambda choice, whole: whole.update(more=" " * 10_000), vllm))
    with pytest.raises(UserError, match="the server's answer has more than 10,000 bytes"):
        ask(vllm_backend)


def test_of_a_long_refusal_the_beginning_is_shown(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    vllm.faults.append(lambda path, body: (404, b"no " * 10**6))
    with pytest.raises(UserError, match=r"refuses a request .* \(HTTP 404\): 'no no"):
        ask(vllm_backend)


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_nested_too_deeply(vllm_backend: OpenAIBackend, vllm: FakeVLLM, status: int) -> None:
    vllm.faults.append(lambda path, body: (status, DEEP))
    with pytest.raises(UserError, match="not what vLLM gives|refuses a request"):
        ask(vllm_backend)


@pytest.mark.parametrize("content", [DEEP, b"<html>", b"\xff", b'{"data": ' + b"9" * 5000 + b"}"])
def test_a_list_of_models_that_is_none_is_asked_for_once(
    vllm: FakeVLLM, vllm_tokens: Tokens, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    vllm.faults.append(lambda path, body: (200, content))
    with pytest.raises(UserError, match="not what vLLM gives") as raised:
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))
    assert "is this a server with OpenAI's protocol" in str(raised.value)
    assert len(vllm.asked) == 1 and not capfd.readouterr().err


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 10**400, -(10**400), 1e300, True, "0", None, []])
def test_logarithms_that_are_no_numbers(vllm_backend: OpenAIBackend, vllm: FakeVLLM, score: Any) -> None:
    def change(choice: dict[str, Any], _: Any) -> None:
        for one in choice["prompt_logprobs"][-1].values():
            one["logprob"] = score

    vllm.faults.append(on("verify", change, vllm))
    with pytest.raises(UserError, match="not what vLLM gives"):
        ask(vllm_backend)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"token_ids": [5] * 50_000}, "50,000 token_ids, not 1 to "),
        ({"finish_reason": [[[]]]}, "not what vLLM gives"),
        ({"finish_reason": None}, "finish_reason None"),
    ],
)
def test_more_than_was_asked_for(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, changed: dict[str, Any], words: str
) -> None:
    vllm.faults.append(on("decode", lambda choice, whole: choice.update(changed), vllm))
    with pytest.raises(UserError, match=words):
        list(vllm_backend.decode("executors/add", asks_of("executors/add")[:1]))


def test_who_stops_does_not_wait_for_answers(vllm: FakeVLLM) -> None:
    """Ctrl-C ends a process though requests are under way, which are never answered here."""
    asked, over = threading.Event(), threading.Event()

    def hang(path: str, body: Any) -> None:
        if path == "/v1/completions":
            asked.set()
            over.wait()

    vllm.faults.append(hang)
    code = (
        "from caef_data.eval.backends.server import OpenAIBackend\n"
        "from caef_data.eval.calls import Request\n"
        "from caef_data.eval.backends.tokens import Spelled\n"
        "class Tokens:\n"
        "    end = 0\n"
        "    class tokenizer: eos_token_id = 0\n"
        "    def spell(self, *texts): return [Spelled([5], [5], '', False) for _ in texts[0]]\n"
        "    def text(self, *tokens): return '2'\n"
        f"backend = OpenAIBackend({vllm.url!r}, ['executors/add'], dict.fromkeys(['executors/add', ''], Tokens()))\n"
        "try: list(backend.decode('executors/add', [Request('1', '2')] * 3))\n"
        "except KeyboardInterrupt: backend.close(); print('stopped')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30)[0] == "stopped\n"
        finally:
            over.set()
            process.kill()
