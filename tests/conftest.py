"""Fixtures that several test files share."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.tm.machine import REGISTRY

# Processes of tests fill the cores: torch's threads of small products would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores, and tests send it
# The files that take longest begin, so that no process is left alone with one at the end.
FIRST = """
    readme train bad_days architectures adapters_plain forgeries cli backend_transformers readme_remote
    real_vocabularies eval_resume eval_torchrun push_kill ray tiny_example equivalence crash_points
    report_browser push report build frozen streams hub_source environment_packages contamination bad_folders
    verify names split store push_store
""".split()

if TYPE_CHECKING:
    from caef_data.eval.backends.server import OpenAIBackend
    from caef_data.eval.backends.tokens import Tokens
    from caef_data.tests.hub.side import Side
    from caef_data.tests.s3_server import S3Server
    from caef_data.tests.vllm_server import FakeVLLM


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    places = {f"test_{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the shipped declaration ``smoke``, built in this process; tests only read it."""
    out = tmp_path_factory.mktemp("smoke") / "data"
    build(make_plan(load_declaration("smoke")), out, workers=1)
    return out


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Forget the machines that a test has made tasks."""
    before = dict(REGISTRY)
    yield
    if before != REGISTRY:
        REGISTRY.clear()
        REGISTRY.update(before)


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], "Side"]]:
    """Return what makes a test Hub with a client once per mode, ``lfs`` or ``xet``."""
    from caef_data.tests.hub.side import Side

    with ExitStack() as stack:
        yield cache(lambda mode: stack.enter_context(Side(tmp_path_factory.mktemp(mode), mode == "xet")))


@pytest.fixture(params=["lfs", "xet"])
def side(request: pytest.FixtureRequest, sides: Callable[[str], "Side"]) -> Iterator["Side"]:
    """Give a test Hub with a client of it, in both modes; tests share them, so each takes repositories of its own."""
    yield sides(request.param)
    sides(request.param).check()


@pytest.fixture
def lfs_side(sides: Callable[[str], "Side"]) -> Iterator["Side"]:
    """Give the test Hub with a client of it that knows nothing of Xet."""
    yield sides("lfs")
    sides("lfs").check()


@pytest.fixture(scope="session")
def s3_server() -> Iterator["S3Server"]:
    """Give an S3 server."""
    from caef_data.tests.s3_server import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> Iterator["S3Server"]:
    """Give an S3 server with an empty bucket, which this process's clients find, and try again at without waiting."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.retryhandler.random.random", lambda: 0.0)  # of this, delays are multiples
    s3_server.reset()
    yield s3_server
    s3_server.check()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of result tables, of five small runs; tests only read it."""
    from caef_data.tests.results_data import write_results

    folder = tmp_path_factory.mktemp("results") / "results"
    write_results(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of every task on operands of one and two digits; tests only read it."""
    from caef_data.tests.evaluating import build_short

    return build_short(tmp_path_factory.mktemp("short") / "data", 2)


@pytest.fixture(scope="session")
def plan(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file with the plan for this dataset's operators in all modes; tests copy it."""
    from caef_data.tests.evaluating import planned_all

    return planned_all(data, tmp_path_factory.mktemp("plan"), 8)


@pytest.fixture(scope="session")
def vllm_tokens(tmp_path_factory: pytest.TempPathFactory) -> "Tokens":
    """Return the tokenizer of the model that the recorded vLLM served."""
    from caef_data.eval.backends.tokens import load_tokenizer
    from caef_data.tests.checkpoints import write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return load_tokenizer(folder)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator["FakeVLLM"]:
    """Give a server that answers as a real vLLM did; its clients try again without waiting."""
    from caef_data import retry
    from caef_data.tests.vllm_server import RECORDED, FakeVLLM

    monkeypatch.setattr(retry, "FIRST_DELAY", 0)
    for name in ("OPENAI_API_KEY", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    fake = FakeVLLM(RECORDED["records"])
    yield fake
    fake.stop()


@pytest.fixture
def vllm_backend(vllm: "FakeVLLM", vllm_tokens: "Tokens") -> Iterator["OpenAIBackend"]:
    """Give the backend that asks this server."""
    from caef_data.eval.backends.server import OpenAIBackend
    from caef_data.eval.calls import BASE
    from caef_data.tests.vllm_server import ADAPTERS, of_all

    made = OpenAIBackend(vllm.url, [*ADAPTERS, BASE], of_all(vllm_tokens), timeout=30, near_ties="count")
    yield made
    made.close()
