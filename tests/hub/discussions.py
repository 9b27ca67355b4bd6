"""Discussions and pull requests."""

from typing import Any

from .access import readable, whom, writable
from .repo import Discussion, Repo
from .wire import Refusal, Request, endpoint

HERE = r"/api/datasets/{repo}/discussions"
PAGE = 10


def _summary(repo: Repo, one: Discussion) -> dict[str, Any]:
    return {
        "num": one.num,
        "title": one.title,
        "author": {"name": one.author, "type": "user"},
        "createdAt": one.created,
        "status": one.status,
        "isPullRequest": one.is_pull_request,
        "repo": {"name": repo.name, "type": "dataset"},
    }


@endpoint("discussions", "GET", HERE)
def discussions(request: Request, repo: str) -> Any:
    found, asked = readable(request, repo), request.query
    wanted = []
    for one in reversed(found.discussions):
        kind = "pull_request" if one.is_pull_request else "discussion"
        status = "closed" if one.status in ("closed", "merged") else "open"  # the filter knows only these
        if asked.get("type", "all") in ("all", kind) and asked.get("status", "all") in ("all", status):
            if asked.get("author", one.author) == one.author:
                wanted.append(_summary(found, one))
    start = int(asked.get("p", 0)) * PAGE
    return {"discussions": wanted[start : start + PAGE], "count": len(wanted), "start": start}


@endpoint("create-discussion", "POST", HERE)
def create_discussion(request: Request, repo: str) -> Any:
    found, asked = writable(request, repo, pull_request=True), request.json()
    if not 3 <= len(asked["title"]) <= 200:
        raise Refusal(400, "a title has 3 to 200 characters")
    pull = bool(asked.get("pullRequest"))
    author, status = whom(request).user, "draft" if pull else "open"
    made = found.open_discussion(asked["title"], author, status, target="main" if pull else None)
    text = {"edited": False, "hidden": False, "latest": {"raw": asked.get("description", "")}}
    made.event("comment", text, author)
    return {"num": made.num, "url": f"{request.hub.url}/datasets/{repo}/discussions/{made.num}"}


@endpoint("discussion", "GET", rf"{HERE}/(?P<num>\d+)")
def discussion(request: Request, repo: str, num: str) -> Any:
    found = readable(request, repo)
    one = found.discussion(int(num))
    details = {**_summary(found, one), "events": one.events}
    if one.is_pull_request:
        merged = {} if one.merge_oid is None else {"mergeCommitId": one.merge_oid}
        conflicts = found.conflicts(one) if one.merge_oid is None else []
        details |= {
            "changes": {"base": f"refs/heads/{one.target}", **merged},
            "filesWithConflicts": conflicts,
            "diff": "",
        }
    return details


@endpoint("discussion-status", "POST", rf"{HERE}/(?P<num>\d+)/status")
def discussion_status(request: Request, repo: str, num: str) -> Any:
    found, status, author = writable(request, repo), request.json()["status"], whom(request).user
    one = found.discussion(int(num))
    if status not in ("open", "closed") or one.status in (status, "merged"):
        raise Refusal(400, f"this discussion is {one.status}; it cannot become {status}")
    return {"newStatus": one.change_status(status, author)}


@endpoint("merge", "POST", rf"{HERE}/(?P<num>\d+)/merge")
def merge(request: Request, repo: str, num: str) -> Any:
    found = writable(request, repo)
    found.merge(found.discussion(int(num)), whom(request).user)
    return {}
