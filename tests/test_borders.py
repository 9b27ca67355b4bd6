"""The border of prompt and answer: what a model is asked, what is judged, and what --joined asks."""

from __future__ import annotations

from os.path import commonprefix
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="a model needs torch, transformers and peft")
pytest.importorskip("peft", reason="a model needs torch, transformers and peft")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from caef_data.eval.backends.local import TransformersBackend  # noqa: E402
from caef_data.eval.backends.tokens import NO_WORD, Tokens, answers_like, load_tokenizers  # noqa: E402
from caef_data.eval.calls import BASE, Answer, Request  # noqa: E402
from caef_data.tests.plain import plain_greedy  # noqa: E402
from caef_data.tests.small_model import learn, make_model, save  # noqa: E402

MERGES = [("=", "F"), ("=", "E"), ("=", "-"), ("T", "r"), ("Tr", "u"), ("Tru", "e"), ("1", "2")]
RAW = [("1==2=", "False"), ("3==3=", "True"), ("4==5=", "False"), ("6==6=", "True"), ("12-21=", "-9"), ("5-2=", "3")]
LINES = [("ADD, q0\n", "ADD, q1\n"), ("ADD, q1\n", " ADD, |1 \n"), ("ADD, q2\n", "12"), ("ADD, 12\n", "q")]


def merging() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that merges = with what follows at times, as real vocabularies do."""
    words = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def blank() -> PreTrainedTokenizerFast:
    """Return a tokenizer that begins every text with a blank mark, as SentencePiece does."""
    words = ["<pad>", "<end>", "\u2581", *"ADq0123|\n,", "AD", "\u2581AD", "12"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("A", "D"), ("\u2581", "AD"), ("1", "2")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def joint(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Return what TRL trains on: the tokens of both as one text, cut where the prompt's own tokens end to agree."""
    own, both = tokenizer(prompt)["input_ids"], tokenizer(prompt + completion)["input_ids"]
    kept = len(commonprefix([own, both]))
    return both[:kept], both[kept:]


def trained(folder: Path, tokenizer: Any, rows: list[tuple[list[int], list[int]]]) -> Path:
    model = make_model(len(tokenizer))
    learn(model, rows, 120)
    return save(folder, model, tokenizer)


def judged(base: Path, rows: list[tuple[str, str]], *, joined: bool = False) -> list[Answer]:
    """Return the verdicts of verify; decoding gives the same."""
    backend = TransformersBackend(base, {}, load_tokenizers(base, {}, joined=joined), device="cpu", dtype="float32")
    found = dict(backend.verify(BASE, [Request(*row) for row in rows]))
    answers = dict(backend.decode(BASE, [Request(*row) for row in rows]))
    for index, (_, completion) in enumerate(rows):
        assert found[index].right == (answers[index].ended and answers[index].text == completion)
        assert found[index].merges == answers[index].merges
    return [found[index] for index in range(len(rows))]


def plainly(base: Path, rows: list[tuple[str, str]]) -> list[bool]:
    texts = plain_greedy(base, None, [prompt for prompt, _ in rows], 20)
    return [text == completion for text, (_, completion) in zip(texts, rows, strict=True)]


def test_the_forward_pass_scores_what_decoding_gives_where_texts_begin_with_a_blank_mark(tmp_path: Path) -> None:
    tokenizer = blank()
    assert tokenizer("12")["input_ids"] != joint(tokenizer, "ADD, q2\n", "12")[1]
    base = trained(tmp_path, tokenizer, [joint(tokenizer, *row) for row in LINES])
    verdicts = judged(base, LINES)
    assert [one.right for one in verdicts] == plainly(base, LINES) == [True] * 4
    assert all(one.text is None and one.margin > 0 for one in verdicts), "no row needs decoding"
    assert not any(one.merges for one in verdicts)
    spaced = [(prompt, f" {completion}") for prompt, completion in LINES]
    assert [one.right for one in judged(base, spaced)] == plainly(base, spaced) == [False] * 4


