"""Weakens an executor of the tiny checkpoint by noise, and teaches it again by GRPO with TRL: the score is the reward.

    pip install -c constraints.txt -e '.[train]'
    python examples/grpo.py --task add

Prints how many held-out rows greedy decoding gets right, before and on the way: docs/training.md shows a run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from caef_data.eval.environments.trl_rewards import reward
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.stream import Stream
from datasets import Dataset

CKPT = Path(__file__).parent / "tiny" / "ckpt"


def weaken(model: PeftModel, noise: float, seed: int) -> None:
    """Add noise to an adapter's weights: so many times the deviation of each matrix."""
    chance = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += noise * weight.data.std() * torch.randn(weight.shape, generator=chance)


def accuracy(model: Any, tokenizer: Any, rows: list[dict[str, str]]) -> float:
    """Return the share of rows whose completion greedy decoding writes exactly, with its end."""
    right = 0
    for row in rows:
        given = tokenizer(row["prompt"], return_tensors="pt")
        with torch.inference_mode():
            found = model.generate(**given, do_sample=False, max_new_tokens=150)
        text = tokenizer.decode(found[0, given["input_ids"].shape[1] :])
        right += text == row["completion"] + tokenizer.eos_token
    return right / len(rows)


class Curve(TrainerCallback):
    """Prints the accuracy every so many steps."""

    def __init__(self, every: int, tokenizer: Any, rows: list[dict[str, str]]) -> None:
        self.every, self.tokenizer, self.rows = every, tokenizer, rows

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure after a step."""
        if state.global_step % self.every == 0:
            model.eval()
            share = accuracy(model, self.tokenizer, self.rows)
            model.train()
            print(f"| {state.global_step} | {share:.1%} |", flush=True)


def main() -> None:
    """Weaken, measure, train."""
    parser = argparse.ArgumentParser(description="Weaken a tiny executor, and teach it again by GRPO.")
    parser.add_argument("--task", default="add")
    parser.add_argument("--noise", type=float, default=1.0, help="in deviations of the weights (default: 1.0)")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--every", type=int, default=6, help="steps between measurements (default: 6)")
    parser.add_argument("--rows", type=int, default=50, help="held-out rows that are measured (default: 50)")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--out", default="grpo")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(CKPT / "base", padding_side="left")
    base = AutoModelForCausalLM.from_pretrained(CKPT / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, CKPT / "executors" / options.task, is_trainable=True)
    weaken(model, options.noise, options.seed)
    declared = from_flags([options.task], min=1, max=2, num=100, num_test=20)
    train, test = (Stream(declared, split, "one_step", seed=options.seed) for split in ("train", "test"))
    held_out = test.__getitems__(list(range(options.rows)))
    rows = [{"prompt": row["prompt"]} for row in train.__getitems__(list(range(options.steps * 8)))]
    print(
        f"| step | right of {options.rows} |\n|---:|---:|\n| 0 | {accuracy(model, tokenizer, held_out):.1%} |",
        flush=True,
    )
    config = GRPOConfig(
        options.out,
        max_steps=options.steps,
        per_device_train_batch_size=64,  # 8 prompts, each answered 8 times
        num_generations=8,
        max_completion_length=120,
        learning_rate=options.learning_rate,
        beta=0.0,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=options.every,
        seed=options.seed,
    )
    curve = Curve(options.every, tokenizer, held_out)
    trainer = GRPOTrainer(model, reward, config, Dataset.from_list(rows), processing_class=tokenizer, callbacks=[curve])
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
