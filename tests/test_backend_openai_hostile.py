"""A server that means harm: answers without end, too large, too deep or of odd numbers are refused."""

import gzip
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import repeat
from typing import Any

import pytest

pytest.importorskip("transformers")

from caef_data.errors import UserError
from caef_data.eval.backends import endpoint
from caef_data.eval.backends.openai import OpenAIBackend
from caef_data.eval.backends.tokens import Tokens
from caef_data.tests.vllm_server import ADAPTERS, FakeVLLM, asks_of, calls_of, of_all, on

DEEP = b"[" * 100_000 + b"]" * 100_000
Serve = Callable[[Callable[[], Iterable[bytes]]], str]


def ask(backend: OpenAIBackend) -> Any:
    return list(backend.verify("executors/add", calls_of("executors/add")[:1]))


@pytest.fixture
def serve(vllm: FakeVLLM) -> Iterator[Serve]:
    """Give what starts a server that sends the same pieces of bytes to whoever asks; return its address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer(pieces: Callable[[], Iterable[bytes]]) -> None:
            with suppress(OSError):  # the test is over, or the client has heard enough
                while True:
                    client, _ = server.accept()
                    with suppress(OSError), client:
                        client.recv(65_536)
                        for piece in pieces():
                            client.sendall(piece)

        def start(pieces: Callable[[], Iterable[bytes]]) -> str:
            threading.Thread(target=answer, args=(pieces,), daemon=True).start()
            return f"http://127.0.0.1:{server.getsockname()[1]}"

        yield start


def test_an_answer_without_end(serve: Serve, vllm_tokens: Tokens) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        yield from repeat(b"10000\r\n" + b" " * 65_536 + b"\r\n")

    with pytest.raises(UserError, match="the server's answer has more than 4,194,304 bytes"):
        OpenAIBackend(serve(pieces), ADAPTERS, of_all(vllm_tokens))


def test_an_answer_that_drips(serve: Serve, vllm_tokens: Tokens) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
        while True:
            yield b" "
            time.sleep(0.05)

    with pytest.raises(UserError, match="the server's answer does not end within 1 s"):
        OpenAIBackend(serve(pieces), ADAPTERS, of_all(vllm_tokens), timeout=1)


def test_a_bomb(serve: Serve, vllm_tokens: Tokens) -> None:
    content = gzip.compress(json.dumps({"data": [{"id": ADAPTERS[0]}, {"id": ADAPTERS[1]}]}).encode())
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(content)}\r\n\r\n".encode()
    with pytest.raises(UserError, match="is compressed, which was not asked for"):
        OpenAIBackend(serve(lambda: [head + content]), ADAPTERS, of_all(vllm_tokens))


def test_compression_is_not_asked_for(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    assert vllm.headers["accept-encoding"] == "identity"


def test_of_a_long_refusal_the_beginning_is_shown(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    vllm.faults.append(lambda path, body: (404, b"no " * 10**7))
    with pytest.raises(UserError, match=r"refuses \(HTTP 404\): 'no no"):
        ask(vllm_backend)


def test_an_answer_longer_than_its_tokens_may_make_it(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(vllm_backend)
    monkeypatch.setattr(endpoint, "MAX_ANSWER", 0)
    assert ask(vllm_backend)
    vllm.faults.append(on("verify", lambda choice, whole: whole.update(more=" " * 2048 * 100), vllm))
    with pytest.raises(UserError, match="the server's answer has more than"):
        ask(vllm_backend)


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_nested_too_deeply(vllm_backend: OpenAIBackend, vllm: FakeVLLM, status: int) -> None:
    vllm.faults.append(lambda path, body: (status, DEEP))
    with pytest.raises(UserError, match="nested too deeply|refuses a request"):
        ask(vllm_backend)


@pytest.mark.parametrize("content", [DEEP, b"<html>", b"\xff", b'{"data": ' + b"9" * 5000 + b"}"])
def test_a_list_of_models_that_is_none_is_asked_for_once(
    vllm: FakeVLLM, vllm_tokens: Tokens, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    vllm.faults.append(lambda path, body: (200, content))
    with pytest.raises(UserError, match="cannot be understood") as raised:
        OpenAIBackend(vllm.url, ADAPTERS, of_all(vllm_tokens))
    assert "is this a server with OpenAI's protocol?" in str(raised.value)
    assert len(vllm.asked) == 1 and not capfd.readouterr().err


def test_a_version_that_is_none(vllm_backend: OpenAIBackend, vllm: FakeVLLM) -> None:
    for content in (DEEP, b" " * 2**23, b'{"version": ' + b"[" * 900 + b"]" * 900 + b"}"):
        vllm.faults[:] = [lambda path, body, content=content: (200, content)]
        assert vllm_backend.provenance()["device"] == f"{vllm.url}/v1"


@pytest.mark.parametrize("name", ["root", "parent"])
def test_models_of_odd_families(vllm: FakeVLLM, vllm_tokens: Tokens, name: str) -> None:
    vllm.faults.append(lambda path, body: (200, {"data": [{"id": "base", name: ["base"]}]}))
    with pytest.raises(UserError, match="lists no models"):
        OpenAIBackend(vllm.url, [""], of_all(vllm_tokens))


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 10**400, -(10**400), 1e300, True, "0", None, []])
def test_logarithms_that_are_no_numbers(vllm_backend: OpenAIBackend, vllm: FakeVLLM, score: Any) -> None:
    def change(choice: dict[str, Any], _: Any) -> None:
        for one in choice["prompt_logprobs"][-1].values():
            one["logprob"] = score

    vllm.faults.append(on("verify", change, vllm))
    with pytest.raises(UserError, match="a logprob that is a number"):
        ask(vllm_backend)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"token_ids": [5] * 50_000}, "up to "),
        ({"finish_reason": [[[]]]}, "stop or length"),
        ({"finish_reason": None}, "stop or length"),
    ],
)
def test_more_than_was_asked_for(
    vllm_backend: OpenAIBackend, vllm: FakeVLLM, changed: dict[str, Any], words: str
) -> None:
    vllm.faults.append(on("decode", lambda choice, whole: choice.update(changed), vllm))
    with pytest.raises(UserError, match=words):
        list(vllm_backend.decode("executors/add", asks_of("executors/add")[:1]))
