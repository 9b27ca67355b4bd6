"""A server on a real socket that answers as vLLM did: it replays what was recorded, and fails as it is told to.

To record anew: write a checkpoint, start a server in its folder as docs/vllm.md says, but with
``--lora-modules executors/add=executors/add aligners-addition=aligners/add --model base``, and ask it:

    python -m caef_data.tests.vllm_server write FOLDER
    python -m caef_data.tests.vllm_server record FOLDER http://127.0.0.1:8000 > tests/data/vllm/records.json
"""

import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from caef_data.eval.calls import BASE, Answer, Request
from caef_data.tests.checkpoints import write_checkpoint

PROMPTS = ("12+9=", "ADD, q0, |1|2", "EQUAL, q1 ")  # short: what is recorded grows with them
RECORDS = Path(__file__).parent / "data" / "vllm" / "records.json"
ADAPTERS = ("executors/add", "aligners/add")
OPTIONS = "--dtype float32 --max-model-len 512 --max-num-seqs 1 --enforce-eager"
OPTIONS += " --enable-lora --max-loras 2 --max-lora-rank 8"  # as docs/vllm.md has them
SERVED = {"executors/add": "executors/add", "aligners/add": "aligners-addition", BASE: "base"}

Reply = tuple[int, Any]  # HTTP status and what is sent as JSON
Fault = Callable[[str, Any], Reply | None]
RECORDED: dict[str, Any] = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
TOLD = {one["adapter"]: one for one in RECORDED.get("told", ())}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many connections come at once

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has gone: the words would stand in another test's output."""


