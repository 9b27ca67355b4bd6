"""What must hold on a GPU. ``unittest`` runs it too: there may be no pytest (benchmarks/gpu.sh).

Skipped where torch sees no GPU; ``CAEF_TESTS_DEVICE=cpu`` runs them on the CPU.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

from caef_data.eval.backends.local import TransformersBackend
from caef_data.eval.backends.tokens import load_tokenizers
from caef_data.eval.calls import BASE, Answer, Request
from caef_data.eval.problems import MODES
from caef_data.eval.settings import STRATEGIES
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.tests.evaluating import judge, planned_all
from caef_data.tests.plain import plain_greedy
from caef_data.tm import transitions

DEVICE = os.environ.get("CAEF_TESTS_DEVICE") or ("cuda" if torch.cuda.is_available() else "")
CHECKPOINT = Path(__file__).resolve().parents[1] / "examples" / "tiny" / "ckpt"
FOLDERS = [path.parent for path in CHECKPOINT.glob("*/*/adapter_config.json")]
ADAPTERS = {f"{folder.parent.name}/{folder.name}": folder for folder in FOLDERS}
ADD = "executors/add"
FEW, MANY = 64, 16_384  # tokens of a forward pass


def make_backend(batch_tokens: int = MANY, dtype: str = "float32") -> TransformersBackend:
    base = CHECKPOINT / "base"
    tokens = load_tokenizers(base, ADAPTERS)
    return TransformersBackend(base, ADAPTERS, tokens, batch_tokens=batch_tokens, dtype=dtype, device=DEVICE)


@cache
def texts() -> list[tuple[str, str]]:
    """Return steps of additions that the tiny model knows, and of longer ones, of which it fails many."""
    pairs = [(48, 17), (31_415, 92_653)]
    steps = [step for pair in pairs for step in transitions("add", *pair)]
    return [(step.prompt, step.completion) for step in steps]


def plain(adapter: str, prompts: list[str], dtype: torch.dtype) -> list[str]:
    most = max(len(answer) for _, answer in texts()) + 4
    folder = None if adapter == BASE else ADAPTERS[adapter]
    return plain_greedy(CHECKPOINT / "base", folder, prompts, most, dtype=dtype, device=DEVICE)


def verified(backend: TransformersBackend, adapter: str, rows: list[tuple[str, str]]) -> list[Answer]:
    found = sorted(backend.verify(adapter, [Request(*row) for row in rows]), key=lambda one: one[0])
    return [verdict for _, verdict in found]


def decoded(backend: TransformersBackend, adapter: str, rows: list[tuple[str, str]]) -> list[Answer]:
    found = sorted(backend.decode(adapter, [Request(*row) for row in rows]), key=lambda one: one[0])
    return [answer for _, answer in found]


@unittest.skipUnless(DEVICE, "torch sees no GPU")
class OnAGpu(unittest.TestCase):
    """A trained model of 0.66 million parameters with its adapters."""

    @classmethod
    def setUpClass(cls) -> None:
        if DEVICE == "cpu":
            torch.set_num_threads(1)  # as conftest.py has it for the other tests

    def test_verify_and_generate_are_plain_greedy(self) -> None:
        for adapter in (ADD, BASE):
            truth = plain(adapter, [prompt for prompt, _ in texts()], torch.float32)
            right = [found == answer for found, (_, answer) in zip(truth, texts(), strict=True)]
            self.assertTrue(3 <= sum(right) <= len(right) - 3, f"{sum(right)} of {len(right)} rows are right")
            for batch_tokens in (FEW, MANY):
                with self.subTest(adapter=adapter, batch_tokens=batch_tokens):
                    backend = make_backend(batch_tokens)
                    self.assertEqual([one.right for one in verified(backend, adapter, texts())], right)
                    for answer, found in zip(decoded(backend, adapter, texts()), truth, strict=True):
                        # Decoding gives up some tokens behind the length of the right answer.
                        self.assertEqual(answer.text, found if answer.ended else found[: len(answer.text)])

    def test_every_strategy_judges_alike(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            plan = planned_all(build_two(place), Path(place) / "plan", None, ("add", "sub"))
            backend = make_backend(dtype="float32")
            found = {strategy: judge(plan, Path(place) / strategy, strategy, backend) for strategy in STRATEGIES}
        known = found["verify"].correct
        self.assertGreater(int((known == 1).sum()), 30)
        for strategy, judged in found.items():
            both = (judged.correct != -1) & (known != -1)
            self.assertTrue((judged.correct[both] == known[both]).all(), strategy)
            self.assertGreater(int(both.sum()), 30, strategy)
        self.assertGreater(int((found["rollout"].finals == 1).sum()), 4)

    def test_batches_do_not_decide_in_bfloat16(self) -> None:
        truth = plain(ADD, [prompt for prompt, _ in texts()], torch.bfloat16)
        right = [found == answer for found, (_, answer) in zip(truth, texts(), strict=True)]
        for batch_tokens in (1, 512, MANY):
            with self.subTest(batch_tokens=batch_tokens):
                found = verified(make_backend(batch_tokens, "bfloat16"), ADD, texts())
                self.assertEqual([one.right for one in found], right)

    def test_out_of_memory_halves_the_budget(self) -> None:
        if DEVICE == "cpu":
            self.skipTest("memory of a CPU has no limit of its own")
        rows = texts() * 400
        truth = [one.right for one in verified(make_backend(), ADD, texts())] * 400
        backend = make_backend(10**7)
        verified(backend, ADD, rows[:1])  # loaded
        with memory_left(128 * 2**20):
            self.assertEqual([one.right for one in verified(backend, ADD, rows)], truth)
        self.assertLess(backend.budget["pass"], 10**6)

    @unittest.skipUnless(find_spec("duckdb"), "there is no duckdb: benchmarks/gpu.sh --wheels fetches it")
    def test_a_whole_evaluation(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            build_two(place)
            run(place, "eval", "--adapters", str(CHECKPOINT), "--task", "add", "--device", DEVICE)
            sql = "SELECT mode, sum(n)::INT AS n, sum(correct)::INT AS correct FROM class_accuracy GROUP BY ALL"
            found = {row["mode"]: row for row in json.loads(run(place, "query", sql, "--format", "json"))}
        self.assertEqual(set(found), set(MODES))
        for row in found.values():
            self.assertGreater(row["correct"], 0.9 * row["n"])


def build_two(place: str) -> Path:
    """Build two tasks on operands of one and two digits."""
    out = Path(place) / "data"
    build(make_plan(from_flags(["add", "sub"], min=1, max=2, num=2, num_test=1)), out, workers=1)
    return out


def run(place: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "caef_data", *words], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def memory_left(size: int) -> Iterator[None]:
    """Let torch take only so many more bytes of the GPU."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / whole)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
