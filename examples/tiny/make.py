"""Makes what the tiny model begins with: a tokenizer, random weights, and the expressions that the base model learns.

    python examples/tiny/make.py build/tiny/start

A Llama of 0.66 million parameters in float32. The same command makes the same bytes; ``caef-data train`` teaches it.
"""

import argparse
import json
import random
import re
import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from caef_data.tm import tasks, transitions

COMPARISONS = ("equal", "greater_than", "less_than")


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


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the model with random weights, the same ones each time."""
    torch.manual_seed(0)
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
    return LlamaForCausalLM(config)


class Expressions:
    """Draws the expressions that the base model learns, the same ones each time: ``rows`` holds their lines.

    Operands of 1 to 4 digits; of mul, of divisors and of quotients 1 and 2; all numbers that runs of sub, and some of
    mul and div, give to the machines they call. In most comparisons most digits are the same: what to do at equal
    digits a model learns late where it sees few.
    """

    def __init__(self) -> None:
        self.chance, self.rows = random.Random(0), dict[str, None]()
        for _ in range(12_000):
            self.compare(str(self.number(4)))
        for _ in range(5_000):
            self.put("add", self.number(4), self.number(4))
            self.run("sub", *sorted((self.number(4), self.number(4)), reverse=True))
        for count in range(1_500):
            put = self.run if count < 120 else self.put
            put("mul", self.number(2), self.chance.randrange(1, 100))
            divisor = self.chance.randrange(1, 100)
            put("div", self.chance.randrange(100) * divisor + self.chance.randrange(divisor), divisor)

    def number(self, most: int) -> int:
        """Return a number of up to ``most`` digits, of long ones more than of short ones."""
        [length] = self.chance.choices(range(1, most + 1), range(1, most + 1))
        return self.chance.randrange(10 ** (length - 1) if length > 1 else 0, 10**length)

    def put(self, task: str, *operands: int) -> None:
        self.rows[" ".join(map(str, (task, *operands)))] = None

    def compare(self, digits: str) -> None:
        """Add comparisons of a number with others, most of which share its digits but for some."""
        for task in COMPARISONS:
            other = "".join(
                digit if self.chance.random() < 0.6 else self.chance.choice(string.digits) for digit in digits
            )
            self.put(task, int(digits), self.number(4) if self.chance.random() < 0.15 else int(other))

    def divide(self) -> None:
        """Add divisions of short numbers: the others have dividends of the size of divisor times quotient."""
        for _ in range(1_500):
            self.put("div", self.number(2), max(1, self.number(2)))

    def run(self, task: str, a: int, b: int) -> None:
        """Add an expression and all that its run calls."""
        self.put(task, a, b)
        for step in transitions(task, a, b):
            if step.call:
                tapes = re.split(r"\[HEAD\d?\]", step.completion.splitlines()[2])[1:]
                self.put(step.call, *(int("".join(re.findall(r"\|(\d)", tape)[::-1])) for tape in tapes))


def main(words: list[str] | None = None) -> None:
    """Write model, tokenizer and expressions into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(words).folder
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes a name that earlier ones do not know; this one is known to all.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    drawn = Expressions()
    (folder / "base.txt").write_text("".join(f"{line}\n" for line in drawn.rows), "utf-8")
    drawn.divide()
    (folder / "div.txt").write_text("".join(f"{line}\n" for line in drawn.rows if line.startswith("div ")), "utf-8")


if __name__ == "__main__":
    main()
