"""What ``gpu.py`` measures, each part after the other: ``python gpu_parts.py [--small] PART ...``.

Prints lines of JSON: ``{"part": NAME}`` when one begins, ``{"part": NAME, "found": {...}}`` for what it finds, as it is
found, ``{"part": NAME, "ended": true}``. A part that fails ends the process: no later one inherits what it left.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_model import END, FULL, PAD, SMALL, SURE, Guide, Size, Texts, make_texts, make_tokenizer
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, TrainerCallback, TrainingArguments

from caef_data.eval.backends import model as model_module
from caef_data.eval.backends.local import TransformersBackend
from caef_data.eval.backends.tokens import load_tokenizers
from caef_data.eval.calls import Answer, Request

ADAPTER = "executors/add"
ROWS = 8  # of a step of training
PLAIN: dict[str, Any] = {"do_sample": False, "eos_token_id": END, "pad_token_id": PAD}
Say = Callable[..., None]


class Bench:
    """Measures parts.

    Args:
        size: of everything.
        folder: empty; for the tokenizer and the adapter.
    """

    def __init__(self, size: Size, folder: Path) -> None:
        self.size, self.folder = size, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.texts = make_texts(max(size.prefill, size.pairwise, size.judged), size.digits)
        self._backend: TransformersBackend | None = None

    @property
    def backend(self) -> TransformersBackend:
        """The model with its adapter; made when first asked for."""
        if self._backend is None:
            self._backend = self.make_backend()
        return self._backend

    @torch.no_grad()
    def make_backend(self) -> TransformersBackend:
        """Make the model, its adapter and its tokenizer; the model never lies on disk."""
        self.tokenizer = make_tokenizer(self.texts)
        self.tokenizer.save_pretrained(self.folder)
        with torch.device(self.device):
            torch.manual_seed(0)
            net = LlamaForCausalLM._from_config(self.size.config(), dtype=torch.bfloat16)
            lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
            adapted = get_peft_model(net, lora, autocast_adapter_dtype=False)
        net.get_output_embeddings().weight[len(self.tokenizer) :] *= 0.1  # tokens without a word never win
        self.inner = sum(weight.numel() for weight in net.model.layers.parameters() if weight.ndim == 2)  # both
        adapted.save_pretrained(self.folder / "lora")
        net = adapted.unload().eval()
        paths = {ADAPTER: self.folder / "lora"}
        with patch.object(model_module, "load_base", lambda *_: net):
            backend = TransformersBackend(
                self.folder, paths, load_tokenizers(self.folder, paths), dtype="bfloat16", device=self.device.type
            )
        backend.model.use(ADAPTER)
        tokens = backend.tokens[ADAPTER]
        prompts, answers = zip(*self.texts, strict=True)
        self.rows = list(zip(tokens.prompts(prompts), tokens.encode(answers), strict=True))
        self.guide = Guide(backend.model.net, self.rows, self.size.behind)
        return backend

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def tests(self, say: Say) -> None:
        """Run the tests of a GPU, with the standard library's runner: pytest may be missing."""
        os.environ["CAEF_TESTS_DEVICE"] = self.device.type
        result, passed, failed, skipped = unittest.TestResult(), list[str](), list[str](), dict[str, str]()
        for test in unittest.defaultTestLoader.loadTestsFromName("caef_data.tests.test_gpu.OnAGpu"):
            name, before = test.id().rpartition(".")[2], len(result.skipped)
            bad = len(result.failures + result.errors)
            test.run(result)
            if reasons := [reason for _, reason in result.failures + result.errors][bad:]:
                failed.append(name)
                print(*reasons, sep="\n")
            elif len(result.skipped) > before:
                skipped[name] = result.skipped[-1][1]
            else:
                passed.append(name)
            say(passed=passed, failed=failed, skipped=skipped)

    def limit(self, say: Say) -> None:
        """Multiply large matrices in bfloat16: operations a second, the best of several sizes."""
        rates = {}
        for side in self.size.sides:
            left, right = torch.randn(2, side, side, dtype=torch.bfloat16, device=self.device)
            out = torch.empty_like(left)
            torch.mm(left, right, out=out)
            several = max(1, int(4096**3 * 512 / side**3)) if self.device.type == "cuda" else 1

            def products(left: Any = left, right: Any = right, out: Any = out, several: int = several) -> None:
                for _ in range(several):
                    torch.mm(left, right, out=out)

            times = [self.seconds(products) for _ in range(5)]
            rates[str(side)] = 2 * side**3 * several / statistics.median(times)
            say(rate=max(rates.values()), rates=rates)

    def verify(self, texts: Texts) -> list[Answer]:
        found = sorted(self.backend.verify(ADAPTER, [Request(*text) for text in texts]), key=lambda one: one[0])
        return [verdict for _, verdict in found]

    def right(self, texts: Texts) -> None:
        wrong = [one for one in self.verify(texts) if not one.right]
        if wrong:
            raise AssertionError(f"{len(wrong)} of {len(texts)} rows are wrong, the first at token {wrong[0].at}")

    def prefill(self, say: Say) -> None:
        """Verify rows that are right: tokens a second, operations that they need, peak memory."""
        backend, texts = self.backend, self.texts[: self.size.prefill]
        say(weights=self.inner, **self.work(len(texts)), budget=backend.batch_tokens, rows=len(texts))
        self.right(texts[: len(texts) // 6 + 1])
        with self.peak(say):
            times = list[float]()
            for _ in range(self.size.repeat):
                times.append(self.seconds(lambda: self.right(texts)))
                say(times=times)
        say(real_tokens=backend.stats["tokens"] / backend.stats["computed"])
        before, budgets = backend.budget["pass"], dict[str, float]()
        for tokens in self.size.budgets[1:]:
            backend.budget["pass"] = tokens
            budgets[str(tokens)] = self.seconds(lambda: self.right(texts))
            say(by_budget=budgets)
        backend.budget["pass"] = before

    def train(self, say: Say) -> None:
        """Train a LoRA adapter on packed rows: tokens a second, operations that they need, peak memory."""
        # Here: the other parts need less than what training imports.
        from caef_data.eval.training.loop import NOT_LEARNT, Batch, PackedTrainer, pack

        size, times = self.size, list[float]()
        texts = make_texts(ROWS * size.steps, size.digits * 9 // 10)
        tokenizer = make_tokenizer(texts)
        rows = [(tokenizer(prompt)["input_ids"], [*tokenizer(answer)["input_ids"], END]) for prompt, answer in texts]
        steps: list[Batch] = [pack(rows[at : at + ROWS], width=size.line) for at in range(0, len(rows), ROWS)]
        with torch.device(self.device):
            net = LlamaForCausalLM._from_config(size.config(), dtype=torch.bfloat16)
        self.inner = sum(weight.numel() for weight in net.model.layers.parameters() if weight.ndim == 2)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        arguments = TrainingArguments(
            str(self.folder), max_steps=len(steps), per_device_train_batch_size=1, bf16=self.device.type == "cuda",
            use_cpu=self.device.type == "cpu", save_strategy="no", report_to="none", disable_tqdm=True,
            remove_unused_columns=False, logging_steps=1, train_sampling_strategy="sequential",
        )  # fmt: skip

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(clock, *_: Any, **__: Any) -> None:
                self.wait()
                times.append(time.perf_counter())

        trainer = PackedTrainer(
            get_peft_model(net, lora), arguments, train_dataset=steps,
            data_collator=lambda items: items[0], callbacks=[Clock()],
        )  # fmt: skip
        with self.peak(say):
            trainer.train()
        learnt = sum(int((step["labels"] != NOT_LEARNT).sum()) for step in steps[1:])
        lengths = [len(prompt) + len(answer) for prompt, answer in rows[ROWS:]]
        attention = sum(length * (length + 1) // 2 for length in lengths)
        operations = 4 * self.inner * sum(lengths) + 4 * size.vocabulary * size.width * learnt
        operations += 3 * size.layers * 4 * size.width * attention
        say(steps=len(steps) - 1, seconds_all=times[-1] - times[0], tokens=sum(lengths), operations=operations)

    def work(self, number: int) -> dict[str, float]:
        """Return the tokens of the first rows, and the operations that verifying these needs."""
        size, tokens, operations = self.size, 0, 0
        for prompt, answer in self.rows[:number]:
            length = len(prompt) + len(answer)
            tokens += length
            operations += 2 * self.inner * length + 2 * size.vocabulary * size.width * (len(answer) + 1)
            operations += size.layers * 4 * size.width * length * (length + 1) // 2  # every token looks at those before
        return {"tokens": tokens, "operations": operations}

    def profile(self, say: Say) -> None:
        """Tell where the time of verifying goes, in seconds: the whole, the device's, and its longest kernels."""
        texts, kinds = self.texts[: self.size.prefill // 6 + 1], [torch.profiler.ProfilerActivity.CPU]
        self.right(texts)
        if self.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as profiler:
            whole = self.seconds(lambda: self.right(texts))
        name = f"self_{'device' if self.device.type == 'cuda' else 'cpu'}_time_total"
        events = [one for one in profiler.key_averages() if one.device_type.name.lower() == self.device.type]
        times = {one.key[:100]: getattr(one, name) / 1e6 for one in events}
        longest = sorted(times, key=lambda key: -times[key])[:12]
        say(whole=whole, device=sum(times.values()), longest={key: times[key] for key in longest})

    @contextmanager
    def peak(self, say: Say) -> Iterator[None]:
        """Tell the peak of memory in bytes: of the GPU, or of this process where there is none."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        yield
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say(peak=torch.cuda.max_memory_allocated() if self.device.type == "cuda" else most)

    def ratio(self, say: Say) -> None:
        """Verify rows, and decode them with transformers' generate in batches of like lengths, in turn."""
        size = self.size
        texts = sorted(self.texts[: size.pairwise], key=lambda text: len(text[1]))
        times: dict[str, list[float]] = {"verify": [], "generate": []}
        say(rows=len(texts), batch=size.batch)
        self.right(texts)
        self.generate(texts[: size.batch], 4)
        with self.peak(say):
            for _ in range(size.repeat):
                times["verify"].append(self.seconds(lambda: self.right(texts)))
                for start in range(0, len(texts), size.batch):
                    part = texts[start : start + size.batch]
                    if start == 0:
                        times["generate"].append(0)
                    times["generate"][-1] += self.seconds(lambda part=part: self.compared(part))
                say(times=times)

    def compared(self, texts: Texts) -> None:
        answers = self.generate(texts, None)
        if answers != [answer for _, answer in texts]:
            raise AssertionError(f"generate gave {answers[0]!r} for {texts[0]!r}")

    def generate(self, texts: Texts, most: int | None) -> list[str]:
        prompts = [prompt for prompt, _ in texts]
        given = self.tokenizer(prompts, padding=True, return_tensors="pt", return_token_type_ids=False)
        given, width = given.to(self.device), given["input_ids"].shape[1]
        longest = max(map(len, self.backend.tokens[ADAPTER].encode([answer for _, answer in texts])))
        found = self.backend.model.net.generate(**given, max_new_tokens=most or longest + 16, **PLAIN)
        answers: list[str] = self.tokenizer.batch_decode(found[:, width:])
        return [answer.partition("<end>")[0] for answer in answers]

    def decode(self, say: Say) -> None:
        """Decode rows with this package's strategy ``generate``; to its limit, for nothing is right."""
        backend, texts = self.backend, self.texts[: self.size.batch]
        backend.near_alone, self.guide.sure, before = False, 0, backend.stats["steps"]
        seconds = self.seconds(lambda: list(backend.decode(ADAPTER, [Request(*text) for text in texts])))
        say(rows=len(texts), seconds_all=seconds, steps=backend.stats["steps"] - before)
        backend.near_alone, self.guide.sure = True, SURE

    def verdicts(self, say: Say) -> None:
        """Judge rows of which one token is hard, so that half of them are wrong: alone, and with several budgets."""
        backend, texts = self.backend, self.texts[: self.size.judged]
        budget, backend.near_alone = backend.budget["pass"], False
        some, (low, high) = texts[: len(texts) // 5 + 4], (0.0, 40.0)
        for _ in range(9):
            self.guide.hard = (low + high) / 2
            right = sum(one.right for one in self.verify(some))
            low, high = (low, self.guide.hard) if 2 * right > len(some) else (self.guide.hard, high)
        say(rows=len(texts), push=self.guide.hard, near=backend.near)
        alone, changed, missed = list[Answer](), dict[str, int](), dict[str, int]()
        for tokens in self.size.budgets:
            backend.budget["pass"] = tokens
            found = self.verify(texts)
            alone = alone or found
            pairs = [(one, two) for one, two in zip(alone, found, strict=True) if one.right != two.right]
            if tokens > 1:
                changed[str(tokens)] = len(pairs)
                missed[str(tokens)] = sum(not (one.near_tie and two.near_tie) for one, two in pairs)
            say(right=sum(one.right for one in alone), marked=sum(one.near_tie for one in alone))
            say(changed=changed, missed=missed)
        backend.budget["pass"], backend.near_alone = budget, True
        close = [text for text, one in zip(texts, alone, strict=True) if one.near_tie][:1]
        if close:
            say(rule_seconds=self.seconds(lambda: self.verify(close)))
        self.guide.hard = SURE


def environment() -> dict[str, Any]:
    """Return what computes."""
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    found = {"python": platform.python_version(), **packages, "cores": len(os.sched_getaffinity(0))}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return {**found, "device": card.name, "memory": card.total_memory}
    return {**found, "device": "cpu, no GPU", "memory": None}


def main(words: Sequence[str]) -> None:
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no line of JSON
    small, names = "--small" in words, [word for word in words if word != "--small"]
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="caef-gpu-") as folder:
        bench = Bench(SMALL if small else FULL, Path(folder))
        for name in names:

            def say(part: str = name, **found: Any) -> None:
                print(json.dumps({"part": part, "found": found}), file=lines)

            print(json.dumps({"part": name, "environment": environment()}), file=lines)
            getattr(bench, name)(say)
            print(json.dumps({"part": name, "ended": True}), file=lines)


if __name__ == "__main__":
    main(sys.argv[1:])
