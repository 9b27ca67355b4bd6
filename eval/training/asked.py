"""The tokens that evaluation asks for, for training: what is trained is what is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from ...errors import UserError, closest, did_you_mean, printable_path, quoted
from ...pipelines.settings import check_task
from ...pipelines.spelling import Spelling
from ...tm import machine
from ...tm import tasks as all_tasks
from ..backends.tokens import Tokens, load_tokenizer
from ..problems import MODES, SLIPS, needed
from ..token_counts import built

EVERY_TASK = ("one_step", "executor", SLIPS)  # modes that every task has; the others need a raw text
TRIED = 32  # rows of each split that are tried before an export


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
    # What a tokenizer lets its users change is a part of the key: another end token must not go unseen.
    tokens = _tokens(tokenizer, template, tokenizer.eos_token, len(tokenizer), str(tokenizer.chat_template))
    return _row(tokens, prompt, completion)


def _row(tokens: Tokens, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    return tokens.prompts([prompt])[0], [*tokens.completions([completion])[0], tokens.end]


@lru_cache(maxsize=8)  # a vocabulary is looked through once, not at every row
def _tokens(tokenizer: Any, template: str | None, *_: object) -> Tokens:
    return Tokens(tokenizer, template)


def needed_adapters(tasks: Sequence[str], modes: Sequence[str]) -> list[str]:
    """Return the names of the adapters, such as ``executors/add``, that tasks need in these modes.

    Args:
        tasks: none, or ``all``, for every task.
        modes: none for every mode; those that a helper such as ``reflection`` does not have are left out.

    Raises:
        UserError: there is no such task or mode, or none of these tasks has one of these modes.
    """
    for mode in modes:
        if mode not in (*MODES, SLIPS):
            what = f"there is no mode {quoted(mode)}{did_you_mean(mode[:60], (*MODES, SLIPS))}"
            advice = f"caef-data adapters --mode {closest(mode[:60], MODES) or 'process'}"
            raise UserError(what, where="--mode", allowed=", ".join((*MODES, SLIPS)), next_step=advice)
    named = [check_task(task, Spelling(options={"task": task}, verb="adapters")) for task in tasks if task != "all"]
    chosen = all_tasks() if not tasks or "all" in tasks else named
    pairs = ((task, mode) for task in chosen for mode in modes or MODES)
    without = {task for task in chosen if "aligner" in machine(task).missing_views()}
    asked = [(task, mode) for task, mode in pairs if mode in EVERY_TASK or task not in without]
    if not asked:
        what = f"{', '.join(chosen)}: no raw text, so no mode {' or '.join(modes)}"
        raise UserError(what, allowed=", ".join(EVERY_TASK))
    return sorted({name for task, mode in asked for name in needed(task, mode)})


def around_rows(name: str, rows: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return the texts of the tokens that begin and end a row in a model's vocabulary.

    Args:
        name: folder, or name on the Hub, of the model.
        rows: prompts and completions to try.

    Raises:
        UserError: there is no such tokenizer, or tokens of these texts would not be those that evaluation asks for.
    """
    tokens = load_tokenizer(name)
    begin = tokens.tokenizer.decode(tokens.start, skip_special_tokens=False)
    end = tokens.tokenizer.convert_ids_to_tokens(tokens.end)
    for prompt, completion in rows:
        if tuple(tokens.encode([begin + prompt, completion + end])) != _row(tokens, prompt, completion):
            raise UserError(
                f"a tool that tokenises {quoted(completion)} by itself gets other tokens than follow a prompt",
                where=printable_path(name),
                allowed="vocabularies whose texts begin with no blank mark: no SentencePiece",
                next_step="train on the tokens of caef_data.tokenize_row instead (docs/training.md)",
            )
    return begin, end


def sample(directory: str, configs: Sequence[str], splits: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield prompts and completions of some rows of each split of a dataset.

    Raises:
        UserError: there is no such dataset, config or split, or a shard is damaged.
    """
    for source in built(directory, configs, splits, lambda _: None):
        batch = next(source.batches()).slice(0, TRIED)
        yield from zip(batch.column("prompt").to_pylist(), batch.column("completion").to_pylist(), strict=True)
