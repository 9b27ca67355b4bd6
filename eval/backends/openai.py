"""The backend that asks a server: vLLM, or what speaks its dialect of OpenAI's protocol; adapters are models there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from math import inf
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from ...errors import UserError, printable_path, quoted
from ..adapters import task_of
from ..calls import BASE, Backend, GenerateRequest, Generation, Score, ScoreRequest
from .endpoint import GUIDE, TIMEOUT, Endpoint
from .rows import NEAR, Found, Row, judge, spell_rows
from .tokens import Tokens

CONCURRENCY = 32  # requests at the same time: the server makes batches of them
CHUNK = 1024  # questions tokenised at once
# Greedy decoding whatever the model's generation_config.json, which a server takes its defaults from, says.
GREEDY = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "n": 1, "stream": False}
GREEDY |= {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
# Two, not one: the difference to the runner-up is the margin, and tells a tie, which is decoded for certainty.
SCORED = {"max_tokens": 1, "prompt_logprobs": 2, "add_special_tokens": False}
DECODED = {"add_special_tokens": False, "return_token_ids": True}

NEAR_TIE = NEAR["bfloat16"]  # servers do not tell what they compute in
NEVER = 10**9
WORST = 1e6  # logarithms of probabilities are smaller; vLLM itself writes -9999 for minus infinity

Result = TypeVar("Result")


class OpenAIBackend(Backend):
    """Models on a server.

    Requests to one adapter at a time: where adapters share a batch, servers have been seen to mix them up.

    Args:
        endpoint: address of the server.
        wanted: names of the adapters that will be asked; ``BASE`` for the base model.
        tokens: the tokenizer of each adapter by its name; of the base model alone under ``BASE``.
        folders: where the adapters lie here, for the command that serves them; None where the base model is asked.
        concurrency: requests at the same time, at most.
        timeout: seconds of silence.
        near_ties: what becomes of answers in which a token leads the next one by so little that the shape of a batch
            could decide: alone asks for them by generating, count only marks them.

    Raises:
        UserError: the server cannot be reached, or does not serve what is wanted; says how to start it.
    """

    name = "openai"

    def __init__(
        self,
        endpoint: str,
        wanted: Sequence[str],
        tokens: Mapping[str, Tokens],
        *,
        folders: Mapping[str, Path | None] | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        near_ties: str = "alone",
    ) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("one process is enough to ask a server", next_step="start caef-data eval without torchrun")
        self.tokens, self.concurrency, self.near_alone = tokens, concurrency, near_ties == "alone"
        self.endpoint = Endpoint(endpoint, concurrency, timeout)
        cards = self._cards()
        self.max_length = _max_length(cards)
        self.models = _served(cards, wanted, folders or {}, self.endpoint.url)
        self._pool: ThreadPool | None = None

    def provenance(self) -> dict[str, object]:
        server = self.endpoint.version()
        told = f"{self.endpoint.url} (version {server})" if server else self.endpoint.url
        return {"device": told, "near_tie_below": NEAR_TIE, "transformers": version("transformers")}

    def close(self) -> None:
        self.endpoint.close()

    def verify_batches(self, adapter: str, calls: Sequence[ScoreRequest]) -> Iterator[list[tuple[int, Score]]]:
        """Tell of each call whether greedy decoding gives its completion.

        Raises:
            UserError: the server cannot be reached, refuses, or answers nonsense.
        """
        questions = [GenerateRequest(call.prompt, call.completion) for call in calls]
        yield from self._each(adapter, questions, self._verdict)

    def decode_batches(self, adapter: str, asks: Sequence[GenerateRequest]) -> Iterator[list[tuple[int, Generation]]]:
        """Decode greedily.

        Raises:
            UserError: the server cannot be reached, refuses, or answers nonsense.
        """
        yield from self._each(adapter, asks, self._answer)

    def _cards(self) -> list[dict[str, Any]]:
        """Return what the server says of the models that it serves."""
        data = self.endpoint.ask("to list its models", "/models").get("data")
        cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
        if not cards or not all(isinstance(card.get("id"), str) for card in cards):
            raise UserError("the server lists no models", where=self.endpoint.url, next_step=f"see {GUIDE}")
        return cards

    # One question

    def _verdict(self, adapter: str, row: Row) -> Score:
        ids = [*row.given, *row.expected, row.tokens.end]
        self._check_length(len(ids) + 1, "the server computes one token more than it is given")
        choice = self._ask({"model": self.models[adapter], "prompt": ids, **SCORED}, len(ids))
        found = self._found(choice, ids, len(row.given))
        verdict = judge(row, found, NEAR_TIE, alone=self.near_alone)
        if isinstance(verdict, Score):
            return verdict
        return row.verdict(self._answer(adapter, verdict), found.margin)

    def _found(self, choice: dict[str, Any], ids: list[int], start: int) -> Found:
        """Return by how much each token from ``start`` on leads the best other one, up to the first that does not."""
        try:
            scores = choice["prompt_logprobs"]
            if scores is None or len(scores) != len(ids):
                raise LookupError("prompt_logprobs")
            leads = []
            for token, given in zip(ids[start:], scores[start:], strict=True):
                own = str(token)
                others = sorted(((_score(given[other]), int(other)) for other in given if other != own), reverse=True)
                gap = others[0][0] - others[1][0] if len(others) > 1 else inf
                leads.append((_score(given[own]) - others[0][0], others[0][1], gap))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._nonsense(error, "prompt_logprobs, as vLLM gives them, one entry a token") from None
        before = closest = inf
        for place, (margin, top, gap) in enumerate(leads):
            closest = min(closest, abs(margin))
            if not margin > 0:  # which of the others comes may decide whether the text can still be right
                return Found(place, top, min(margin, before), before, min(closest, gap))
            before = min(before, margin)
        return Found(NEVER, 0, before, before, closest)

    def _answer(self, adapter: str, row: Row) -> Generation:
        tokens, given = row.tokens, row.begun
        needed, room = len(row.expected) - row.known + 1, row.limit
        if row.question.certain:
            self._check_length(len(given) + needed, "prompt, answer and end")
        if self.max_length is not None:
            room = min(room, self.max_length - len(given))
        if room < 1:  # what a model has made too long has no answer
            return Generation("", False)
        # The server ends an answer with the base model's end token by itself.
        own = self.tokens[BASE].tokenizer.eos_token_id
        stop = {"stop_token_ids": [tokens.end]} if tokens.end != own else {}
        body = {"model": self.models[adapter], "prompt": given, "max_tokens": room, **DECODED, **stop}
        choice = self._ask(body, len(given) + needed)
        ids, why = choice.get("token_ids"), choice.get("finish_reason")
        if not isinstance(ids, list) or not ids or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
            raise self._nonsense("token_ids", "token_ids, which vLLM gives since version 0.10.2")
        if len(ids) > room:
            raise self._nonsense(f"an end: {len(ids):,} token_ids", f"up to {room:,}, as max_tokens said")
        if why not in ("stop", "length"):
            raise self._nonsense(f"finish_reason {why if isinstance(why, str) else ''}", "stop or length")
        if why == "length" and len(ids) < min(needed, room) and row.question.certain:
            self._check_length(len(given) + needed, "prompt, answer and end", refused=True)
        answer = row.answer(ids, margin=None, near=NEAR_TIE)
        if len(ids) == row.limit < row.most and row.gave_up(ids):
            return self._answer(adapter, replace(row, limit=row.most))
        return answer

    def _ask(self, body: dict[str, Any], length: int) -> dict[str, Any]:
        """Return the one choice that the server gives."""
        what = f"a request of {length:,} tokens to {quoted(body['model'])}"
        found = self.endpoint.ask(what, "/completions", {**body, **GREEDY})
        choices = found.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise self._nonsense("choices", "one choice")
        if choices[0].get("prompt_token_ids") not in (None, body["prompt"]):
            raise self._nonsense("prompt_token_ids", "the tokens that were sent")
        return choices[0]

    def _check_length(self, length: int, what: str, *, refused: bool = False) -> None:
        """Refuse a question that is longer than the server says that it takes, or than it turned out to take."""
        most = None if refused else self.max_length
        if refused or (most is not None and length > most):
            raise UserError(
                f"a question takes {length:,} tokens ({what}), more than the server takes",
                where=self.endpoint.url,
                allowed=f"{most:,} tokens: what it was started with, or what the model can" if most else None,
                next_step=f"start it with --max-model-len {length} or more, or build shorter operands",
            )

    def _nonsense(self, what: object, allowed: str) -> UserError:
        return UserError(
            f"the server's answer lacks something: {self.endpoint.scrub(quoted(what, 100))}",
            where=self.endpoint.url,
            allowed=allowed,
            next_step=f"take a version of vLLM that {GUIDE} names",
        )

    # Many questions

    def _each(
        self, adapter: str, questions: Sequence[GenerateRequest], work: Callable[[str, Row], Result]
    ) -> Iterator[list[tuple[int, Result]]]:
        """Work on many questions to one adapter at the same time; yield results as they come."""
        if self._pool is not None:
            self._pool.join()  # nothing of another adapter is under way
        rows = self._rows(self.tokens[adapter], questions)
        # Its threads are daemons: who presses Ctrl-C does not wait for answers.
        with ThreadPool(max(1, min(self.concurrency, len(questions)))) as self._pool:
            for found in self._pool.imap_unordered(lambda row: (row.index, work(adapter, row)), rows):
                yield [found]

    def _rows(self, tokens: Tokens, questions: Sequence[GenerateRequest]) -> Iterator[Row]:
        for start in range(0, len(questions), CHUNK):
            yield from spell_rows(tokens, questions, range(start, min(start + CHUNK, len(questions))))


def _score(given: Any) -> float:
    """Return the logarithm of a token's probability.

    Raises:
        ValueError: it is no number.
    """
    score = given["logprob"]
    if type(score) not in (int, float) or not abs(score) < WORST:
        raise ValueError("a logprob that is a number")
    return float(score)


# What a server serves


def _max_length(cards: list[dict[str, Any]]) -> int | None:
    """Return how many tokens prompt and answer may have together; None where the server does not say."""
    told = [card.get("max_model_len") for card in cards]
    return min((length for length in told if type(length) is int and length > 0), default=None)


def _plain(name: str) -> str:
    """Return an adapter's name as different people may write it: ``executors/add``, ``executors-addition`` ..."""
    kind, _, task = name.lower().replace("/", "-").replace("_", "-").partition("-")
    return f"{kind}/{task_of(task) or task}"


