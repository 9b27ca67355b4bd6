"""The tokens that evaluation asks for, for training: what is trained is what is asked."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .backends.tokens import Tokens


def tokenize_row(
    tokenizer: Any, prompt: str, completion: str, *, template: str | None = None
) -> tuple[list[int], list[int]]:
    """Return the tokens of a row as evaluation asks for them: what the model reads, and what it must write.

    Prompt and completion are tokenised apart, so that no token spans the border: after a prompt that ends in ``=``, a
    model under greedy decoding cannot write the second half of a token such as ``=E``.

    Args:
        tokenizer: of the transformers library.
        prompt: the text that the model reads; in the first training stage the instruction stands before it.
        completion: the text that it must write.
        template: the text around the prompt, as ``caef-data eval --template`` takes it; None for none.

    Returns:
        The prompt's tokens, with those that the tokenizer puts before a text; the completion's, with the end token.

    Raises:
        UserError: the tokenizer has no end-of-text token, or does not take the template.
    """
    tokens = _tokens(tokenizer, template)
    return tokens.prompts([prompt])[0], [*tokens.completions([completion])[0], tokens.end]


@lru_cache(maxsize=8)  # a vocabulary is looked through once, not at every row
def _tokens(tokenizer: Any, template: str | None) -> Tokens:
    return Tokens(tokenizer, template)
