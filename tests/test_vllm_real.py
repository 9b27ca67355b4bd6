"""A real vLLM server gives the verdicts of the transformers backend; run where vLLM is installed (docs/vllm.md)."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caef_data.eval.backends.server import OpenAIBackend
from caef_data.eval.backends.tokens import load_tokenizer
from caef_data.eval.calls import BASE, Request
from caef_data.eval.session import Session, prepare
from caef_data.eval.settings import EvalSettings
from caef_data.tests.checkpoints import write_checkpoint
from caef_data.tests.evaluating import finish, model_of
from caef_data.tests.vllm_server import ADAPTERS, OPTIONS, RECORDED, SERVED, of_all, record
from caef_data.tm import transitions

PYTHON = os.environ.get("CAEF_DATA_VLLM_PYTHON", "")
WHY = "set CAEF_DATA_VLLM_PYTHON to the Python of an environment that holds vLLM: docs/vllm.md"
pytestmark = [pytest.mark.skipif(not PYTHON, reason=WHY), pytest.mark.timeout(900)]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCHDYNAMO_DISABLE": "1",
}


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("vllm") / "ckpt", ADAPTERS)


@pytest.fixture(scope="module")
def url(ckpt: Path) -> Iterator[str]:
    """Give the address of a server that has been started as docs/vllm.md says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    modules = [f"{SERVED[name]}={name}" for name in ADAPTERS]
    words = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", "base", "--served-model-name", "base"]
    words += ["--host", "127.0.0.1", "--port", str(port), *OPTIONS.split()]
    with (ckpt.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--lora-modules", *modules],
            cwd=ckpt,
            env={**os.environ, **ENVIRONMENT},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            assert process.poll() is None, (ckpt.parent / "server.log").read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_verdicts_are_those_of_the_transformers_backend(ckpt: Path, url: str) -> None:
    from caef_data.eval.backends.local import TransformersBackend

    folders = {name: ckpt / name for name in ADAPTERS}
    there = OpenAIBackend(url, [*ADAPTERS, BASE], of_all(load_tokenizer(ckpt / "base")), folders=folders)
    here = TransformersBackend(ckpt / "base", folders, there.tokens, batch_tokens=4096, dtype="float32", device="cpu")
    prompts = [step.prompt for a in (3, 28, 507) for step in transitions("add", a, 36)]
    texts, rights = set(), []
    for adapter in (*ADAPTERS, BASE):
        asks = [Request(prompt, "x" * 30) for prompt in prompts]
        answers = dict(here.decode(adapter, asks))
        assert dict(there.decode(adapter, asks)) == answers
        said = [answers[i].text for i in range(len(asks))]
        texts.add(tuple(said))
        calls = [Request(prompt, text) for prompt, text in zip(prompts, said, strict=True)]
        calls += [Request(one.prompt, f"{one.completion[:at]}7{one.completion[at:]}") for at, one in enumerate(calls)]
        mine, theirs = dict(here.verify(adapter, calls)), dict(there.verify(adapter, calls))
        for i in range(len(calls)):
            told = [(one.right, one.at, one.tokens, one.completion_tokens) for one in (mine[i], theirs[i])]
            assert told[0] == told[1]
            assert mine[i].margin == pytest.approx(theirs[i].margin, abs=1e-3)
        proved = [Request(one.prompt, one.completion, mine[i].at or 0) for i, one in enumerate(calls)]
        assert dict(there.decode(adapter, proved)) == dict(here.decode(adapter, proved))
        rights += [one.right for one in mine.values()]
    assert len(texts) == 3  # adapters do change the answers
    assert 0.1 < sum(rights) / len(rights) < 0.9


def test_the_records_are_what_this_server_says(ckpt: Path, url: str) -> None:
    """Texts, ends and verdicts of tests/data/vllm; numbers to within rounding."""
    found = record(ckpt, url)
    for now, then in zip(found["told"], RECORDED["told"], strict=True):
        assert now["answers"] == then["answers"] and now["calls"] == then["calls"]
        for one, other in zip(now["verdicts"], then["verdicts"], strict=True):
            assert one.pop("margin") == pytest.approx(other["margin"], abs=1e-3)
            assert one.items() <= other.items()
    assert {name: status for name, (status, _) in found["refusals"].items()} == {
        name: status for name, (status, _) in RECORDED["refusals"].items()
    }


def test_a_whole_evaluation(ckpt: Path, url: str, smoke: Path, tmp_path: Path) -> None:
    def made(backend: str, strategy: str, **more: Any) -> Session:
        options = {"adapters": str(ckpt), "data": str(smoke), "task": ("add",), "limit": 3, "dtype": "float32"}
        out = str(tmp_path / f"{backend}-{strategy}")
        session = prepare(EvalSettings(**options, backend=backend, strategy=strategy, out=out, **more))
        finish(session, model_of(session))
        return session

    def rows(session: Session, table: str, names: list[str]) -> list[tuple[Any, ...]]:
        parts = [session.tables.read_part(table, part) for part in session.tables.parts(table)]
        return sorted(
            tuple(row[name] for name in names) for part in parts if part is not None for row in part.to_pylist()
        )

    told = ["mode", "a", "b", "step", "adapter", "prompt", "expected", "text", "first_wrong_char"]
    expected = rows(made("transformers", "verify"), "failures", told)
    assert expected
    for strategy in ("verify", "generate", "rollout"):
        session = made("openai", strategy, endpoint=url)
        assert rows(session, "failures", told) == expected