def _served(
    cards: list[dict[str, Any]], wanted: Sequence[str], folders: Mapping[str, Path | None], url: str
) -> dict[str, str]:
    """Return the server's name of each adapter.

    Raises:
        UserError: it does not serve one, or several models could be meant.
    """
    ids = [card["id"] for card in cards]
    alone = [card for card in cards if card.get("parent") is None]
    models, missing = {}, []
    for name in wanted:
        if name == BASE or (name in folders and folders[name] is None):
            found = [card["id"] for card in alone][:1] if len({str(card.get("root")) for card in alone}) == 1 else []
        else:
            found = [name] if name in ids else [one for one in ids if _plain(one) == _plain(name)]
        if len(found) > 1:
            raise UserError(f"{name} may be each of {quoted(found)}", where=url, next_step="serve one of them")
        if found:
            models[name] = found[0]
        else:
            missing.append(name or "the base model alone")
    if missing:
        modules = " ".join(f"{name}={printable_path(folder)}" for name in missing if (folder := folders.get(name)))
        raise UserError(
            f"the server does not serve {', '.join(missing)}",
            where=url,
            allowed=f"it serves {quoted(', '.join(ids), 300)}",
            next_step=f"start it with --enable-lora --lora-modules {modules} (see {GUIDE})",
        )
    return models
