"""The backend that asks a server: vLLM, or what speaks its dialect of OpenAI's protocol; adapters are models there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from math import inf
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from ...errors import UserError, printable_path, quoted
from ..calls import BASE, Backend, GenerateRequest, Generation, Score, ScoreRequest
from ..checkpoint import task_of
from .endpoint import GUIDE, TIMEOUT, Endpoint
from .rows import NEAR, PassResult, Row, judge, make_rows
from .tokens import Tokens

CONCURRENCY = 32  # requests at the same time: the server makes batches of them
CHUNK = 1024  # requests tokenised at once
# Greedy decoding whatever the model's generation_config.json, which a server takes its defaults from, says.
GREEDY = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "n": 1, "stream": False}
GREEDY |= {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
# Two, not one: the difference to the runner-up is the margin, and tells a tie, which is decoded for certainty.
SCORED = {"max_tokens": 1, "prompt_logprobs": 2, "add_special_tokens": False}
DECODED = {"add_special_tokens": False, "return_token_ids": True}
NEAR_TIE = NEAR["bfloat16"]  # servers do not tell what they compute in
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
        cards = self.endpoint.ask("to list its models", "/models").get("data")
        cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        if not cards or not all(isinstance(card.get("id"), str) for card in cards):
            raise UserError("the server lists no models", where=self.endpoint.url, next_step=f"see {GUIDE}")
        lengths = [length for card in cards if type(length := card.get("max_model_len")) is int and length > 0]
        self.max_length = min(lengths, default=None)  # tokens of prompt and answer; None where the server does not say
        self.models = _served(cards, wanted, folders or {}, self.endpoint.url)
        self._pool: ThreadPool | None = None

    def provenance(self) -> dict[str, object]:
        server = self.endpoint.version()
        told = f"{self.endpoint.url} (version {server})" if server else self.endpoint.url
        return {"device": told, "near_tie_below": NEAR_TIE, "transformers": version("transformers")}

    def close(self) -> None:
        self.endpoint.close()

    def verify_batches(self, adapter: str, calls: Sequence[ScoreRequest]) -> Iterator[list[tuple[int, Score]]]:
        """Score calls; a server that cannot be reached, refuses, or answers nonsense raises ``UserError``."""
        yield from self._each(adapter, [GenerateRequest(call.prompt, call.completion) for call in calls], self._score)

    def decode_batches(self, adapter: str, asks: Sequence[GenerateRequest]) -> Iterator[list[tuple[int, Generation]]]:
        yield from self._each(adapter, asks, self._generation)

    def _each(
        self, adapter: str, requests: Sequence[GenerateRequest], work: Callable[[str, Row], Result]
    ) -> Iterator[list[tuple[int, Result]]]:
        """Work on many requests to one adapter at the same time; yield results as they come."""
        if self._pool is not None:
            self._pool.join()  # nothing of another adapter is under way
        chunks = (range(start, min(start + CHUNK, len(requests))) for start in range(0, len(requests), CHUNK))
        rows = (row for chunk in chunks for row in make_rows(self.tokens[adapter], requests, chunk))
        # Its threads are daemons: who presses Ctrl-C does not wait for answers. Importing polars has the system go on
        # with calls that a signal interrupts, such as the wait below.
        signal.siginterrupt(signal.SIGINT, True)
        with ThreadPool(max(1, min(self.concurrency, len(requests)))) as self._pool:
            for result in self._pool.imap_unordered(lambda row: (row.index, work(adapter, row)), rows):
                yield [result]

    def _score(self, adapter: str, row: Row) -> Score:
        ids = [*row.prompt_ids, *row.answer_ids, row.tokens.end]
        self._check_length(len(ids) + 1)  # the server computes one token more than it is given
        choice = self._ask({"model": self.models[adapter], "prompt": ids, **SCORED}, len(ids))
        start = len(row.prompt_ids)
        try:
            scores = zip(ids[start:], choice["prompt_logprobs"][start:], strict=True)
            result = _pass_result([_lead(scored, str(token)) for token, scored in scores])
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self._nonsense("prompt_logprobs", "as vLLM gives them, one entry of numbers a token") from None
        judged = judge(row, result, NEAR_TIE, alone=self.near_alone)
        return judged if isinstance(judged, Score) else judged.score(self._generation(adapter, judged))

    def _generation(self, adapter: str, row: Row) -> Generation:
        tokens, given = row.tokens, row.decode_from
        needed, room = len(row.answer_ids) - row.num_given_tokens + 1, row.limit
        if row.request.certain:
            self._check_length(len(given) + needed)
        if self.max_length is not None:
            room = min(room, self.max_length - len(given))
        if room < 1:  # what a model has made too long has no answer
            return Generation("", False)
        # The server ends an answer with the base model's end token by itself.
        own = self.tokens[BASE].tokenizer.eos_token_id
        stop = {"stop_token_ids": [tokens.end]} if tokens.end != own else {}
        body = {"model": self.models[adapter], "prompt": given, "max_tokens": room, **DECODED, **stop}
        choice = self._ask(body, len(given) + needed)
        ids, reason = choice.get("token_ids"), choice.get("finish_reason")
        if not isinstance(ids, list) or not 0 < len(ids) <= room or not all(type(id) is int and id >= 0 for id in ids):
            raise self._nonsense("token_ids", f"1 to {room:,} numbers, which vLLM gives since version 0.10.2")
        if reason not in ("stop", "length"):
            raise self._nonsense("finish_reason", "stop or length")
        if reason == "length" and len(ids) < min(needed, room) and row.request.certain:
            raise self._too_long(len(given) + needed)
        if len(ids) == row.limit < row.most and row.stopped_early(ids):
            return self._generation(adapter, replace(row, limit=row.most))
        return row.generation(ids, margin=None, near=NEAR_TIE)

    def _ask(self, body: dict[str, Any], length: int) -> dict[str, Any]:
        """Return the one choice that the server gives."""
        what = f"a request of {length:,} tokens to {quoted(body['model'])}"
        choices = self.endpoint.ask(what, "/completions", {**body, **GREEDY}).get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise self._nonsense("choices", "one choice")
        if choices[0].get("prompt_token_ids") not in (None, body["prompt"]):
            raise self._nonsense("prompt_token_ids", "the tokens that were sent")
        return choices[0]

    def _check_length(self, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            raise self._too_long(length)

    def _too_long(self, length: int) -> UserError:
        return UserError(
            f"a question takes {length:,} tokens with its answer and end, more than the server takes",
            where=self.endpoint.url,
            allowed=f"{self.max_length:,} tokens" if self.max_length else None,
            next_step=f"start it with --max-model-len {length} or more, or build shorter operands",
        )

    def _nonsense(self, what: str, allowed: str) -> UserError:
        return UserError(
            f"the server's answer lacks {what}",
            where=self.endpoint.url,
            allowed=f"{what}: {allowed}",
            next_step=f"take a version of vLLM that {GUIDE} names",
        )


def _lead(scored: Mapping[str, Any], own: str) -> tuple[float, int, float]:
    """Return by how much a token leads the best other one, which one that is, and by how much it leads the next."""
    logprobs = {token: entry["logprob"] for token, entry in scored.items()}
    if not all(type(logprob) in (int, float) and abs(logprob) < WORST for logprob in logprobs.values()):
        raise ValueError
    best, *rest = sorted(((float(logprob), int(token)) for token, logprob in logprobs.items() if token != own))[::-1]
    return logprobs[own] - best[0], best[1], best[0] - rest[0][0] if rest else inf


def _pass_result(leads: list[tuple[float, int, float]]) -> PassResult:
    """Return what the leads of the right answer's tokens tell, up to the first that does not lead."""
    before = closest = inf
    for place, (margin, top, gap) in enumerate(leads):
        closest = min(closest, abs(margin))
        if not margin > 0:  # which of the others comes may decide whether the text can still be right
            return PassResult(place, top, min(margin, before), before, min(closest, gap))
        before = min(before, margin)
    return PassResult(len(leads), 0, before, before, closest)


def _plain(name: str) -> str:
    """Return an adapter's name as different people may write it: ``executors/add``, ``executors-addition`` ..."""
    kind, _, task = name.lower().replace("/", "-").replace("_", "-").partition("-")
    return f"{kind}/{task_of(task) or task}"


def _served(
    cards: list[dict[str, Any]], wanted: Sequence[str], folders: Mapping[str, Path | None], url: str
) -> dict[str, str]:
    """Return the server's name of each adapter; refuse where it does not serve one, or several could be meant."""
    ids = [card["id"] for card in cards]
    bases = [card for card in cards if card.get("parent") is None]
    models, missing = {}, []
    for name in wanted:
        if name == BASE or folders.get(name, "") is None:
            found = [bases[0]["id"]] if len({str(card.get("root")) for card in bases}) == 1 else []
        else:
            found = [name] if name in ids else [id for id in ids if _plain(id) == _plain(name)]
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
