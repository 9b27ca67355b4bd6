"""Other tools' own code, and a real model: make test-ecosystem lays them aside."""

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
from caef_data.tests.real_vocabularies import ROOT, vocabulary

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

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

    from caef_data.eval.training import around_rows, sample

    model = str(vocabulary(name))
    around = around_rows(model, sample(str(smoke), CONFIGS, ["train"]))
    out = tmp_path / "export"
    export(str(smoke), str(out), Style("alpaca", stage, around), configs=CONFIGS, splits=["train"])
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
