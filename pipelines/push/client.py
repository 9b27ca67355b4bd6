"""The Hub's client as a push uses it: with time-outs, quiet, each call tried again, no secret in any text."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ...errors import UserError, clip
from ..folder import shown
from .dataset import Progress
from .retry import Retries, chain, status_of, unknown_host

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

TIMEOUT = 120.0  # seconds without a byte; the client's own default is to wait for ever
TOKENS = re.compile(r"hf_(oauth_)?[A-Za-z0-9]{16,}|eyJ[\w-]{16,}(\.[\w-]*)*")  # of the Hub; of its stores
QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")  # signed URLs carry the right to write in their query
RETRY = re.compile(r"Retrying in |Rate limited\. Waiting |Error while downloading ")  # what it says when it tries again
SETTINGS = "https://huggingface.co/settings/tokens"


class HubClient:
    """Calls the Hub for one push.

    Args:
        repo: the dataset repository, ``user/name``.
        again: the command that goes on where this push stopped.
        progress: told of waits and of what the Hub's client has to say.

    Raises:
        UserError: there is no token, or it cannot be one.
    """

    def __init__(self, repo: str, again: str, progress: Progress) -> None:
        from huggingface_hub import HfApi, get_token

        self.repo, self._progress, self._token = repo, progress, ""
        self.retries = Retries(again, progress.say, self.scrub)
        token = self("reading the token", get_token)
        if not token:
            raise UserError(
                "there is no token for the Hub",
                next_step=f"make one that may write at {SETTINGS}, then: hf auth login, or set HF_TOKEN",
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise UserError(
                "the token for the Hub holds characters that no token has",
                next_step="look at HF_TOKEN, or: hf auth login",
            )
        self._token = token
        # True: the client looks the token up for each call, and renews one that runs out during a long push.
        self.api = HfApi(token=True)
        self.endpoint = self.api.endpoint

    def scrub(self, text: str) -> str:
        """Return a text that others wrote without what gives access to the Hub."""
        if self._token:
            text = text.replace(self._token, "***")
        return QUERY.sub(r"\1", TOKENS.sub("***", text))

    def __call__(
        self, what: str, work: Callable[[], T], *, also: Collection[int] = (), passing: Collection[int] = ()
    ) -> T:
        """Run an idempotent step, again after errors that are likely to pass.

        Args:
            what: names the step in messages.
            work: the step; calls the Hub.
            also: HTTP statuses that another try may mend here.
            passing: HTTP statuses that the caller deals with: ``Refused`` is raised for them.

        Raises:
            UserError: it failed; the text says why and what to do.
            Refused: the Hub answered with a status of ``passing``.
        """
        try:
            return self.retries(what, work, also)
        except (UserError, Refused):
            raise
        except Exception as error:
            status = status_of(error)
            if status is not None and status in passing:
                raise Refused from None
            raise self._explained(what, error) from None  # nothing of the client's own text may surface in a traceback

    def _explained(self, what: str, error: Exception) -> UserError:
        """Return what the user can do about an error that no waiting mends."""
        status, where = status_of(error), f"{what}, {self.repo}"
        words = [getattr(one, "server_message", None) for one in chain(error)]
        said = clip(self.scrub(str(next(filter(None, words), error)).strip()), 300)
        if status == 401:
            return UserError(
                "the Hub does not know this token, or it has run out",
                where=where,
                next_step=f"make one that may write at {SETTINGS}; HF_TOKEN, if set, goes before hf auth login",
            )
        if status == 403:
            return UserError(
                f"this token may not write to {self.repo}: {said}",
                where=where,
                next_step=f"take a token with the right to write ({SETTINGS}); an organisation's owners can give it",
            )
        if status == 404:
            return UserError(
                f"the Hub has no {self.repo} that this token may see: {said}",
                where=where,
                next_step="look at the spelling of --repo and --revision, and at what the token may reach",
            )
        if status is not None:
            return UserError(f"the Hub refuses (HTTP {status}): {said}", where=where)
        return self._unanswered(error, where) or UserError(
            f"the Hub's answer cannot be understood: {type(error).__name__} {said}", where=where
        )

    def _unanswered(self, error: Exception, where: str) -> UserError | None:
        """Return what the user can do where no request can reach the Hub; None for other errors."""
        if any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain(error)):
            return UserError("the Hub's client is set to work offline", where=where, next_step="unset HF_HUB_OFFLINE")
        if unknown_host(error):
            return UserError(
                f"this machine finds no server of the name in {shown(self.endpoint)}",
                where=where,
                next_step="look at the network, and at HF_ENDPOINT if that is set",
            )
        return None

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Take the client's bars and warnings off the terminal, count its own retries, and give it time-outs."""
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils import _http
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        factory = _http._GLOBAL_CLIENT_FACTORY  # the user's own, with proxies and certificates, if there is one

        def with_timeout() -> httpx2.Client:
            client = factory()
            client.event_hooks["request"].append(_limit)
            return client

        logger, handler = logging.getLogger("huggingface_hub"), _Listener(self)
        before, bars, propagates = list(logger.handlers), not are_progress_bars_disabled(), logger.propagate
        set_client_factory(with_timeout)
        disable_progress_bars()
        logger.handlers, logger.propagate = [handler], False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the card's YAML, mostly: in the server's words
                yield
        finally:
            logger.handlers, logger.propagate = before, propagates
            if bars:
                enable_progress_bars()
            set_client_factory(factory)

    def heard(self, text: str) -> None:
        """Take a warning of the client's: count it if it is a retry, and show it."""
        if RETRY.match(text):
            self.retries.note()
        self._progress.say(f"the Hub's client: {clip(self.scrub(text), 200)}")


class Refused(Exception):
    """The Hub answered with a status that the caller deals with."""


def _limit(request: httpx2.Request) -> None:
    """Give a request time-outs; most calls of the Hub's client ask for none, so that a default would not do."""
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {name: given.get(name) or TIMEOUT for name in ("connect", "read", "write", "pool")}


class _Listener(logging.Handler):
    """Hands what the Hub's client logs to a push."""

    def __init__(self, client: HubClient) -> None:
        super().__init__(logging.WARNING)
        self.client = client

    def emit(self, record: logging.LogRecord) -> None:
        self.client.heard(record.getMessage())
