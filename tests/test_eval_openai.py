"""A whole evaluation against a server: the tables are those of the same model asked directly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from caef_data.errors import UserError
from caef_data.eval.backends.oracle import OracleBackend
from caef_data.eval.backends.tokens import Tokens
from caef_data.eval.calls import Backend
from caef_data.eval.session import Session, prepare
from caef_data.eval.settings import EvalSettings
from caef_data.tests.checkpoints import END, write_checkpoint
from caef_data.tests.evaluating import begun, finish, model_of, requests_of
from caef_data.tests.vllm_server import FakeVLLM, Reply

ADAPTERS = ("executors/sub", "executors/add", "executors/reflection", "executors/left_mask", "aligners/sub")


def errs(adapter: str, prompt: str, answer: str) -> str:
    """Err at some prompts, in ways that a decoded text shows."""
    if len(prompt) % 7 == 3:
        return answer[: len(answer) // 2] + "#" + answer[len(answer) // 2 :]
    return answer[:-1] if len(prompt) % 11 == 2 else answer


class ErringVLLM(FakeVLLM):
    """Serves a model that answers as the machines do, but for some prompts."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__([])
        self.tokens, self.oracle, self.starts = tokens, OracleBackend(errs), set[str]()

    def reply(self, path: str, body: Any) -> Reply:
        found = next((found for fault in self.faults if (found := fault(path, body)) is not None), None)
        if found is not None:
            return found
        if path != "/v1/completions":
            return 200, {"data": [{"id": name, "max_model_len": 2000} for name in ("base", *ADAPTERS)], "version": "1"}
        ids = body["prompt"]
        text = self.tokens.text([], ids[:-1] if "prompt_logprobs" in body else ids)
        prompt = max((start for start in self.starts if text.startswith(start)), key=len)
        said = [*self.tokens.encode([self.oracle.answer(body["model"], prompt, "")])[0], END]
        given = len(self.tokens.encode([prompt])[0])
        if "prompt_logprobs" not in body:
            answer = said[len(ids) - given :][: body["max_tokens"]]
            ended = "stop" if answer[-1] == END else "length"
            return 200, {"choices": [{"token_ids": answer, "finish_reason": ended, "prompt_token_ids": ids}]}
        scores: list[Any] = [None]
        for at in range(1, len(ids)):
            best = said[at - given] if 0 <= at - given < len(said) else 5
            scores.append({str(ids[at]): {"logprob": -9.0}, "6": {"logprob": -8.0}, str(best): {"logprob": -0.5}})
        return 200, {"choices": [{"prompt_logprobs": scores}]}


@pytest.fixture
def server(vllm: FakeVLLM, vllm_tokens: Tokens) -> Iterator[ErringVLLM]:
    made = ErringVLLM(vllm_tokens)
    yield made
    made.stop()


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "ckpt", ADAPTERS)


def session(smoke: Path, ckpt: Path, out: Path, **changed: Any) -> Session:
    settings = {"adapters": str(ckpt), "data": str(smoke), "task": ("sub",), "limit": 4, "out": str(out)}
    return prepare(EvalSettings(**{**settings, **changed}))


def evaluated(made: Session, backend: Backend | None = None) -> list[dict[str, Any]]:
    accuracy: list[dict[str, Any]] = finish(made, backend or model_of(made)).to_pylist()
    return accuracy


def prompts_of(made: Session) -> set[str]:
    with begun(made) as store:
        return {call.prompt for call in requests_of(store)}


def failures(made: Session) -> list[tuple[Any, ...]]:
    told = ["mode", "a", "b", "step", "adapter", "state", "prompt", "expected", "text", "first_wrong_char"]
    parts = [made.tables.read_part("failures", part) for part in made.tables.parts("failures")]
    return sorted(tuple(row[name] for name in told) for part in parts if part is not None for row in part.to_pylist())


@pytest.mark.parametrize("strategy", ["verify", "generate"])
def test_the_tables_of_a_server(smoke: Path, ckpt: Path, tmp_path: Path, server: ErringVLLM, strategy: str) -> None:
    (ckpt / "base/model.safetensors").unlink()  # the server has it
    mine = session(smoke, ckpt, tmp_path / "a", strategy=strategy, backend="openai", endpoint=server.url)
    server.starts = prompts_of(mine)
    found = evaluated(mine)
    other = session(smoke, ckpt, tmp_path / "b", strategy=strategy, backend="oracle", adapters=None)
    assert found == evaluated(other, OracleBackend(errs))
    assert 0 < sum(row["correct"] for row in found) < sum(row["n"] for row in found)
    assert len(failures(mine)) > 3
    assert failures(mine) == failures(other)
    assert all(len(models) == 1 for models in server.mixed)
    row = mine.tables.read_run()
    assert row is not None and len(row["base_sha256"]) == 64 and row["device"].startswith(server.url)


def test_a_server_that_dies_and_comes_back(smoke: Path, ckpt: Path, tmp_path: Path, server: ErringVLLM) -> None:
    """What was answered before is not asked again, and the tables are those of an evaluation that went through."""
    options = {"strategy": "generate", "backend": "openai", "endpoint": server.url, "mode": ("executor",)}
    whole = session(smoke, ckpt, tmp_path / "whole", **options)
    with begun(whole) as store:
        num_requests = store.num_requests
    server.starts = prompts_of(whole)
    accuracy = evaluated(whole)
    server.asked.clear()
    broken = session(smoke, ckpt, tmp_path / "broken", **options)
    half = num_requests // 2

    def die(path: str, body: Any) -> Reply | None:
        return (500, {"error": "EngineDeadError"}) if len(server.asked) > half else None

    server.faults.append(die)
    with pytest.raises(UserError, match="failed 8 times"):
        evaluated(broken)
    server.faults.clear()
    server.asked.clear()
    assert evaluated(broken) == accuracy
    again = sum(path == "/v1/completions" for path, _ in server.asked)
    assert 0 < again < num_requests  # what was under way when the server died is lost


@pytest.mark.parametrize("backend", ["openai", "transformers"])
def test_all_is_checked_before_a_model_is_asked(
    smoke: Path, ckpt: Path, tmp_path: Path, server: ErringVLLM, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = server.url if backend == "openai" else None
    path = ckpt / "base/tokenizer.json"
    path.write_text(path.read_text().replace('"C":', '"\\u00e9":'))
    made = session(smoke, ckpt, tmp_path / "out", backend=backend, endpoint=endpoint)
    monkeypatch.delattr("caef_data.eval.backends.model.load_base")  # would be called next
    with pytest.raises(UserError, match="cannot spell the machines' texts: it gives"):
        finish(made, model_of(made))
    assert not server.asked
