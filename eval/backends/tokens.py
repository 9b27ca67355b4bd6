"""Texts to tokens and back, exactly as a trainer and greedy decoding see them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError, printable_path, quoted
from ..calls import BASE
from ..files import CHAT_TEMPLATE, TOKENIZER
from ..template import read_template

_PROBE = "ADD, q0"
AROUND = 24  # characters on each side of a border: more than a token or a run of white space in it has
MOST_BORDERS = 100_000  # remembered
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
        words: the tokens that stand for a text.
        unknown: the token of what has none; None where there is no such token.

    Raises:
        UserError: the tokenizer has no end-of-text token, fails, cannot be continued, or does not take the template.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, *, joined: bool = False) -> None:
        self.tokenizer, self.joined = tokenizer, joined
        with refusing(self.where, "cannot be used"):
            self.template = read_template(template, tokenizer)
            self._probe()

    @property
    def where(self) -> str:
        """Where the tokenizer comes from, for messages."""
        return printable_path(str(self.tokenizer.name_or_path))

    def _probe(self) -> None:
        """Find what stands around texts.

        Raises:
            UserError: there is no end, or something else stands behind every text.
        """
        tokenizer = self.tokenizer
        end = self.template.end or tokenizer.eos_token
        if end is None:
            raise UserError(
                "the tokenizer has no end-of-text token: nothing would tell where an answer ends",
                where=self.where,
                next_step='name one in its tokenizer_config.json: "eos_token": ...',
            )
        self.end: int = tokenizer.convert_tokens_to_ids(end)
        if self.end is None or tokenizer.convert_ids_to_tokens(self.end) != end:
            raise UserError(f"the end-of-text token {quoted(end)} is no token of the tokenizer", where=self.where)
        if chance := getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", None):
            raise UserError(
                f"the tokenizer spells a text otherwise each time: its dropout is {chance:g}",
                where=self.where,
                next_step='set it in tokenizer.json: "dropout": null',
            )
        self.words = frozenset(tokenizer.get_vocab().values())
        self.unknown: int | None = tokenizer.unk_token_id
        plain, [whole] = self.encode([_PROBE])[0], tokenizer([_PROBE], verbose=False)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), len(whole))
        behind = whole[at + len(plain) :]
        if at == len(whole) or not {self.end, tokenizer.eos_token_id}.issuperset(behind):
            # A model asked through the library would read them before its answer.
            raise UserError(
                f"the tokenizer does not end a text at its end: it makes {quoted(self._decode(whole))} of {_PROBE!r}",
                where=self.where,
                allowed="tokenizers that put nothing behind a text but its end",
                next_step=OWN,
            )
        self.start: list[int] = whole[:at]
        opening = self.encode([self.template.render(_PROBE)])[0]
        if self.template.whole or opening[: len(self.start)] == self.start:  # the template brings them itself
            self.start = []
        # SentencePiece tokenizers put a space before a text of its own, which is no part of it.
        before = self.encode(["\n"])[0]
        self.lead = self._behind(before, plain).removesuffix(_PROBE)
        self._borders: dict[tuple[str, str], bool] = {}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without any before or after it."""
        if not texts:
            return []
        plain = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
        with refusing(self.where, "fails"):
            # Not verbose: that a text is longer than a model takes is told elsewhere, of the model that is asked.
            found: list[list[int]] = self.tokenizer(list(texts), **plain, verbose=False)["input_ids"]
        return found

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each prompt as the model reads it: in its template, behind ``start``.

        Raises:
            UserError: a prompt has no token: there is nothing to continue.
        """
        found = [self.start + tokens for tokens in self.encode([self.template.render(text) for text in texts])]
        if not all(found):
            raise UserError(
                f"the prompt {quoted(texts[found.index([])])} has no token, so nothing can follow it",
                where=self.where,
                allowed="tokenizers that know the characters of the machines' texts",
                next_step=OWN,
            )
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

    def spell(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Spelled]:
        """Return prompts and completions in tokens, as decoding would come upon them.

        Raises:
            UserError: a prompt has no token: there is nothing to continue.
        """
        found = zip(
            self.prompts(prompts), self.completions(completions), self.merging(prompts, completions), strict=True
        )
        spelled = [Spelled(given, answer, "", merges) for given, answer, merges in found]
        if not self.joined:
            return spelled
        return [self._back(*one) for one in zip(spelled, prompts, completions, strict=True)]

    def merging(self, prompts: Sequence[str], completions: Sequence[str]) -> list[bool]:
        """Tell which completions the tokenizer merges with the end of their prompts, read as one text.

        What lies further from the border than ``AROUND`` characters has no say in it; few borders differ.
        """
        pairs = [
            (self.template.render(prompt)[-AROUND:], answer[:AROUND])
            for prompt, answer in zip(prompts, completions, strict=True)
        ]
        new = list(set(pairs) - self._borders.keys())
        if len(self._borders) + len(new) > MOST_BORDERS:
            self._borders.clear()
            new = list(set(pairs))
        alone, both = self.encode([tail for tail, _ in new]), self.encode([tail + head for tail, head in new])
        for pair, one, two in zip(new, alone, both, strict=True):
            self._borders[pair] = two[: len(one)] != one
        return [self._borders[pair] for pair in pairs]

    def _back(self, found: Spelled, prompt: str, completion: str) -> Spelled:
        """Return a question whose end is left to the model, as far as some answer of its kind merges with it.

        Where it stops must not tell which answer is right: of that one only its kind is looked at.
        """
        own, text = found.given, self.template.render(prompt)
        [whole, *tried] = self.encode([text + answer for answer in (completion, *answers_like(prompt, completion))])
        kept = max(1, min(len(commonprefix([own, self.start + tokens])) for tokens in tried))
        if kept == len(own):
            return found
        whole = self.start + whole
        answer = whole[kept:] if whole[:kept] == own[:kept] else own[kept:] + found.answer
        return Spelled(own[:kept], answer, self._behind(own[:kept][-1:], own[kept:]), found.merges)

    def text(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Return the text of an answer's tokens, exactly: leading and trailing white space, special tokens and all.

        Models have more tokens than their tokenizers have words; one without a word is no nothing, but ``NO_WORD``.
        """
        if self.words.issuperset(answer):
            return self._behind(prompt[-1:], answer)
        runs: list[list[int]] = [[]]
        for token in answer:
            if token in self.words:
                runs[-1].append(token)
            else:
                runs.append([])
        return NO_WORD.join(self._behind(prompt[-1:], run) for run in runs)

    def _behind(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Return what the answer adds to the prompt: decoded alone, many an answer would lose its leading space."""
        before, both = self._decode(prompt), self._decode([*prompt, *answer])
        return both[len(before) :] if both.startswith(before) else self._decode(answer)

    def _decode(self, tokens: Sequence[int]) -> str:
        return self.decode([tokens])[0]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of tokens."""
        with refusing(self.where, "fails"):
            found: list[str] = self.tokenizer.batch_decode(
                [list(row) for row in rows], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        return found


def answers_like(prompt: str, completion: str) -> tuple[str, ...]:
    """Return the beginnings of all answers that a question could have, of which one is right: its kind, no more."""
    if completion in ("True", "False"):
        return "True", "False"
    if completion[:1].isdigit() or completion[:1] == "-":
        return (*"0123456789", *("-" if "-" in prompt else ""))
    return (completion.partition(",")[0],)  # the name of the adapter's machine


def load_tokenizer(folder: Path | str, template: str | None = None, *, joined: bool = False) -> Tokens:
    """Load the tokenizer of a model's folder or name on the Hub; no code of its own is run. The rest as ``Tokens``.

    Raises:
        UserError: there is none, it is damaged, or it has no end-of-text token.
    """
    from transformers import AutoTokenizer

    with _silent(), refusing(printable_path(str(folder)), "cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=Path(folder).is_dir()
        )
        tokenizer.name_or_path = str(folder)  # whatever its configuration says
        return Tokens(tokenizer, template, joined=joined)


@contextmanager
def refusing(where: str, fails: str) -> Iterator[None]:
    """Turn whatever a tokenizer's library raises at a damaged one into a message: that the tokenizer ``fails``.

    Raises:
        UserError: the library raises something, also a panic of its compiled part, which is no ``Exception``.
    """
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

    Returns:
        The tokenizer of each adapter: its own where its folder holds tokenizer files, else the base model's, which
        also stands under ``BASE``. Equal files are loaded once.

    Raises:
        UserError: a tokenizer is damaged, or has no end-of-text token.
    """
    known: dict[frozenset[tuple[str, str]], Tokens] = {}

    def load(folder: Path | str) -> Tokens:
        files = _files(Path(folder))
        if files not in known:
            known[files] = load_tokenizer(folder, template, joined=joined)
        return known[files]

    found = {BASE: load(base)}
    for name, folder in adapters.items():
        own = folder is not None and any(file != CHAT_TEMPLATE for file, _ in _files(folder))
        found[name] = load(folder) if folder is not None and own else found[BASE]
    return found


def _files(folder: Path) -> frozenset[tuple[str, str]]:
    """Return the tokenizer files of a folder, each with its hash."""
    paths = (folder / name for name in (*TOKENIZER, CHAT_TEMPLATE))
    return frozenset((path.name, sha256(path.read_bytes()).hexdigest()) for path in paths if path.is_file())


def differences(tokens: Tokens, base: Tokens, texts: Sequence[str]) -> list[str]:
    """Return in words where an adapter's tokenizer disagrees with the base model's on these texts."""
    if tokens is base:
        return []
    own, its = tokens.tokenizer.eos_token, base.tokenizer.eos_token
    words, others = tokens.tokenizer.get_vocab(), base.tokenizer.get_vocab()
    pairs = zip(tokens.prompts(texts), base.prompts(texts), strict=True)
    kinds = {
        "it has {} of its own": sorted(words.keys() - others.keys()),
        "it lacks {}": sorted(others.keys() - words.keys()),
        "{} tokens have other numbers": sorted(
            one for one in words.keys() & others.keys() if words[one] != others[one]
        ),
        f"other tokens for {{}} of {len(texts):,} texts tried": [
            text for text, (one, two) in zip(texts, pairs, strict=True) if one != two
        ],
    }
    ends = (
        [f"an answer ends with {quoted(own)} instead of {quoted(its)}"] if (own, tokens.end) != (its, base.end) else []
    )
    return ends + [
        f"{what.format(f'{len(which):,}')}, such as {quoted(which[0])}" for what, which in kinds.items() if which
    ]
