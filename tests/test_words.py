"""Input words of a machine: expressions against Python's re, words by rank, drawing, texts."""

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest

from caef_data.errors import UserError
from caef_data.pipelines.sampling.classes import ClassSampler, class_cells
from caef_data.pipelines.sampling.enumerate_small import resolve
from caef_data.pipelines.sampling.index_space import IndexSpace
from caef_data.pipelines.sampling.split import every, side_codes
from caef_data.pipelines.settings import TaskSettings
from caef_data.tm.classes import Variant
from caef_data.tm.columns import Operands
from caef_data.tm.machine import REGISTRY, Dialect, Machine, Transition
from caef_data.tm.words import INDEXED, Language, _rank, is_spaced, read_words

EXPRESSIONS = (
    *("(0|1)*", "1(0|1)*", "0*1{2,3}0?", "(01|10){2,}", "a?", "(0|)1", "[01]{3}", "((0|1)1){0,2}", "", "0{0}1*", "|0"),
    *("(0*1*)*a", "(a|0+1)+", ".1.?", "(0?1?){3}", "((00)*|(000)*)1", "(|01{1,}){1,2}", "(0|1)*1(0|1){3}", "[0][1a]+"),
    *("(a*){2}", "(0+a?){2,}", "()+1", "(0{2}|1){0,3}a", "(((0)))"),
)
BIT, BITS = "01", "1(0|1)*"


def texts_of(planes: Any, length: Any, symbols: Sequence[str]) -> list[str]:
    between, words = " " if is_spaced(symbols) else "", zip(planes.T.tolist(), length.tolist(), strict=True)
    return [between.join(symbols[code - 1] for code in word[:own]) for word, own in words]


def words(language: Language, ranks: Sequence[int], length: int) -> list[str]:
    lengths = np.full(len(ranks), length)
    planes = language.unrank(ranks, lengths)
    return texts_of(planes, lengths, language.symbols)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_words_of_an_expression_are_those_that_python_matches(expression: str) -> None:
    language = Language("01a", expression)
    for length in range(7):
        wanted = [word for word in map("".join, product("01a", repeat=length)) if re.fullmatch(expression, word)]
        assert language.count(length) == len(wanted)
        assert words(language, range(len(wanted)), length) == wanted  # a bijection, in order


def test_symbols_in_quotes() -> None:
    language = Language(["*", "-", "10", "a", "b"], """'10' "*"+ ['-' ab]?""")
    assert [language.count(length) for length in range(4)] == [0, 0, 1, 4]
    assert words(language, range(4), 3) == ["10 * *", "10 * -", "10 * a", "10 * b"]


def test_all_words_of_an_alphabet() -> None:
    language = Language("abc")
    assert [language.count(length) for length in (0, 1, 50)] == [1, 3, 3**50]
    assert words(language, [3**50 - 1, 0, 5], 50) == ["c" * 50, "a" * 50, "a" * 48 + "bc"]
    # Ranks around the words that begin with each symbol, across limbs of 64 bits.
    ranks = [k * 3**129 + d for k in range(3) for d in (0, 1, 2**64 - 1, 2**64, 2**128 - 1, 2**128, 3**129 - 1)]
    for rank, word in zip(ranks, words(language, ranks, 130), strict=True):
        assert sum("abc".index(symbol) * 3**place for place, symbol in enumerate(reversed(word))) == rank
    assert Language("").count(0) == 1
    assert Language("").count(1) == 0


def test_words_of_different_lengths_together_are_those_of_each_alone() -> None:
    for expression in (BITS, "(0|1)*1(0|1){4}", "(01|1)*"):
        language, rng = Language(BIT, expression), np.random.default_rng(1)
        lengths = np.array([5, 61, 200, 7, 62, 63, 64, 90, 5, 30], np.int64)
        ranks = [int(rng.random() * language.count(own)) for own in lengths.tolist()]
        planes = language.unrank(ranks, lengths)
        alone = [words(language, [rank], own)[0] for rank, own in zip(ranks, lengths.tolist(), strict=True)]
        assert texts_of(planes, lengths, BIT) == alone
        assert all(re.fullmatch(expression, word) for word in alone)
        last = [words(language, [language.count(own) - 1, 0], own) for own in (61, 62, 63, 200)]
        assert all(sorted(pair, reverse=True) == pair and pair[0] != pair[1] for pair in last)
    with pytest.raises(ValueError, match="not below"):
        language.unrank(np.array([3], np.uint64), np.array([1]))


