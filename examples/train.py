"""Trains a LoRA adapter on the rows of a dataset, in the method's two stages, with TRL's ``SFTTrainer``.

    pip install -c constraints.txt -e '.[train]'
    caef-data build --task sub --min 1 --max 100 --num 20
    python examples/train.py meta-llama/Llama-3.1-8B --data data --config sub-one_step --out ckpt/executors/sub

In the first stage the model reads each prompt after the instruction, which describes the machine in words; the second
goes on with the same adapter and reads the prompt alone, as evaluation does. The adapter is left in OUT, that of the
first stage in OUT/first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from caef_data import UserError, tokenize_row

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import SFTTrainer

    from datasets import Dataset


def stage_rows(rows: Dataset, stage: str, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> Dataset:
    """Return what the trainer reads of rows, ``input_ids`` and ``labels``: the tokens that evaluation asks for.

    Args:
        rows: of the dataset.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        tokenizer: of the base model.
        template: the text around each prompt, as ``caef-data eval --template`` takes it; None for none.
    """

    def tokens(row: dict[str, str]) -> dict[str, list[int]]:
        before = row["instruction"] if stage == "first" else ""  # it ends with an empty line of its own
        prompt, completion = tokenize_row(tokenizer, before + row["prompt"], row["completion"], template=template)
        return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}  # the prompt is given

    return rows.map(tokens, remove_columns=rows.column_names)


def make_trainer(model: str | PeftModel, rows: Dataset, stage: str, options: argparse.Namespace) -> SFTTrainer:
    """Return the trainer of a stage.

    Args:
        model: the base model's name or folder in the first stage, the model with its adapter in the second.
        rows: rows of the dataset.
        stage: first or second.
        options: of the command line.
    """
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    try:
        train = stage_rows(rows, stage, tokenizer, options.template)
    except UserError as error:
        raise SystemExit(f"{options.model}: {error}") from error
    config = SFTConfig(
        output_dir=str(Path(options.out, "first") if stage == "first" else options.out),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        max_length=None,  # otherwise rows of more than 1024 tokens would lose their end without a word
        bf16=torch.cuda.is_available(),
        model_init_kwargs={"dtype": "auto"} if isinstance(model, str) else None,  # as it is stored, not in float32
        save_strategy="no",
        report_to="none",
        seed=options.seed,
    )
    lora = LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=train,
        processing_class=tokenizer,
        peft_config=lora if isinstance(model, str) else None,
    )


def main() -> None:
    """Train both stages."""
    parser = argparse.ArgumentParser(
        description="Train a LoRA adapter on the rows of a caef-data dataset, in two stages."
    )
    parser.add_argument("model", help="base model: a name on the Hub or a folder")
    parser.add_argument("--data", default="data", help="dataset: a folder, or USER/NAME on the Hub (default: data)")
    parser.add_argument("--config", default="sub-one_step", help="its config (default: sub-one_step)")
    parser.add_argument("--out", default="adapter", help="folder of the adapter (default: adapter)")
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps of each stage (default: 1000)")
    parser.add_argument("--batch-size", type=int, default=16, help="rows a step on each device (default: 16)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="the highest (default: 2e-4)")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter (default: 16)")
    parser.add_argument("--template", help="text around prompts: chat, or one with {prompt}; evaluate with the same")
    parser.add_argument("--seed", type=int, default=42, help="of the adapter and the order of rows (default: 42)")
    options = parser.parse_args()
    try:
        import trl  # noqa: F401

        from datasets import load_dataset
    except ImportError as error:
        parser.error(f"{error.name} is not installed: pip install -c constraints.txt -e '.[train]'")
    rows = load_dataset(options.data, options.config, split="train")
    model: str | PeftModel = options.model
    for stage in ("first", "second"):
        trainer = make_trainer(model, rows, stage, options)
        trainer.train()
        trainer.save_model()
        model = trainer.model
        print(f"{stage} stage: {trainer.args.output_dir}")


if __name__ == "__main__":
    main()
