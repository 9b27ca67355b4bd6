"""Who may see and change what, and what the others are told."""

import re
from typing import Any

from .repo import Repo
from .wire import Refusal, Request


def whom(request: Request) -> Any:
    """Return the token that a request came with, or None.

    Raises:
        Refusal: it came with one that nobody has.
    """
    if request.token is None:
        return None
    if request.token not in request.hub.tokens:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return request.hub.tokens[request.token]


def readable(request: Request, name: str) -> Repo:
    """Return a repository that the client may see; what it may not see is not there.

    Raises:
        Refusal: 404, or 401 to those who did not say who they are.
    """
    token, repo = whom(request), request.hub.repos.get(name)
    kind = "dataset" if re.match("/(api/)?datasets/", request.path) else "model"
    if repo is None or repo.kind != kind or (repo.private and not (token and token.can_read(name.split("/")[0]))):
        raise Refusal(404 if token else 401, "Repository not found", "RepoNotFound")
    return repo


def writable(request: Request, name: str) -> Repo:
    """Return a repository that the client may change.

    Raises:
        Refusal: 401, 403 or 404.
    """
    repo, token = readable(request, name), whom(request)
    if token is None:
        raise Refusal(401, "Invalid username or password.")
    if not token.can_write(name.split("/")[0]):
        raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
    return repo
