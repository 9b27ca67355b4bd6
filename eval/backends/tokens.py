"""Texts to tokens and back, exactly as a trainer and greedy decoding see them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple, Self

from ...errors import UserError, printable_path, quoted
from ..calls import BASE, Request
from ..files import CHAT_TEMPLATE, TOKENIZER, hash_of
from ..template import read_template

_PROBE = "ADD, q0"
AROUND = 24  # characters on each side of a border: more than a token or a run of white space in it has
OWN = "take the tokenizer that the adapter was trained with: it belongs into the adapter's folder"
NO_WORD = "\N{REPLACEMENT CHARACTER}"


class Spelled(NamedTuple):
    """A question and its right answer in tokens."""

    given: list[int]  # what the model reads
    answer: list[int]  # what it must write, without the end
    piece: str  # text of the prompt's end that the model must write first, where ``given`` stops before it
    merges: bool  # read as one text, the end of the prompt and the answer merge


class Tokens:
    """A tokenizer, and the tokens around prompts and completions.

    A model is asked as plain decoding asks: it reads the prompt's own tokens, and no token spans the border.

    Args:
        tokenizer: of the transformers library.
        template: the text around each prompt, as ``--template`` says it; None for none.
        joined: models were trained on prompt and completion tokenised as one text: they are given the tokens of it that
            lie in the prompt whatever the answer is, and write the rest.

    Attributes:
        start: tokens that stand before a prompt's text, such as one for the beginning of text.
        end: the token that must follow a completion: the end-of-text token, or what the template ends answers with.
        lead: what SentencePiece tokenizers put before a text, and is no part of it.
        words: the tokens that stand for a text.

    Raises:
        UserError: the tokenizer has no end-of-text token, fails, cannot be continued, or does not take the template.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, *, joined: bool = False) -> None:
        self.tokenizer, self.joined = tokenizer, joined
        self.where = printable_path(str(tokenizer.name_or_path))
        with refusing(self.where, "cannot be used"):
            self.template = read_template(template, tokenizer)
            self.end = self._find_end()
            self.words = frozenset(tokenizer.get_vocab().values())
            self.start = self._find_start()
            self.lead = self._behind(self.encode(["\n"])[0], self.encode([_PROBE])[0]).removesuffix(_PROBE)

    def _find_end(self) -> int:
        end = self.template.end or self.tokenizer.eos_token
        number: int | None = None if end is None else self.tokenizer.convert_tokens_to_ids(end)
        if number is None or self.tokenizer.convert_ids_to_tokens(number) != end:
            raise UserError(
                f"the tokenizer has no end-of-text token{'' if end is None else f' {quoted(end)}'}: nothing would tell"
                " where an answer ends",
                where=self.where,
                next_step='name one in its tokenizer_config.json: "eos_token": ...',
            )
        return number

    def _find_start(self) -> list[int]:
        """Return the tokens before every text; refuse more than the end behind it, and tokens drawn by chance."""
        tokenizer = self.tokenizer
        if chance := getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", None):
            raise UserError(
                f"the tokenizer spells a text otherwise each time: its dropout is {chance:g}",
                where=self.where,
                next_step='set it in tokenizer.json: "dropout": null',
            )
        [plain], [whole] = self.encode([_PROBE]), tokenizer([_PROBE], verbose=False)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), None)
        if at is None or not {self.end, tokenizer.eos_token_id}.issuperset(whole[at + len(plain) :]):
            # A model asked through the library would read them before its answer.
            made = quoted(self.decode([whole])[0])
            raise UserError(
                f"the tokenizer does not end a text at its end: it makes {made} of {_PROBE!r}",
                where=self.where,
                allowed="tokenizers that put nothing behind a text but its end",
                next_step=OWN,
            )
        start: list[int] = whole[:at]
        opening = self.encode([self.template.render(_PROBE)])[0]
        return [] if self.template.whole or opening[:at] == start else start  # the template brings them itself

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without any before or after it."""
        if not texts:
            return []
        plain = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
        with refusing(self.where, "fails"):
            # Not verbose: that a text is longer than a model takes is told elsewhere, of the model that is asked.
            return [*self.tokenizer(list(texts), **plain, verbose=False)["input_ids"]]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of tokens."""
        exact = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        with refusing(self.where, "fails"):
            return [*self.tokenizer.batch_decode([list(row) for row in rows], **exact)]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each prompt as the model reads it: in its template, behind ``start``; at least one."""
        found = [self.start + tokens for tokens in self.encode([self.template.render(text) for text in texts])]
        if not all(found):
            raise UserError(
                f"the prompt {quoted(texts[found.index([])])} has no token, so nothing can follow it",
                where=self.where,
                allowed="tokenizers that know the characters of the machines' texts",
                next_step=OWN,
            )
        return found

    def behind(self, instruction: str) -> Self:
        """Return this tokenizer for prompts behind an instruction, with which they are read as one text."""
        own = copy(self)
        own.template = replace(self.template, before=self.template.before + instruction)
        return own

    def beginning(self) -> list[int]:
        """Return what all prompts begin with, but for the last tokens, in which a prompt's text may have a say."""
        before = self.template.before
        return self.start + self.encode([before])[0] if before else []

    def completions(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each completion as they follow a prompt: none spans the border, none stands for it.

        SentencePiece tokenizers begin a text of its own with a blank mark, which greedy decoding would not write.
        """
        plain = self.encode(texts)
        if not self.lead:
            return plain
        [before] = self.encode(["\n"])
        behind = self.encode([f"\n{text}" for text in texts])
        return [
            tokens[len(before) :] if tokens[: len(before)] == before else alone
            for tokens, alone in zip(behind, plain, strict=True)
        ]

    def rows(self, prompts: Sequence[str], completions: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Return rows as a model learns them: each prompt, and each completion with the end; raises as ``prompts``."""
        pairs = zip(self.prompts(prompts), self.completions(completions), strict=True)
        return [(prompt, [*answer, self.end]) for prompt, answer in pairs]

    def spell(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Spelled]:
        """Return prompts and completions in tokens, as decoding would come upon them; raises as ``prompts``."""
        parts = (self.prompts(prompts), self.completions(completions), self.merging(prompts, completions))
        spelled = [Spelled(given, answer, "", merges) for given, answer, merges in zip(*parts, strict=True)]
        if not self.joined:
            return spelled
        return [self._back(*row) for row in zip(spelled, prompts, completions, strict=True)]

    def merging(self, prompts: Sequence[str], completions: Sequence[str]) -> list[bool]:
        """Tell which completions the tokenizer merges with the end of their prompts, read as one text.

        What lies further from the border than ``AROUND`` characters has no say in it; few borders differ.
        """
        pairs = [
            (self.template.render(prompt)[-AROUND:], answer[:AROUND])
            for prompt, answer in zip(prompts, completions, strict=True)
        ]
        few = list(set(pairs))
        alone, both = self.encode([tail for tail, _ in few]), self.encode([tail + head for tail, head in few])
        merge = {pair: whole[: len(own)] != own for pair, own, whole in zip(few, alone, both, strict=True)}
        return [merge[pair] for pair in pairs]

    def _back(self, row: Spelled, prompt: str, completion: str) -> Spelled:
        """Return a question whose end is left to the model, as far as some answer of its kind merges with it.

        Where it stops must not tell which answer is right: of that one only its kind is looked at.
        """
        own, text = row.given, self.template.render(prompt)
        [whole, *tried] = self.encode([text + answer for answer in (completion, *answers_like(prompt, completion))])
        kept = max(1, min(len(commonprefix([own, self.start + tokens])) for tokens in tried))
        if kept == len(own):
            return row
        whole = self.start + whole
        answer = whole[kept:] if whole[:kept] == own[:kept] else own[kept:] + row.answer
        return Spelled(own[:kept], answer, self._behind(own[:kept][-1:], own[kept:]), row.merges)

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Return the text of an answer's tokens, exactly: leading and trailing white space, special tokens and all.

        Models have more tokens than their tokenizers have words; one without a word is no nothing, but ``NO_WORD``.
        """
        if self.words.issuperset(answer):
            return self._behind(prompt[-1:], answer)
        runs = ((known, [*run]) for known, run in groupby(answer, self.words.__contains__))
        return "".join(self._behind(prompt[-1:], run) if known else NO_WORD * len(run) for known, run in runs)

    def _behind(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Return what the answer adds to the prompt: decoded alone, many an answer would lose its leading space."""
        before, both = self.decode([prompt, [*prompt, *answer]])
        return both[len(before) :] if both.startswith(before) else self.decode([answer])[0]


def answers_like(prompt: str, completion: str) -> tuple[str, ...]:
    """Return the beginnings of all answers that a question could have, of which one is right: its kind, no more."""
    if completion in ("True", "False"):
        return "True", "False"
    if completion[:1].isdigit() or completion[:1] == "-":
        return (*"0123456789", *("-" if "-" in prompt else ""))
    return (completion.partition(",")[0],)  # the name of the adapter's machine


def check_spelling(tokens: Tokens, calls: Iterable[Request], next_step: str = OWN) -> None:
    """Check that prompts and completions come back from their tokens unchanged, without unknown ones or the end.

    Raises:
        UserError: one of them does not come back; names the first characters that fail.
    """
    tried = list(calls)
    prompts = tokens.encode([call.prompt for call in tried])
    completions = tokens.completions([call.completion for call in tried])
    for call, prompt, completion in zip(tried, prompts, completions, strict=True):
        for text, spelled, before in ((call.prompt, prompt, []), (call.completion, completion, prompt)):
            if fault := _fault(tokens, text, spelled, before):
                raise UserError(
                    f"the tokenizer cannot spell the machines' texts: it {fault}",
                    where=tokens.where,
                    allowed="a tokenizer that gives texts back unchanged, such as the byte-level ones of most models",
                    next_step=next_step,
                )


def _fault(tokens: Tokens, text: str, spelled: list[int], before: list[int]) -> str | None:
    """Return what is wrong with the tokens of a text behind others; None where nothing is."""
    if tokens.end in spelled:
        return f"takes a part of {quoted(text)} for the end of the text"
    back = tokens.text(before, spelled)
    if text in (back, back if before else back.removeprefix(tokens.lead)):
        return None
    at = len(commonprefix([back, text]))
    given, wanted = quoted(back[at : at + 12]), quoted(text[at : at + 12])
    return f"gives {given} back for {wanted}, which follows {quoted(text[:at])}"


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
    return tokens.rows([prompt], [completion])[0]


@lru_cache(maxsize=8)  # a vocabulary is looked through once, not at every row
def _tokens(tokenizer: Any, template: str | None, *_: object) -> Tokens:
    return Tokens(tokenizer, template)


def load_tokenizer(folder: Path | str, template: str | None = None, *, joined: bool = False) -> Tokens:
    """Load the tokenizer of a model's folder or name on the Hub; no code of its own is run. The rest as ``Tokens``."""
    from transformers import AutoTokenizer

    with _silent(), refusing(printable_path(str(folder)), "cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=Path(folder).is_dir()
        )
        tokenizer.name_or_path = str(folder)  # whatever its configuration says
        return Tokens(tokenizer, template, joined=joined)


@contextmanager
def refusing(where: str, fails: str) -> Iterator[None]:
    """Turn whatever a tokenizer's library raises, its compiled part's panics too, into a ``UserError``."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UserError(
            f"the tokenizer {fails}: {quoted(reason, 300)}",
            where=where,
            allowed="what save_pretrained of the transformers library writes, whole",
            next_step="copy or download its files again, or save it with the installed version of transformers",
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Send what is written to standard error nowhere: a panic is written there before it is raised."""
    with open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def load_tokenizers(
    base: Path | str, adapters: Mapping[str, Path | None], template: str | None = None, *, joined: bool = False
) -> dict[str, Tokens]:
    """Load the tokenizer of the base model, and those that the folders of adapters bring. The rest as ``Tokens``.

    Of ``adapters``, all that are asked, None stands for the base model's tokenizer, as it does under ``BASE``.

    Returns:
        The tokenizer of each adapter: its own where its folder holds tokenizer files, else the base model's, which
        also stands under ``BASE``: without the template if it does not take it, and nobody is asked through it.
        Equal files are loaded once.
    """
    files = {name: _files_of(folder) for name, folder in {**adapters, BASE: base}.items()}
    own = {
        name: folder
        for name, folder in adapters.items()
        if folder and name != BASE and {*files[name]} - {CHAT_TEMPLATE}
    }
    try:
        found = {BASE: load_tokenizer(base, template, joined=joined)}
        loaded = {hash_of(Path(base), files[BASE]): found[BASE]}
    except UserError:
        if not adapters or len(own) < len(adapters):
            raise
        found, loaded = {BASE: load_tokenizer(base, joined=joined)}, {}
    for name in adapters:
        if name not in own:
            found[name] = found[BASE]
            continue
        key = hash_of(own[name], files[name])
        if key not in loaded:
            loaded[key] = load_tokenizer(own[name], template, joined=joined)
        found[name] = loaded[key]
    return found


def _files_of(folder: Path | str | None) -> list[str]:
    """Return the names of a tokenizer's files in a folder."""
    return [file for file in (*TOKENIZER, CHAT_TEMPLATE) if folder is not None and Path(folder, file).is_file()]


def differences(tokens: Tokens, base: Tokens, texts: Sequence[str]) -> list[str]:
    """Return in words where an adapter's tokenizer disagrees with the base model's on these texts."""
    if tokens is base:
        return []
    told = []
    if tokens.end != base.end or tokens.tokenizer.eos_token != base.tokenizer.eos_token:
        own, its = quoted(tokens.tokenizer.eos_token), quoted(base.tokenizer.eos_token)
        told.append(f"an answer ends with {own} instead of {its}")
    if words := sorted({word for word, _ in tokens.tokenizer.get_vocab().items() ^ base.tokenizer.get_vocab().items()}):
        told.append(f"{len(words):,} words have other numbers or none, such as {quoted(words[0])}")
    pairs = zip(texts, tokens.prompts(texts), base.prompts(texts), strict=True)
    if changed := [text for text, own_ids, its_ids in pairs if own_ids != its_ids]:
        told.append(f"other tokens for {len(changed):,} of {len(texts):,} texts tried, such as {quoted(changed[0])}")
    return told