@pytest.mark.parametrize(
    ("expression", "column", "says"),
    [
        ("(0", 1, "this ( is not closed"),
        ("0|1)", 4, "this ) closes nothing"),
        ("02", 2, "there is no input symbol '2'\n.*\n.*allowed: '0' '1'"),
        ("0 '22'", 3, "there is no input symbol '22'"),
        ("0**", 3, "'*' repeats nothing, or what is repeated already"),
        ("0|*", 3, "'*' repeats nothing"),
        ("10{0}*", 6, "'*' repeats nothing"),
        ("1{2}{3}", 5, "'{3}' repeats nothing"),
        ("(?0)", 2, "'?' repeats nothing"),
        ("[0-1]", 3, "'-' has no place here"),
        ("[^0]", 2, "'^' has no place here"),
        ("[]", 1, "this [ is not closed, or holds nothing"),
        ("0[ ]", 2, "this [ is not closed, or holds nothing"),
        ("0[01", 2, "this [ is not closed"),
        ("0{3,1}", 2, "'{3,1}' is no count"),
        ("0{x}", 2, "'{' has no place"),
        ("'01", 1, "has no place"),
        ("0" * 2_001, 2_001, "the expression goes on here"),
        ("(" * 60, 51, "more than 50 others"),
        ("\n0\\d", 3, "no input symbol"),
    ],
)
def test_bad_expressions_say_where_and_what(expression: str, column: int, says: str) -> None:
    with pytest.raises(UserError) as caught:
        Language(BIT, expression, "input of x")
    assert f"input of x, column {column} of " in str(caught.value)
    assert re.search(re.sub(r"([(){}\[*^])", r"\\\1", says) if "\n" not in says else says, str(caught.value))


def test_expressions_that_are_too_large() -> None:
    for expression in ("(0|1)*1(0|1){11}", "0{1001}", "((0{50}){50}){50}", "((0{0,50}){0,50}){0,50}", "0?" * 1_000):
        with pytest.raises(UserError, match="is too large\n.*\n.*1,000 states"):
            Language(BIT, expression)
    with pytest.raises(UserError, match="there is no input symbol"):
        Language("", ".*")
    assert Language(BIT, "((((){1000}){1000}){1000}){1000}1").count(1) == 1


# Drawing


