"""Other tools' own code, and a real model: make test-ecosystem lays them aside."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

pytest.importorskip("trl", reason="training needs caef-data[train]")

from caef_data import tokenize_row
from caef_data.pipelines.export import Style, export
from caef_data.tests.real_vocabularies import ROOT, real_model, vocabulary

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

MODES = ("one_step", "executor")
CONFIGS = ["div-one_step", "equal-aligner", "less_than-raw"]


def llama_factory(folder: Path, **request: Any) -> Any:
    """Return what LLaMA-Factory's own code gives for a request; its package alone is put where Python finds it."""
    package = ROOT / "llamafactory"
    if not package.is_dir():
        pytest.skip(f"llamafactory is not in {ROOT}: make test-ecosystem")
    (folder / "packages").mkdir(exist_ok=True)
    link = folder / "packages" / "llamafactory"
    if not link.exists():
        link.symlink_to(package)
    program = Path(__file__).with_name("llama_factory.py")
    words = [sys.executable, str(program), str(link.parent), json.dumps({"out": str(folder / "out"), **request})]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("name", "stage"), [("llama3", "second"), ("llama3", "first"), ("qwen", "second")])
def test_the_recipe_trains_what_evaluation_asks(smoke: Path, tmp_path: Path, name: str, stage: str) -> None:
    """A8: the rendered text is prompt, completion and end token, and no row is cut."""
    from transformers import AutoTokenizer

    from caef_data.eval.token_counts import around_rows

    model = str(vocabulary(name))
    around = around_rows(model, str(smoke), CONFIGS, ["train"])
    out = tmp_path / "export"
    export(str(smoke), str(out), Style("alpaca", stage, model, *around), configs=CONFIGS, splits=["train"])
    recipe = yaml.safe_load((out / "llamafactory.yaml").read_text(encoding="utf-8"))
    assert recipe["model_name_or_path"] == model and recipe["output_dir"] == "ckpt/executors/div"
    tokenizer = AutoTokenizer.from_pretrained(model)
    names = ("dataset_dir", "template", "cutoff_len", "train_on_prompt", "packing")
    data = {**{name: recipe[name] for name in names}, "dataset": ",".join(f"{config}-train" for config in CONFIGS)}
    trained, expected = llama_factory(tmp_path, model=model, data=data), []
    for config in CONFIGS:
        for shard in sorted((smoke / config).glob("train-*")):
            for row in pq.read_table(shard).to_pylist():
                before = row["instruction"] if stage == "first" else ""
                prompt, completion = tokenize_row(tokenizer, before + row["prompt"], row["completion"])
                labels = [-100] * len(prompt) + completion
                expected.append({"input_ids": prompt + completion, "labels": labels})
    assert trained == expected


# LLaMA-Factory's templates that keep the texts: after training through one, evaluation asks through it.
TEMPLATES = [("llama3", "llama3"), ("qwen", "qwen"), ("qwen", "chatml"), ("llama3", "default"), ("llama3", "alpaca")]


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
def test_evaluation_asks_through_the_template_of_training(
    smoke: Path, tmp_path: Path, name: str, template: str
) -> None:
    from transformers import AutoTokenizer

    row = pq.read_table(next((smoke / "equal-aligner").glob("train-*"))).to_pylist()[0]
    texts = [row["prompt"], row["completion"]]
    trained, answer = llama_factory(tmp_path, model=str(vocabulary(name)), template=template, texts=texts)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    prompt, completion = tokenize_row(tokenizer, *texts, template="chat")
    assert prompt == trained
    assert completion == answer[: len(completion)]  # some templates have a line feed behind the end token


def test_its_bare_template_ends_no_answer(tmp_path: Path) -> None:
    """Why rows hold the end token."""
    _, answer = llama_factory(tmp_path, model=str(vocabulary("qwen")), template="empty", texts=["1+2=", "3"])
    assert len(answer) == 1


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """Return a real pretrained model, a LoRA trained on half of the calls of a plan in minutes, and the plan."""
    import torch

    import datasets
    from caef_data.eval.problems import read_problems
    from caef_data.pipelines.build import build
    from caef_data.pipelines.declaration import from_flags
    from caef_data.pipelines.folder import Folder
    from caef_data.pipelines.plan import make_plan
    from caef_data.tests.evaluating import planned
    from caef_data.tests.test_train_example import load_example

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    base, folder = real_model(), tmp_path_factory.mktemp("real")
    build(make_plan(from_flags(["add"], min=1, max=1, num=2, num_test=3)), folder / "data", workers=1)
    problems = [one for mode in MODES for one in read_problems(Folder(folder / "data"), "add", mode, "test", 3)]
    plan = planned(folder / "plan", *problems)
    rows = [{"instruction": "", "prompt": call.prompt, "completion": call.completion} for call in calls_of(plan)[::2]]
    options = argparse.Namespace(
        model=str(base), out=str(folder), steps=24, batch_size=4, learning_rate=1e-3, rank=16, seed=0, template=None
    )
    trainer = load_example().make_trainer(str(base), datasets.Dataset.from_list(rows), "second", options)
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    return base, folder / "adapter", plan


def calls_of(plan: Path) -> list[Any]:
    """Return the requests to the executor, in the order in which they are first made."""
    from caef_data.eval.results import ResultStore
    from caef_data.tests.evaluating import requests_of

    store = ResultStore(plan)
    found = [call for call in requests_of(store) if call.adapter == "executors/add"]
    store.close()
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_model_is_judged_as_it_decodes(real: tuple[Path, Path, Any], tmp_path: Path, dtype: str) -> None:
    """By every strategy, rows right and wrong: the texts that transformers and peft write row by row."""
    import torch

    from caef_data.eval.backends.local import TransformersBackend
    from caef_data.eval.backends.tokens import load_tokenizers
    from caef_data.tests.evaluating import judge
    from caef_data.tests.plain import plain_greedy

    base, adapter, plan = real
    calls = calls_of(plan)
    most = max(len(call.completion) for call in calls)
    texts = plain_greedy(base, adapter, [call.prompt for call in calls], most, dtype=getattr(torch, dtype))
    plain = [text == call.completion for text, call in zip(texts, calls, strict=True)]
    assert any(plain) and not all(plain), plain
    name = "executors/add"
    backend = TransformersBackend(
        base, {name: adapter}, load_tokenizers(base, {name: adapter}), dtype=dtype, device="cpu", batch_tokens=512
    )
    for strategy in ("verify", "generate", "rollout"):
        found = judge(plan, tmp_path / strategy, strategy, backend).correct.tolist()
        if strategy == "rollout":  # what follows a wrong answer is another question, and this one is not asked
            plain_known = [one for one, state in zip(plain, found, strict=True) if state != -1]
            assert [state == 1 for state in found if state != -1] == plain_known
            assert plain_known
        else:
            assert [state == 1 for state in found] == plain, strategy