class FakeVLLM:
    """Answers requests that were recorded with what was recorded; anything else gets status 418.

    Attributes:
        faults: each is asked about a request (path, body) before it is answered, and returns another reply, or None.
        asked: requests so far: path and body.
        headers: of the last request.
        most: how many requests were under way at once, at most.
        mixed: models that were under way at once.
        delay: seconds before each answer.
        slow: it answers one request after the other; those whose client has gone are dropped.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.replies = {_key(one["path"], one["request"]): (one["status"], one["response"]) for one in records}
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.most, self.mixed, self.delay = 0, set[frozenset[str]](), 0.0
        self.slow, self.line = False, threading.Lock()
        self._lock, self._now = threading.Lock(), list[str]()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Die: the port refuses connections from now on."""
        self._server.shutdown()
        self._server.server_close()

    def reply(self, path: str, body: Any) -> Reply:
        """Return what a request gets."""
        for fault in self.faults:
            found = fault(path, body)
            if found is not None:
                return found
        return self.replies.get(_key(path, body), (418, {"error": {"message": "this was not recorded"}}))

    def enter(self, path: str, body: Any) -> None:
        with self._lock:
            self.asked.append((path, body))
            self._now.append((body or {}).get("model", path))
            self.most = max(self.most, len(self._now))
            self.mixed.add(frozenset(self._now))

    def leave(self, path: str, body: Any) -> None:
        with self._lock:
            self._now.remove((body or {}).get("model", path))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve(None)

            def do_POST(self) -> None:
                self._serve(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _serve(self, body: Any) -> None:
                with suppress(ConnectionError):  # the client may be gone
                    self._answer(body)

            def _answer(self, body: Any) -> None:
                fake.headers = {name.lower(): value for name, value in self.headers.items()}
                fake.enter(self.path, body)
                try:
                    with fake.line if fake.slow else nullcontext():
                        if fake.slow and self._is_gone():
                            raise ConnectionError
                        time.sleep(fake.delay)
                    status, found = fake.reply(self.path, body)
                finally:
                    fake.leave(self.path, body)
                if status == 0:  # hang up in the middle of an answer
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
                    self.close_connection = True
                    return
                content = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _is_gone(self) -> bool:
                try:
                    return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
                except BlockingIOError:
                    return False

            def log_message(self, *words: object) -> None:
                pass

        return Handler


def _key(path: str, body: Any) -> str:
    return json.dumps([path, body], sort_keys=True)


def calls_of(adapter: str) -> list[Request]:
    """Return the calls whose verdicts were recorded."""
    return [Request(prompt, completion) for prompt, completion in TOLD[adapter]["calls"]]


def asks_of(adapter: str) -> list[Request]:
    """Return the questions whose answers were recorded."""
    return [Request(*words) for words in TOLD[adapter]["asks"]]


def on(kind: str, change: Callable[[dict[str, Any], Any], Any], fake: FakeVLLM) -> Fault:
    """Return a fault that changes the recorded answers to verify's or decode's requests.

    ``change`` is given the one choice and the whole answer, and may return another answer: a list or bytes.
    """

    def fault(path: str, body: Any) -> Reply | None:
        if path != "/v1/completions" or ("prompt_logprobs" in body) != (kind == "verify"):
            return None
        status, found = fake.replies[_key(path, body)]
        found = json.loads(json.dumps(found))
        other = change(found["choices"][0], found)
        return status, other if isinstance(other, list | bytes) else found

    return fault


class Relay(FakeVLLM):
    """Passes requests on to a real server, and keeps what comes back."""

    def __init__(self, target: str) -> None:
        super().__init__([])
        self.target, self.records = target, list[dict[str, Any]]()

    def reply(self, path: str, body: Any) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.target + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                status, found = response.status, json.load(response)
        except urllib.error.HTTPError as error:
            status, found = error.code, json.load(error)
        with self._lock:
            self.records.append({"path": path, "request": body, "status": status, "response": found})
        return status, found


def of_all(tokens: Any) -> dict[str, Any]:
    """Return the tokenizers of the adapters that the server serves: all use the base model's."""
    return dict.fromkeys([*ADAPTERS, "executors/sub", BASE], tokens)


def record(checkpoint: Path, url: str) -> dict[str, Any]:
    """Ask a real server through the backend; return all that passed, and what the backend made of it."""
    from caef_data.eval.backends.server import OpenAIBackend
    from caef_data.eval.backends.tokens import load_tokenizer

    relay = Relay(url)
    backend = OpenAIBackend(relay.url, [*ADAPTERS, BASE], of_all(load_tokenizer(checkpoint / "base")))
    backend.provenance()
    told = []
    for adapter in (*ADAPTERS, BASE):
        asks = [Request(prompt, "x" * 8) for prompt in PROMPTS]
        answers = dict(backend.decode(adapter, asks))
        calls = []
        for index, ask in enumerate(asks):
            text = answers[index].text if answers[index].ended else answers[index].text[:8]
            calls += [Request(ask.prompt, text), Request(ask.prompt, text[:3] + "|7")]
        calls = list(dict.fromkeys(calls))
        verdicts = dict(backend.verify(adapter, calls))
        known = [Request(call.prompt, call.completion, verdicts[index].at or 0) for index, call in enumerate(calls)]
        again = dict(backend.decode(adapter, known))
        told.append(
            {
                "adapter": adapter,
                "asks": [[ask.prompt, ask.completion, ask.known] for ask in asks + known],
                "answers": told(answers, *DECODED) + told(again, *DECODED),
                "calls": [[call.prompt, call.completion] for call in calls],
                "verdicts": told(verdicts),
            }
        )
    unique = {_key(one["path"], one["request"]): one for one in relay.records}
    return {"told": told, "records": [unique[key] for key in sorted(unique)], "refusals": refusals(relay)}


PASSED, DECODED = ("at", "completion_tokens", "margin", "right", "tokens"), ("ended", "text", "decoded")


def told(found: dict[int, Answer], *names: str) -> list[dict[str, Any]]:
    """Return what is recorded of answers, by their numbers; of a forward pass where nothing else is named."""
    return [{name: getattr(found[place], name) for name in names or PASSED} for place in range(len(found))]


def refusals(relay: Relay) -> dict[str, Reply]:
    """Return what the server says to requests that it cannot serve."""
    bodies = {
        "unknown model": {"model": "nobody", "prompt": [5], "max_tokens": 1},
        "too long": {"model": "base", "prompt": [5] * 600, "max_tokens": 1},
        "unknown token": {"model": "base", "prompt": [100000], "max_tokens": 1},
    }
    return {name: relay.reply("/v1/completions", body) for name, body in bodies.items()}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder]:
            write_checkpoint(Path(folder), ADAPTERS)
        case ["record", folder, url]:
            json.dump(record(Path(folder), url), sys.stdout, separators=(",", ":"), sort_keys=True)
        case _:
            print(__doc__)