class WordMachine(Machine):
    """As much of a machine as sampling asks for."""

    name = "word_machine"
    unary = True
    numbers = False
    stress = "none"
    words: ClassVar[Language] = Language(BIT)

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return (Variant("any", 1, self.words),)

    def classes(self, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
        shortest = 0 if shortest == 1 else shortest
        return ((n, 0) for n in range(shortest, longest + 1) if self.words.count(n))

    def answer(self, a: int, b: int) -> int:
        raise NotImplementedError

    def num_steps(self, a: int, b: int) -> int:
        raise NotImplementedError

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 1

    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        raise NotImplementedError

    def initial(self, a: int, b: int) -> str:
        raise NotImplementedError

    def halted(self, a: int, b: int) -> str:
        raise NotImplementedError


if multiprocessing.parent_process() is None:
    del REGISTRY["word_machine"]  # other tests look at all tasks


def machine_of(language: Language, monkeypatch: pytest.MonkeyPatch) -> WordMachine:
    own = WordMachine()
    monkeypatch.setattr(WordMachine, "words", language)
    monkeypatch.setitem(REGISTRY, "word_machine", own)
    return own


def cells(low: int, high: int, num: int, split: str = "train") -> ClassSampler:
    settings = TaskSettings(task="word_machine", min=low, max=high, num=num, num_test=num, max_len=max(high, 1_000))
    return resolve(settings, split, class_cells(settings, split))


def texts(sampler: ClassSampler, symbols: Sequence[str], numbers: Any = None) -> list[str]:
    operands, _ = sampler.operands(np.arange(sampler.num_expressions) if numbers is None else np.array(numbers))
    assert operands.b is None
    return texts_of(operands.a.planes, operands.a.length, symbols)


LARGE = [("(0|1)*", BIT), (BITS, BIT), ("[abc]*", "abc"), ("[01][0123456789]{199}", "0123456789"), ("(0|10)*", BIT)]


@pytest.mark.parametrize(("expression", "symbols"), LARGE)
def test_words_of_large_classes_are_distinct_and_uniform(
    expression: str, symbols: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_of(Language(symbols, expression), monkeypatch)
    found = texts(cells(200, 200, 2_000), symbols)
    assert len(set(found)) == len(found) == 2_000
    assert all(len(word) == 200 and re.fullmatch(expression, word) for word in found)
    if expression == "(0|10)*":  # Fibonacci's words: a 1 is followed by a 0
        ones = np.array([[symbol == "1" for symbol in word] for word in found])[:, 20:180]
        assert abs(ones.mean() - 0.2764) < 0.003  # 1 / (phi**2 + 1)
        return
    for place in (1, 2, 63, 100, 137, 138, 139, 140, 180, 198, 199):
        for pair in (False, True):
            seen = [word[place - pair : place + 1] for word in found] if place > 1 else [word[place] for word in found]
            kinds = len(symbols) ** (1 + (pair and place > 1))
            counts = np.unique(seen, return_counts=True)[1]
            expected = len(found) / kinds
            chi = ((counts - expected) ** 2 / expected).sum() + (kinds - len(counts)) * expected
            assert chi < kinds + 6 * np.sqrt(2 * kinds), (place, kinds, chi)


@pytest.mark.parametrize("lengths", [(16, 20), (56, 62), (64, 68), (120, 124)])
def test_classes_around_the_bounds_of_what_is_drawn(lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    own = machine_of(Language(BIT, BITS), monkeypatch)
    for split in ("train", "test"):
        sampler = cells(*lengths, 100, split)
        found = texts(sampler, BIT)
        assert len(set(found)) == len(found) == 100 * (lengths[1] - lengths[0] + 1)
        assert all(word[0] == "1" for word in found)
        numbers = np.random.default_rng(3).permutation(len(found))
        assert texts(sampler, BIT, numbers) == [found[number] for number in numbers]
        assert [found[n] for n in (5, 477)] == [texts(sampler, BIT, [n])[0] for n in (5, 477)]
        codes = side_codes(own, Operands(read_words(found, BIT), None))
        assert (codes == ("train", "test").index(split)).all()


def test_small_classes_give_every_word_once(monkeypatch: pytest.MonkeyPatch) -> None:
    language = Language(BIT, "(0|1)*")
    own = machine_of(language, monkeypatch)
    train, test = cells(1, 12, 10**6), cells(1, 12, 10**6, "test")
    sides = texts(train, BIT), texts(test, BIT)
    assert not set(sides[0]) & set(sides[1])
    for length in range(13):
        both = [word for side in sides for word in side if len(word) == length]
        assert len(set(both)) == len(both) == 2**length
        if length >= 7:  # by the hash alone: about a tenth
            assert 0.04 < len([word for word in sides[1] if len(word) == length]) / 2**length < 0.2
    assert train.classes()[0, 0] == 1
    assert train.classes(np.arange(3)) == {(0, 0): 1, (1, 0): 2}
    assert (0, 0) not in test.classes()
    assert cells(1, 12, 5, "stress").num_expressions == 0
    some = every(own.words, 3, 0).a
    assert texts_of(some.planes, some.length, BIT) == list(map("".join, product(BIT, repeat=3)))


def test_words_that_look_like_powers_of_ten_are_not_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    language = Language("abcdefghijk")
    machine_of(language, monkeypatch)
    found = texts(cells(3, 3, 10**6), language.symbols) + texts(cells(3, 3, 10**6, "test"), language.symbols)
    nines = [word for word in map("".join, product(language.symbols, repeat=3)) if sum(map(ord, word)) == 3 * ord("i")]
    assert len(set(nines) & set(found)) > 0.8 * len(nines)


def test_lengths_without_words_give_none(monkeypatch: pytest.MonkeyPatch) -> None:
    own = machine_of(Language(BIT, "(00)+"), monkeypatch)
    assert own.words.size(3, 0) == 0
    assert IndexSpace(own.words, np.array([3]), np.array([0])).size.tolist() == [0]
    monkeypatch.setattr(WordMachine, "classes", lambda self, low, high: ((n, 0) for n in range(low, high + 1)))
    found = texts(cells(1, 8, 5), BIT) + texts(cells(1, 8, 5, "test"), BIT)
    assert sorted(found, key=len) == ["0" * n for n in (2, 4, 6, 8)]


def test_ranks_of_all_shares_differ_where_few_words_are_drawn_by_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caef_data.tm.words.INDEXED", 100)
    for expression, symbols, length in (
        (BITS, BIT, 12),
        ("[01]{1}[0123456789]*", "0123456789", 4),
        ("[abc]*", "abc", 7),
    ):
        law = Language(symbols, expression)
        digits, values = law.lengths(np.array([length]), 0)[0].item(), law.selector(np.array([length]), 0)  # type: ignore[arg-type]
        assert values == (0, [1])
        assert 10**digits <= law.size(length, 0) < 10 ** (digits + 1)
        ranks = [_rank(share, *law._drawn(length)) for share in range(10**digits)]
        assert sorted(set(ranks)) == ranks
        assert ranks[-1] < law.size(length, 0)
    assert INDEXED == 10**17


@pytest.mark.long
def test_words_of_the_longest_classes_have_ranks_that_python_does_not_print(monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = list(map(chr, range(200, 454)))
    machine_of(Language(symbols), monkeypatch)
    found = texts(cells(1_800, 1_800, 4), symbols)
    assert len(set(found)) == 4
    assert all(len(set(word)) > 200 for word in found)


# Texts


@pytest.mark.parametrize("symbols", [BIT, ["a", "bc", "0"], "".join(map(chr, range(200, 454))), "a\U0001f600ß"])
def test_texts_are_read_back(symbols: Sequence[str]) -> None:
    language, rng = Language(symbols), np.random.default_rng(2)
    lengths = rng.integers(0, 30, 300)
    lengths[0] = 0
    ranks = [int(rng.random() * language.count(own)) for own in lengths.tolist()]
    planes = language.unrank(ranks, lengths)
    texts = texts_of(planes, lengths, symbols)
    back = read_words(texts, symbols)
    assert (back.length == lengths).all()
    assert (back.planes == planes[: back.width]).all()
    assert texts[0] == ""
    assert texts[1].count(" ") == (lengths[1] - 1 if "bc" in symbols else 0)
    assert read_words([], symbols).planes.shape == (1, 0)
    assert texts_of(np.zeros((1, 2), np.uint8), np.zeros(2, np.int64), symbols) == ["", ""]


@pytest.mark.parametrize(
    ("symbols", "texts", "says"),
    [
        (BIT, ["01", "", "0x1"], r"'x' is no input symbol\n.*symbol 2 of '0x1'\n.*allowed: '0' '1'"),
        (BIT, ["0\udc00"], "symbol 2 of "),
        (["a", "10"], ["a 10", "a  10"], "'' is no input symbol\n.*symbol 2 of 'a  10'"),
        (["a", "10"], ["a10"], "'a10' is no input symbol"),
    ],
)
def test_texts_with_other_symbols_are_refused(symbols: Sequence[str], texts: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_words(texts, symbols)
