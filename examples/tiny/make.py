"""Makes ``ckpt/``: a small Llama, its tokenizer, and LoRA adapters for the machines on short operands.

    python examples/tiny/make.py --out tiny

Builds the rows of ``tiny.toml``, trains the base model on all of it at once, then one adapter for each executor and
aligner on its own rows, and prints how many rows of the test split each gets right to the last character. The same
command goes on after a kill. About two hours on one core; ``--steps 20 --adapter-steps 5`` only shows that it
runs.
"""

import argparse
import json
import math
import os
import shutil
import string
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.tm import tasks

HERE = Path(__file__).resolve().parent
SIMPLE, COMPOSED = ("add", "equal", "sub", "greater_than", "less_than"), ("mul", "div")
HELPERS = ("reflection", "left_mask")
ALIGNERS = (*SIMPLE, *COMPOSED)
EXECUTORS = (*ALIGNERS, *HELPERS)
ADAPTERS = tuple([("executors", task) for task in EXECUTORS] + [("aligners", task) for task in ALIGNERS])
LONGER = {  # times the steps, for adapters that learn slowly
    **{("executors", task): 6 for task in ("add", "div", "greater_than", "less_than")},
    ("aligners", "add"): 4,
}
VIEWS = {"executors": "one_step", "aligners": "aligner"}
BASE_FROM_ADAPTER = "../../base"  # from an adapter's own folder, so that ckpt/ can be moved and renamed
LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SAVE_EVERY = 100  # steps of the base model
IGNORED = -100  # a label that the loss leaves out
GROUP = ("direction", "state", "next_state", "call", "len_a", "len_b")

Model: TypeAlias = LlamaForCausalLM | PeftModel


# The text -----------------------------------------------------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that spells any ASCII text and gives it back unchanged.

    A word of the format is one token, and so is a cell of a tape such as ``|7``. No word spans the end of a prompt and
    the beginning of its completion, so the two can be encoded apart or together.
    """
    words = (
        [task.upper() for task in tasks()] + [f"q{state}" for state in "01234H"] + [f"|{digit}" for digit in range(10)]
    )
    words += ["[HEAD]", "[HEAD1]", "[HEAD2]", "[C]", "[OUTPUT]", "[COUNT]", "[CALL]", "True", "False", "//", "=="]
    words += ["CMD ", "CMD: ", " RIGHT, ", " LEFT, ", ", ", "No command to execute. Halt state."]
    special = ["<pad>", "<eos>", "<unk>"]
    vocabulary = [*special, *words, *sorted(string.digits + string.ascii_letters + string.punctuation + " \n")]
    longest_first = "|".join(_escape(word) for word in sorted(words, key=len, reverse=True))
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{longest_first}|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()  # the default puts a blank between tokens
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def _escape(word: str) -> str:
    return "".join(rf"\{letter}" if letter in string.punctuation else letter for letter in word)


# The rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Encoded rows of one view of one task.

    Args:
        tokens: prompt, completion and end token of each row.
        prompts: tokens of each row that the prompt takes.
        groups: for each row the number of its kind, counted from 0: the states it leads from and to, its lengths.
        directions: ``in`` or ``out`` for rows of an aligner, else empty.
    """

    tokens: list[list[int]]
    prompts: np.ndarray
    groups: np.ndarray
    directions: np.ndarray


def load_rows(tokenizer: PreTrainedTokenizerFast, data: Path, config: str, split: str) -> Rows:
    """Return the rows of a config such as ``sub-one_step``, in the order of the files."""
    table = pl.read_parquet(data / config / f"{split}-*.parquet")
    prompts = tokenizer(table["prompt"].to_list())["input_ids"]
    completions = tokenizer(table["completion"].to_list())["input_ids"]
    keys = table.select(pl.struct(name for name in GROUP if name in table.columns).rank("dense") - 1)
    return Rows(
        [
            prompt + completion + [tokenizer.eos_token_id]
            for prompt, completion in zip(prompts, completions, strict=True)
        ],
        np.array([len(prompt) for prompt in prompts]),
        keys.to_series().to_numpy(),
        table["direction"].cast(pl.String).to_numpy() if "direction" in table.columns else np.full(len(table), ""),
    )


class Mixture:
    """Rows of several configs to draw from: a config by its share, a kind of row in it, a row of that kind.

    Rare transitions, such as the last one of a long operand, are drawn as often as the common ones.
    """

    def __init__(self, parts: list[tuple[Rows, float]]) -> None:
        self.tokens = [tokens for rows, _ in parts for tokens in rows.tokens]
        self.prompts = np.concatenate([rows.prompts for rows, _ in parts])
        members, chances, first = list[np.ndarray](), list[float](), 0
        for rows, share in parts:
            kinds = [first + np.flatnonzero(rows.groups == kind) for kind in np.unique(rows.groups)]
            members += kinds
            chances += [share / len(kinds)] * len(kinds)
            first += len(rows.tokens)
        self.members, self.chances = members, np.array(chances) / sum(chances)

    def draw(self, rng: np.random.Generator, num: int) -> list[int]:
        """Return ``num`` row numbers, shortest row first."""
        kinds = rng.choice(len(self.members), num, p=self.chances)
        drawn = [int(rng.choice(self.members[kind])) for kind in kinds]
        return sorted(drawn, key=lambda row: len(self.tokens[row]))


