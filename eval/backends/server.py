"""The backend that asks a server: vLLM, or what speaks its dialect of OpenAI's protocol; adapters are models there."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from math import inf
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import httpx2
import msgspec
from msgspec import Meta, Struct

from ...errors import UserError, printable_path, quoted
from ...retry import Retries
from ..calls import BASE, Answer, Backend, Request
from ..checkpoint import task_of
from ..settings import KEY, base_url
from .rows import NEAR, PassResult, Row, judge, make_rows
from .tokens import Tokens

GUIDE = "docs/vllm.md"
CONCURRENCY = 32  # requests at the same time: the server makes batches of them
CHUNK = 1024  # requests tokenised at once
CONNECT = 10.0  # seconds until a server must have taken a connection
TIMEOUT = 1200.0  # seconds of silence: a request may wait behind many others
SAY_EVERY = 5.0  # seconds between lines about requests that are tried again
MAX_ANSWER = 2**27  # bytes; the scores of a token take about 300
# Greedy decoding whatever the model's generation_config.json, which a server takes its defaults from, says.
GREEDY = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "n": 1, "stream": False}
GREEDY |= {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
# Two, not one: the difference to the runner-up is the margin, and tells a tie, which is decoded for certainty.
SCORED = {"max_tokens": 1, "prompt_logprobs": 2, "add_special_tokens": False}
DECODED = {"add_special_tokens": False, "return_token_ids": True}
NEAR_TIE = NEAR["bfloat16"]  # servers do not tell what they compute in

Kind = TypeVar("Kind", bound=Struct)


# What a server answers


class _Entry(Struct):
    logprob: Annotated[float, Meta(gt=-1e6, lt=1e6)]  # vLLM writes -9999 for minus infinity


class _Choice(Struct):
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: int | str | None = None  # the token or text, if it is not the model's end token
    prompt_logprobs: list[dict[int, _Entry] | None] | None = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[Annotated[int, Meta(ge=0)]] | None = None  # told by vLLM since version 0.10.2


class _Answer(Struct):
    choices: Annotated[list[_Choice], Meta(min_length=1, max_length=1)]
    model: str | None = None


class _Card(Struct):
    id: str
    parent: str | None = None
    root: str | None = None
    max_model_len: Annotated[int, Meta(gt=0)] | None = None


class _Cards(Struct):
    data: Annotated[list[_Card], Meta(min_length=1)]


class Endpoint:
    """One server: requests to it are tried again where that may help, and each refusal is explained in a line.

    Args:
        endpoint: its address, with or without ``/v1``.
        connections: requests at the same time, at most.
        timeout: seconds of silence.

    Raises:
        UserError: this is no address, or the key or a proxy in the environment cannot be one.
    """

    def __init__(self, endpoint: str, connections: int, timeout: float) -> None:
        self.url, self.timeout = base_url(endpoint), timeout
        self._key = os.environ.get(KEY, "").strip()
        if not re.fullmatch("[!-~]*", self._key):
            raise UserError("the key for the server holds characters that no key has", where=KEY)
        try:
            self._client = httpx2.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                timeout=httpx2.Timeout(timeout, connect=min(CONNECT, timeout), pool=None),
                limits=httpx2.Limits(max_connections=connections),
            )
        except (ImportError, ValueError, OSError) as error:
            what = f"the environment asks for connections that cannot be made: {quoted(error, 200)}"
            raise UserError(what, where="HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE, SSL_CERT_DIR") from error
        self.close = self._client.close
        self._retries = Retries("the same command", self._say, self._scrub)
        self._said = -SAY_EVERY

    def _scrub(self, text: str) -> str:
        """Return what others wrote without the key."""
        return text.replace(self._key, "***") if self._key else text

    def ask(self, what: str, path: str, kind: type[Kind], body: dict[str, Any] | None = None) -> Kind:
        """Return what the server gives for a path, or in answer to an object.

        Raises:
            UserError: the server cannot be reached, does not answer in time, refuses ``what``, or answers nonsense.
        """
        url = self.url + path
        try:
            raw = self._retries("asking the server", lambda: self._exchange(url, body))
            return msgspec.json.decode(raw, type=kind)
        except httpx2.HTTPStatusError as error:
            raise self._refused(what, url, error.response) from None
        except UserError as error:
            advice = f"see the server's log, start it again ({GUIDE}); the same command goes on where it stopped"
            raise UserError(error.what, where=url, next_step=advice) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, msgspec.MsgspecError, RecursionError) as error:
            raise self.nonsense(f"{type(error).__name__} {error}") from None

    def nonsense(self, why: str) -> UserError:
        """Return the refusal of an answer that is none."""
        what = f"the server's answer is not what vLLM gives: {quoted(self._scrub(why), 300)}"
        advice = f"is this a server with OpenAI's protocol, of a version of vLLM that {GUIDE} names?"
        return UserError(what, where=self.url, next_step=advice)

    def _exchange(self, url: str, body: dict[str, Any] | None) -> bytes:
        """Return what the server answers; raises httpx2's ``HTTPError`` where it cannot be reached, or refuses."""
        content = bytearray()
        try:
            with self._client.stream("GET" if body is None else "POST", url, json=body) as response:
                if not response.is_success:
                    response.read()  # its text is told
                    response.raise_for_status()
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER:
                        raise UserError(f"the server's answer has more than {MAX_ANSWER:,} bytes")
        except httpx2.ReadTimeout:
            raise UserError(f"the server answered nothing within {self.timeout:,.0f} s") from None
        return bytes(content)

    def _refused(self, what: str, url: str, response: httpx2.Response) -> UserError:
        if response.status_code in (401, 403):
            what = "the server does not accept the key" if self._key else "the server wants a key"
            advice = f"put the one it was started with into the environment variable {KEY}"
            return UserError(f"{what} (HTTP {response.status_code})", where=url, next_step=advice)
        return UserError(
            f"the server refuses {what} (HTTP {response.status_code}): {quoted(self._scrub(response.text), 300)}",
            where=url,
            next_step=f"is its base model the one that was named? is its --max-model-len enough? see {GUIDE}",
        )

    def _say(self, text: str) -> None:
        """Print a line about a wait; requests that wait for the same reason together are one line."""
        if time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            print(f"{printable_path(self.url)}: {text}", file=sys.stderr, flush=True)


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
        vocabulary: number of tokens that the base model has, if that is known.
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
        vocabulary: int | None = None,
        near_ties: str = "alone",
    ) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("one process is enough to ask a server", next_step="start caef-data eval without torchrun")
        self.tokens, self.concurrency, self.near_alone = tokens, concurrency, near_ties == "alone"
        self.endpoint = Endpoint(endpoint, concurrency, timeout)
        known = {token for own in tokens.values() for token in own.words} if vocabulary else ()  # adapters may add some
        self.most = inf if vocabulary is None else max(vocabulary - 1, *known)
        cards = self.endpoint.ask("to list its models", "/models", _Cards).data
        # Tokens of prompt and answer; None where the server does not say.
        self.max_length = min((card.max_model_len for card in cards if card.max_model_len), default=None)
        self.models = _served(cards, wanted, folders or {}, self.endpoint.url)
        self._pool: ThreadPool | None = None

    def provenance(self) -> dict[str, object]:
        return {"device": self.endpoint.url, "near_tie_below": NEAR_TIE, "transformers": version("transformers")}

    def close(self) -> None:
        self.endpoint.close()

    def verify_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Score requests; a server that cannot be reached, refuses, or answers nonsense raises ``UserError``."""
        return self._each(adapter, requests, self._score)

    def decode_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        return self._each(adapter, requests, self._answer)

    def _each(
        self, adapter: str, requests: Sequence[Request], work: Callable[[str, Row], Answer]
    ) -> Iterator[list[tuple[int, Answer]]]:
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

    def _score(self, adapter: str, row: Row) -> Answer:
        ids = [*row.prompt_ids, *row.answer_ids, row.tokens.end]
        self._check_length(len(ids) + 1)  # the server computes one token more than it is given
        choice = self._ask({"model": self.models[adapter], "prompt": ids, **SCORED}, len(ids))
        start = len(row.prompt_ids)
        try:
            scores: Any = zip(ids[start:], choice.prompt_logprobs[start:], strict=True)  # type: ignore[index]
            result = _pass_result([_lead(scored, token) for token, scored in scores])
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self.endpoint.nonsense("it lacks prompt_logprobs, one entry a token") from None
        judged = judge(row, result, NEAR_TIE, alone=self.near_alone)
        return judged if isinstance(judged, Answer) else self._answer(adapter, judged)

    def _answer(self, adapter: str, row: Row) -> Answer:
        tokens, given = row.tokens, row.decode_from
        needed, room = len(row.answer_ids) - row.num_given_tokens + 1, row.limit
        if row.request.certain:
            self._check_length(len(given) + needed)
        if self.max_length is not None:
            room = min(room, self.max_length - len(given))
        if room < 1:  # what a model has made too long has no answer
            return Answer(False, text="")
        # The server ends an answer with the base model's end token by itself.
        own = self.tokens[BASE].tokenizer.eos_token_id
        stop = {"stop_token_ids": [tokens.end]} if tokens.end != own else {}
        body = {"model": self.models[adapter], "prompt": given, "max_tokens": room, **DECODED, **stop}
        choice = self._ask(body, len(given) + needed)
        ids = choice.token_ids or []
        if not 0 < len(ids) <= room or choice.finish_reason is None:
            why = f"it has {len(ids):,} token_ids, not 1 to {room:,}, and finish_reason {choice.finish_reason}"
            raise self.endpoint.nonsense(why)
        if max(ids) > self.most:
            raise self.endpoint.nonsense(f"it has token {max(ids):,}; the base model's last one is {self.most:,}")
        if choice.finish_reason == "stop" and choice.stop_reason is None and ids[-1] not in (own, tokens.end):
            raise self.endpoint.nonsense("its finish_reason is stop, and no end token is the last of its token_ids")
        if choice.finish_reason == "length" and len(ids) < row.limit:
            certain, unfinished = row.request.certain, row.stopped_early(ids)
            matters = len(ids) < needed or unfinished if certain else self.max_length is not None
            if len(ids) < room and matters:
                raise self._cut(len(ids), room, len(given))
            if unfinished:
                raise self._too_long(len(given) + row.limit)
        if len(ids) == row.limit < row.most and row.stopped_early(ids):
            return self._answer(adapter, replace(row, limit=row.most))
        return row.answer(ids, margin=None, near=NEAR_TIE)

    def _ask(self, body: dict[str, Any], length: int) -> _Choice:
        """Return the one choice that the server gives."""
        what = f"a request of {length:,} tokens to {quoted(body['model'])}"
        answer = self.endpoint.ask(what, "/completions", _Answer, {**body, **GREEDY})
        if answer.model not in (None, body["model"]):
            raise self.endpoint.nonsense(f"it is one of the model {answer.model}, and {body['model']} was asked")
        [choice] = answer.choices
        if choice.prompt_token_ids not in (None, body["prompt"]):
            raise self.endpoint.nonsense("its prompt_token_ids are not the tokens that were sent")
        return choice

    def _check_length(self, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            raise self._too_long(length)

    def _cut(self, came: int, room: int, given: int) -> UserError:
        """Return the refusal of an answer that ends before the tokens that were asked for, and not by itself."""
        what = f"the server ended an answer after {came:,} of the {room:,} tokens that were asked for"
        if self.max_length is None:  # it may have been too long
            advice = f"start it with --max-model-len {given + room} or more, or build shorter operands"
            return UserError(what, where=self.endpoint.url, next_step=advice)
        return UserError(
            f"{what}, though it takes {self.max_length:,}, and the question has {given:,}",
            where=self.endpoint.url,
            next_step=f"start it without a limit of answers; vLLM: --generation-config vllm (see {GUIDE})",
        )

    def _too_long(self, length: int) -> UserError:
        return UserError(
            f"a question takes {length:,} tokens with its answer and end, more than the server takes",
            where=self.endpoint.url,
            allowed=f"{self.max_length:,} tokens" if self.max_length else None,
            next_step=f"start it with --max-model-len {length} or more, or build shorter operands",
        )


def _lead(scored: Mapping[int, _Entry], own: int) -> tuple[float, int, float]:
    """Return by how much a token leads the best other one, which one that is, and by how much it leads the next."""
    best, *rest = sorted(((entry.logprob, token) for token, entry in scored.items() if token != own), reverse=True)
    return scored[own].logprob - best[0], best[1], best[0] - rest[0][0] if rest else inf


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


def _served(cards: list[_Card], wanted: Sequence[str], folders: Mapping[str, Path | None], url: str) -> dict[str, str]:
    """Return the server's name of each adapter; refuse where it does not serve one, or several could be meant."""
    ids = [card.id for card in cards]
    bases = [card for card in cards if card.parent is None]
    models, missing = {}, []
    for name in wanted:
        if name == BASE or folders.get(name, "") is None:
            found = [bases[0].id] if len({card.root for card in bases}) == 1 else []
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