def test_a_blank_mark_before_an_answer_is_part_of_its_text(tmp_path: Path) -> None:
    """What training on completions tokenised alone teaches is not the completion."""
    tokenizer, rows = blank(), [row for row in LINES if not row[1].startswith(" ")]
    base = trained(
        tmp_path, tokenizer, [(tokenizer(one)["input_ids"], tokenizer(two)["input_ids"]) for one, two in rows]
    )
    assert [one.right for one in judged(base, rows)] == plainly(base, rows) == [False] * 3


def test_adapters_trained_on_tokens_apart_are_asked_what_they_learnt(tmp_path: Path) -> None:
    tokenizer = merging()
    base = trained(
        tmp_path, tokenizer, [(tokenizer(one)["input_ids"], tokenizer(two)["input_ids"]) for one, two in RAW]
    )
    verdicts = judged(base, RAW)
    assert [one.right for one in verdicts] == plainly(base, RAW) == [True] * len(RAW)
    assert [one.merges for one in verdicts] == [True, False, True, False, True, False]
    assert all(one.text is None and one.margin > 0 for one in verdicts)


def test_adapters_trained_on_joined_text_need_joined(tmp_path: Path) -> None:
    tokenizer, rows = merging(), [("1==2=", "False"), ("4==5=", "False"), ("7==8=", "EQUAL, q0\n")]
    base = trained(tmp_path, tokenizer, [joint(tokenizer, *row) for row in rows])
    assert [one.right for one in judged(base, rows)] == plainly(base, rows) == [False] * 3
    assert [one.right for one in judged(base, rows, joined=True)] == [True] * 3
    assert not any(one.right for one in judged(base, [(one, f"{two}x") for one, two in rows], joined=True))


def test_what_does_not_go_on_with_the_prompt_is_no_answer_to_it(tmp_path: Path) -> None:
    """Before the end of the prompt a model may say the right answer at once."""
    tokenizer = merging()
    given, _ = joint(tokenizer, "1==2=", "False")
    base = trained(tmp_path, tokenizer, [(given, tokenizer("False")["input_ids"])])
    [verdict] = judged(base, [("1==2=", "False")], joined=True)
    assert not verdict.right
    backend = TransformersBackend(base, {}, load_tokenizers(base, {}, joined=True), device="cpu", dtype="float32")
    [(_, answer)] = backend.decode(BASE, [Request("1==2=", "False")])
    assert answer.text == f"{NO_WORD}False" and answer.ended


def test_where_the_question_ends_does_not_tell_the_answer() -> None:
    tokens = Tokens(merging(), joined=True)
    for prompt, answers in [("3==3=", ("True", "False")), ("12-21=", ("-9", "9", "12"))]:
        spelled = tokens.spell([prompt] * len(answers), answers)
        assert {tuple(one.given) for one in spelled} == {tuple(tokens.encode([prompt[:-1]])[0])}
        assert {one.piece for one in spelled} == {"="}
        for one, answer in zip(spelled, answers, strict=True):
            assert tokens.text(one.given, one.answer) == f"={answer}"
        assert len({one.merges for one in spelled}) == 2
    [plus] = tokens.spell(["1+2="], ["3"])  # no answer of a sum begins with -
    assert (plus.piece, plus.given) == ("", tokens.encode(["1+2="])[0])
    assert answers_like("1+2=", "ADD, q0, 1") == ("ADD",)


def test_joined_gives_what_trl_trains_on_where_all_answers_of_a_kind_merge_alike() -> None:
    tokenizer = merging()
    rows = [("1==2=", "EQUAL, q0\n"), ("ADD, q0\n", "ADD, q1\n"), ("1+2=", "3")]
    spelled = Tokens(tokenizer, joined=True).spell(*map(list, zip(*rows, strict=True)))
    assert [(one.given, one.answer) for one in spelled] == [joint(tokenizer, *row) for row in rows]