def padded(rows: Rows | Mixture, chosen: list[int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and labels, each (rows, longest row): the label of a position is the token that must follow it.

    Padding stands on the right, where causal attention never lets a real token see it: no mask is needed.
    """
    width = max(len(rows.tokens[row]) for row in chosen)
    tokens = torch.zeros((len(chosen), width), dtype=torch.long)
    labels = torch.full((len(chosen), width), IGNORED)
    for place, row in enumerate(chosen):
        text, prompt = torch.tensor(rows.tokens[row]), int(rows.prompts[row])
        tokens[place, : len(text)] = text
        labels[place, prompt - 1 : len(text) - 1] = text[prompt:]
    return tokens.to(device), labels.to(device)


# Training and measuring ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What the result depends on, beside the rows: kept in ``settings.json``, so that two runs do not mix."""

    steps: int
    adapter_steps: int
    batch: int
    seed: int

    def seed_of(self, *names: object) -> int:
        """Return a seed of its own for whatever is named."""
        return zlib.crc32(repr((self.seed, *names)).encode())


@dataclass(frozen=True)
class Course:
    """One training: its name in the log, its steps, its highest learning rate, where its state is kept."""

    name: str
    steps: int
    rate: float
    state: Path | None = None


def train(model: Model, mixture: Mixture, course: Course, settings: Settings) -> None:
    """Train the parameters that want it; go on from the state that an earlier run has left."""
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], course.rate, fused=True
    )
    start = 0
    if course.state and course.state.exists():
        kept = torch.load(course.state, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        start = kept["step"]
    clock, losses, exact = time.monotonic(), list[float](), list[float]()
    for step in range(start, course.steps):
        rate = course.rate * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / course.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = mixture.draw(np.random.default_rng(settings.seed_of(course.name, step)), settings.batch)
        loss, right = descend(model, mixture, chosen)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses, exact = [*losses, loss][-50:], [*exact, right][-50:]
        if (step + 1) % 50 == 0 or step + 1 == course.steps:
            left = (time.monotonic() - clock) / (step + 1 - start) * (course.steps - step - 1)
            figures = f"loss {np.mean(losses):.4f}  rows right {np.mean(exact):.1%}  {left / 60:.1f} min left"
            print(f"{course.name:<22} step {step + 1:>5}/{course.steps}  {figures}", flush=True)
        if course.state and ((step + 1) % SAVE_EVERY == 0 or step + 1 == course.steps):
            state = {"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, course.state.with_suffix(".new"))
            os.replace(course.state.with_suffix(".new"), course.state)


def descend(model: Model, mixture: Mixture, chosen: list[int]) -> tuple[float, float]:
    """Add the gradients of a batch; return its loss per token and the share of its rows that are right.

    The batch goes through the model in four parts of like length, which leaves little padding.
    """
    size = sum(len(mixture.tokens[row]) - int(mixture.prompts[row]) for row in chosen)
    total = right = 0.0
    for part in np.array_split(chosen, 4):
        tokens, labels = padded(mixture, [int(row) for row in part], model.device.type)
        logits = model(input_ids=tokens).logits
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORED) / size
        loss.backward()
        total += loss.item()
        right += int(is_right(logits, labels).sum())
    return total, right / len(chosen)


def is_right(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Tell of each row whether greedy decoding would write exactly its completion and then end."""
    return ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(-1)


def measure(model: Model, rows: Rows) -> np.ndarray:
    """Tell of each row whether the model gets it right to the last character."""
    verdicts = np.zeros(len(rows.tokens), np.bool_)
    by_length = sorted(range(len(rows.tokens)), key=lambda row: len(rows.tokens[row]))
    for first in range(0, len(by_length), 256):
        chosen = by_length[first : first + 256]
        tokens, labels = padded(rows, chosen, model.device.type)
        with torch.inference_mode():
            verdicts[chosen] = is_right(model(input_ids=tokens).logits, labels).cpu().numpy()
    return verdicts


# The checkpoint -----------------------------------------------------------------------------------------------------


def load_base(folder: Path) -> Model:
    """Return the base model as stored, in float32 for training and measuring."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)


def make_base(out: Path, settings: Settings) -> None:
    """Train the base model in two courses: simple machines and raw questions, then all machines and aligners too.

    The raw questions are what it is asked without an adapter. ``12+9=`` is also what an aligner reads: the raw answer
    has the larger share of these prompts, and an adapter makes the model say the entry.
    """
    tokenizer = make_tokenizer()

    def part(task: str, view: str, share: float) -> tuple[Rows, float]:
        return load_rows(tokenizer, out / "data", f"{task}-{view}", "train"), share

    first = [part(task, "one_step", 1.0) for task in (*SIMPLE, *HELPERS)]
    first += [part(task, "raw", 0.3) for task in SIMPLE]
    second = [part(task, "one_step", 1.0) for task in COMPOSED] + [part(task, "raw", 0.3) for task in COMPOSED]
    second += [part(task, "aligner", 0.4) for task in ALIGNERS]
    torch.manual_seed(settings.seed_of("base"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")
    train(model, Mixture(first), Course("base", settings.steps, 3e-3, out / "base.pt"), settings)
    more = Course("base, all", settings.steps // 2, 2e-3, out / "base-all.pt")
    train(model, Mixture(first + second), more, settings)
    with finished(out / "ckpt" / "base") as folder:
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # transformers 5 writes a name that earlier ones do not know; this one is known to all
        rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def make_adapter(out: Path, kind: str, task: str, settings: Settings) -> None:
    """Train the adapter of one executor or aligner on its own rows, over the base model as stored."""
    tokenizer = AutoTokenizer.from_pretrained(out / "ckpt" / "base")
    folders = ["data"] + (["longer"] if (kind, task) == ("executors", "div") else [])
    rows = [(load_rows(tokenizer, out / name, f"{task}-{VIEWS[kind]}", "train"), 1.0) for name in folders]
    torch.manual_seed(settings.seed_of(kind, task))
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=LORA_MODULES, task_type="CAUSAL_LM")
    model = get_peft_model(load_base(out / "ckpt" / "base"), lora)
    steps = settings.adapter_steps * LONGER.get((kind, task), 1)
    train(model, Mixture(rows), Course(f"{kind}/{task}", steps, 3e-3), settings)
    with finished(out / "ckpt" / kind / task) as folder:
        model.half().save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        modules = sorted(LORA_MODULES)  # peft keeps a set: its order changes from run to run
        rewrite(folder / "adapter_config.json", base_model_name_or_path=BASE_FROM_ADAPTER, target_modules=modules)


def rewrite(path: Path, **values: object) -> None:
    """Replace some values of a JSON file."""
    text = json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def finished(folder: Path) -> Iterator[Path]:
    """Give a folder to write into that gets its name when it is complete: what has the name is done."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    new.rename(folder)


def report(out: Path) -> None:
    """Print how many test rows each stored adapter gets right, and the base model alone on the same rows."""
    base = out / "ckpt" / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    print(f"\n{'test rows':<32}{'rows':>7}{'right':>7}{'accuracy':>10}{'without adapter':>17}")
    for kind, task in ADAPTERS:
        rows = load_rows(tokenizer, out / "data", f"{task}-{VIEWS[kind]}", "test")
        model = PeftModel.from_pretrained(load_base(base), out / "ckpt" / kind / task)
        adapted = measure(model, rows)
        with model.disable_adapter():
            alone = measure(model, rows)
        for direction in np.unique(rows.directions):
            here = rows.directions == direction
            name = f"{kind}/{task} {direction}"
            print(
                f"{name:<32}{here.sum():>7,}{adapted[here].sum():>7,}{adapted[here].mean():>10.2%}{alone[here].mean():>17.2%}"
            )
    for task in ALIGNERS:
        verdicts = measure(load_base(base), load_rows(tokenizer, out / "data", f"{task}-raw", "test"))
        print(f"{'raw questions, ' + task:<32}{len(verdicts):>7,}{'':>17}{verdicts.mean():>17.2%}")


def settle(out: Path, settings: Settings, rows: dict[str, str]) -> None:
    """Write down what this folder is made with, or stop if it was begun with something else."""
    path, now = out / "settings.json", {**asdict(settings), "rows": rows}
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(now) + "\n", encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != now:
        raise SystemExit(f"{out} was begun with other settings: {path.read_text().strip()}\ngive another --out")


def main(words: list[str] | None = None) -> None:
    """Make the checkpoint, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tiny"), help="folder for rows, states and ckpt/")
    parser.add_argument("--declaration", default=str(HERE / "tiny.toml"), help="the rows to build")
    parser.add_argument("--steps", type=int, default=4000, help="of the base model")
    parser.add_argument("--adapter-steps", type=int, default=120, help="of most adapters")
    parser.add_argument("--batch", type=int, default=96, help="rows of a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="cores to use; all by default")
    given = parser.parse_args(words)
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    disable_progress_bar()  # one for every loading of the base
    settings = Settings(given.steps, given.adapter_steps, given.batch, given.seed)
    declarations = {"data": load_declaration(given.declaration), "longer": load_declaration(str(HERE / "longer.toml"))}
    settle(given.out, settings, {name: declaration.identity() for name, declaration in declarations.items()})
    for name, declaration in declarations.items():
        build(make_plan(declaration), given.out / name, workers=1)
    if not (given.out / "ckpt" / "base").exists():
        make_base(given.out, settings)
    for kind, task in ADAPTERS:
        if not (given.out / "ckpt" / kind / task).exists():
            make_adapter(given.out, kind, task, settings)
    report(given.out)


if __name__ == "__main__":
    main()
