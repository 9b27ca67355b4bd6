"""Texts to tokens and back, exactly as a trainer and greedy decoding see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import UserError, clip

_PROBE = "ADD, q0"
NO_WORD = "\N{REPLACEMENT CHARACTER}"


class Tokens:
    """A tokenizer, and the tokens around prompts and completions.

    Prompt and completion are tokenised apart, the way prompt-completion trainers do: no token spans the border.

    Args:
        tokenizer: of the transformers library.

    Attributes:
        start: tokens that the tokenizer itself puts before a prompt, such as one for the beginning of text.
        end: the end-of-text token, which must follow a completion.
        words: the tokens that stand for a text.

    Raises:
        UserError: the tokenizer has no end-of-text token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-text token: nothing would tell where an answer ends",
                where=clip(tokenizer.name_or_path),
                next_step='name one in its tokenizer_config.json: "eos_token": ...',
            )
        self.end: int = tokenizer.eos_token_id
        self.words = frozenset(tokenizer.get_vocab().values())
        plain, [whole] = self.encode([_PROBE])[0], tokenizer([_PROBE])["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        self.start: list[int] = list(dict.fromkeys(whole[:at]))  # some tokenizers put the same token twice
        # SentencePiece tokenizers put a space before a text of its own, which is no part of it.
        before = self.encode(["\n"])[0]
        self.lead = self._behind(before, plain).removesuffix(_PROBE)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without any before or after it."""
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return found

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each prompt, with those that the tokenizer puts before it.

        Raises:
            UserError: a prompt has no token: there is nothing to continue.
        """
        found = [self.start + tokens for tokens in self.encode(texts)]
        if not all(found):
            raise UserError(f"the prompt {clip(texts[found.index([])])} has no token, so nothing can follow it")
        return found

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Return the text of an answer's tokens, exactly: leading and trailing white space, special tokens and all.

        Models have more tokens than their tokenizers have words; one without a word is no nothing, but ``NO_WORD``.
        """
        runs: list[list[int]] = [[]]
        for token in answer:
            if token in self.words:
                runs[-1].append(token)
            else:
                runs.append([])
        return NO_WORD.join(self._behind(prompt[-1:], run).removeprefix(self.lead) for run in runs)

    def _behind(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Return what the answer adds to the prompt: decoded alone, many an answer would lose its leading space."""
        before, both = self._decode(prompt), self._decode([*prompt, *answer])
        return both[len(before) :] if both.startswith(before) else self._decode(answer)

    def _decode(self, tokens: Sequence[int]) -> str:
        found: str = self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return found


def load_tokenizer(base: Path | str) -> Tokens:
    """Load the tokenizer of a base model; no code of its own is run.

    Args:
        base: folder, or name on the Hub, of the base model.

    Raises:
        UserError: there is none, it is damaged, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(base), trust_remote_code=False, local_files_only=Path(base).is_dir()
        )
    except Exception as error:  # whatever the library makes of a damaged folder
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the tokenizer cannot be loaded: {clip(reason, 300)}", where=clip(base)) from error
    return Tokens(tokenizer)
