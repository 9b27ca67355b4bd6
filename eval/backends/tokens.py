"""Texts to tokens and back, exactly as a trainer and greedy decoding see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import UserError, clip
from ...pipelines.folder import shown
from ..base_model import SPELLING as TOKENIZER_FILES
from ..calls import BASE
from ..template import read_template

_PROBE = "ADD, q0"
NO_WORD = "\N{REPLACEMENT CHARACTER}"


class Tokens:
    """A tokenizer, and the tokens around prompts and completions.

    Prompt and completion are tokenised apart, the way prompt-completion trainers do: no token spans the border.

    Args:
        tokenizer: of the transformers library.
        template: the text around each prompt, as ``--template`` says it; None for none.

    Attributes:
        start: tokens that stand before a prompt's text, such as one for the beginning of text.
        end: the token that must follow a completion: the end-of-text token, or what the template ends answers with.
        words: the tokens that stand for a text.

    Raises:
        UserError: the tokenizer has no end-of-text token, or does not take the template.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = read_template(template, tokenizer)
        end = self.template.end or tokenizer.eos_token
        if end is None:
            raise UserError(
                "the tokenizer has no end-of-text token: nothing would tell where an answer ends",
                where=shown(tokenizer.name_or_path),
                next_step='name one in its tokenizer_config.json: "eos_token": ...',
            )
        self.end: int = tokenizer.convert_tokens_to_ids(end)
        self.words = frozenset(tokenizer.get_vocab().values())
        plain, [whole] = self.encode([_PROBE])[0], tokenizer([_PROBE])["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        self.start: list[int] = list(dict.fromkeys(whole[:at]))  # some tokenizers put the same token twice
        opening = self.encode([self.template.render(_PROBE)])[0]
        if self.template.whole or opening[: len(self.start)] == self.start:  # the template brings them itself
            self.start = []
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
        """Return the tokens of each prompt as the model reads it: in its template, behind ``start``.

        Raises:
            UserError: a prompt has no token: there is nothing to continue.
        """
        found = [self.start + tokens for tokens in self.encode([self.template.render(text) for text in texts])]
        if not all(found):
            raise UserError(f"the prompt {clip(texts[found.index([])])} has no token, so nothing can follow it")
        return found

    def completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each completion as they follow a prompt: none spans the border, none stands for it.

        SentencePiece tokenizers begin a text of its own with a blank mark, which greedy decoding would not write.
        """
        plain = self.encode(texts)
        if not self.lead:
            return plain
        before = self.encode(["\n"])[0]
        behind = self.encode([f"\n{text}" for text in texts])
        return [
            tokens[len(before) :] if tokens[: len(before)] == before else alone
            for tokens, alone in zip(behind, plain, strict=True)
        ]

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


def load_tokenizer(folder: Path | str, template: str | None = None) -> Tokens:
    """Load the tokenizer of a base model or adapter; no code of its own is run.

    Args:
        folder: folder, or name on the Hub, of the model.
        template: the text around each prompt; None for none.

    Raises:
        UserError: there is none, it is damaged, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=Path(folder).is_dir()
        )
    except Exception as error:  # whatever the library makes of a damaged folder
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the tokenizer cannot be loaded: {clip(reason, 300)}", where=shown(str(folder))) from error
    return Tokens(tokenizer, template)


def load_tokenizers(base: Path | str, adapters: Mapping[str, Path], template: str | None = None) -> dict[str, Tokens]:
    """Load the tokenizer of the base model, and those that adapters bring.

    Args:
        base: folder, or name on the Hub, of the base model.
        adapters: folder of each adapter by its name.
        template: the text around each prompt; None for none.

    Returns:
        The tokenizer of each adapter: its own where its folder holds tokenizer files, else the base model's, which
        also stands under ``BASE``. Equal files are loaded once.

    Raises:
        UserError: a tokenizer is damaged, or has no end-of-text token.
    """
    known = {_files(Path(base)): load_tokenizer(base, template)}
    found = {BASE: known[_files(Path(base))]}
    for name, folder in adapters.items():
        files = _files(folder)
        if files and files not in known:
            known[files] = load_tokenizer(folder, template)
        found[name] = known[files] if files else found[BASE]
    return found


def _files(folder: Path) -> frozenset[tuple[str, str]]:
    """Return the tokenizer files of a folder, each with its hash."""
    paths = (folder / name for name in TOKENIZER_FILES)
    return frozenset((path.name, sha256(path.read_bytes()).hexdigest()) for path in paths if path.is_file())


def differences(tokens: Tokens, base: Tokens, texts: Sequence[str]) -> list[str]:
    """Return in words where an adapter's tokenizer disagrees with the base model's; nothing where they mean the same.

    Args:
        tokens: of the adapter.
        base: of the base model.
        texts: prompts and completions to try.
    """
    if tokens is base:
        return []
    found = []
    own, its = tokens.tokenizer.eos_token, base.tokenizer.eos_token
    if (own, tokens.end) != (its, base.end):
        found.append(f"an answer ends with {clip(own)} instead of {clip(its)}")
    words, others = tokens.tokenizer.get_vocab(), base.tokenizer.get_vocab()
    added, lost = words.keys() - others.keys(), others.keys() - words.keys()
    if added:
        found.append(f"{len(added):,} tokens more, such as {clip(min(added))}")
    if lost:
        found.append(f"{len(lost):,} tokens fewer, such as {clip(min(lost))}")
    if moved := [word for word in words.keys() & others.keys() if words[word] != others[word]]:
        found.append(f"{len(moved):,} tokens have other numbers, such as {clip(min(moved))}")
    pairs = zip(tokens.prompts(texts), base.prompts(texts), strict=True)
    if unlike := [text for text, (one, two) in zip(texts, pairs, strict=True) if one != two]:
        found.append(f"other tokens for {len(unlike):,} of {len(texts):,} texts tried, such as {clip(unlike[0])}")
    return found
