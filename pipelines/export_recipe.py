"""The settings with which LLaMA-Factory trains on exported rows what evaluation asks."""

from __future__ import annotations

import json

from .export_source import Part

FOLDERS = {"one_step": "executors", "aligner": "aligners"}  # of a checkpoint, by view


def recipe(tokenizer: str, folder: str, part: Part, longest: int) -> str:
    """Return the settings, as YAML.

    Args:
        tokenizer: the model whose tokens stand around the rows.
        folder: of the export.
        part: the split to train on.
        longest: bytes of the longest row, which has no more tokens.
    """
    task, _, view = part.name.rpartition("-")
    out = f"ckpt/{FOLDERS.get(view, view)}/{task}"
    return f"""\
# Written by caef-data export. Train with: llamafactory-cli train FILE
# The rows hold the tokens that begin and end a text, so the template adds nothing, and evaluation asks the bare prompt.
model_name_or_path: {json.dumps(tokenizer)}
dataset_dir: {json.dumps(folder)}
dataset: {part.name}-{part.split}
output_dir: {out}

template: empty
cutoff_len: {longest}  # no row is cut: none has more tokens
train_on_prompt: false
packing: false

stage: sft
do_train: true
finetuning_type: lora
lora_target: all
lora_rank: 16
lora_alpha: 32
per_device_train_batch_size: 16
learning_rate: 2.0e-4
max_steps: 1000
"""
