"""Calls of huggingface_hub on one dataset repository: tried again where that may help, each refusal explained."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...errors import UserError, printable_path, quoted
from ...retry import Retries, chain, status_of, unknown_host

QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\"]*")  # signed URLs carry the right to write in their query
QUOTA = re.compile(r"quota|storage limit|payment", re.IGNORECASE)
SETTINGS = "https://huggingface.co/settings"


class HubCalls:
    """Calls the Hub for one push.

    Args:
        name: the dataset repository, ``user/name``.
        again: the command that goes on where this push stopped.
        say: told of waits and of what the Hub's client has to say.

    Raises:
        UserError: there is no token, or it cannot be one.
    """

    def __init__(self, name: str, again: str, say: Callable[[str], None]) -> None:
        from huggingface_hub import HfApi, get_token

        self.name, self.again, self.say = name, again, say
        self._token = get_token() or ""
        if not re.fullmatch("[!-~]+", self._token):
            held = "the token for the Hub holds characters that no token has"
            raise UserError(
                held if self._token else "there is no token for the Hub",
                next_step=f"make one that may write at {SETTINGS}/tokens, then: hf auth login, or set HF_TOKEN",
            )
        self.api = HfApi()
        self.url = f"{self.api.endpoint}/datasets/{name}"
        self._retries = Retries(again, say, self._scrub)

    def __call__(self, what: str, call: Callable[..., Any], *, absent: Collection[int] = (), **options: Any) -> Any:
        """Make an idempotent call about the repository, again after errors that are likely to pass.

        Args:
            what: names the step in messages.
            call: a method of ``api``, or what takes the same first parameters.
            absent: HTTP statuses for which there is no result: None is returned.
            options: the call's other parameters.

        Raises:
            UserError: it failed; the text says why and what to do.
        """
        try:
            return self._retries(what, partial(call, repo_id=self.name, repo_type="dataset", **options))
        except UserError:
            raise
        except Exception as error:
            if status_of(error) in absent:
                return None
            raise self._explained(what, error) from None  # nothing of the client's own text may surface in a traceback

    def _explained(self, what: str, error: Exception) -> UserError:
        """Return what the user can do about an error that no waiting mends."""
        status, where = status_of(error), f"{what}, {self.name}"
        words = [getattr(one, "server_message", None) for one in chain(error)]
        said = quoted(self._scrub(str(next(filter(None, words), error)).strip()), 300)
        token = f"a token with the right to write ({SETTINGS}/tokens)"
        what, next_step = f"the Hub refuses (HTTP {status}): {said}", f"when that is mended: {self.again}"
        if any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain(error)):
            what, next_step = "the Hub's client is set to work offline", f"unset HF_HUB_OFFLINE, then: {self.again}"
        elif unknown_host(error):
            what = f"this machine finds no server of the name in {printable_path(self.api.endpoint)}"
            next_step = f"look at the network, and at HF_ENDPOINT if that is set, then: {self.again}"
        elif status in (402, 413, 507) or (status == 403 and QUOTA.search(said)):
            what = f"the Hub has no room left for this: {said}"
            next_step = f"make room, or change the plan at {SETTINGS}/billing, then: {self.again}"
        elif status == 401:
            what = "the Hub does not know this token, or it has run out"
            next_step = f"take {token}: hf auth login; HF_TOKEN, if set, goes before it; then: {self.again}"
        elif status == 403:
            what = f"this token may not write to {self.name}: {said}"
            next_step = f"take {token}; an organisation's owners can give it; then: {self.again}"
        elif status == 404:
            what = f"the Hub has no {self.name} that this token may see: {said}"
            next_step = "look at the spelling of --repo and --revision, and at what the token may reach"
        elif status is None:
            what = f"the Hub's answer cannot be understood: {type(error).__name__} {said}"
        return UserError(what, where=where, next_step=next_step)

    def _scrub(self, text: str) -> str:
        """Return a text that others wrote without what gives access to the Hub."""
        return QUERY.sub(r"\1", text.replace(self._token, "***"))

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Take the client's bars and warnings off the terminal; what it logs is said in a line, without secrets."""
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        logger, bars = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
        handlers, propagates = logger.handlers, logger.propagate
        listener = logging.Handler(logging.WARNING)
        listener.emit = lambda record: self.say(  # type: ignore[method-assign]
            f"the Hub's client: {quoted(self._scrub(record.getMessage()), 200)}"
        )
        disable_progress_bars()
        logger.handlers, logger.propagate = [listener], False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the card's YAML, mostly: in the server's words
                yield
        finally:
            logger.handlers, logger.propagate = handlers, propagates
            if bars:
                enable_progress_bars()
