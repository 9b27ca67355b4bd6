"""The Hub's API: who is asking, repositories, commits, branches, tags, listings."""

import base64
import binascii
import json
from fnmatch import fnmatch
from typing import Any
from urllib.parse import parse_qs, urlencode

from .access import readable, whom, writable
from .card import check_card
from .repo import Blob, Entry, Repo
from .storage import find_blob
from .wire import Answer, Refusal, Request, endpoint

API = "/api/datasets/{repo}"
READ = "/api/(?:datasets|models)/{repo}"


@endpoint("whoami", "GET", "/api/whoami-v2")
def whoami(request: Request) -> Any:
    token = whom(request)
    if token is None:
        raise Refusal(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": org, "roleInOrg": "write"} for org in token.orgs]
    access = {"displayName": "test", "role": token.role, "createdAt": "2024-01-01T00:00:00.000Z"}
    auth = {"type": "access_token", "accessToken": access}
    return {"type": "user", "name": token.user, "fullname": token.user, "orgs": orgs, "auth": auth}


@endpoint("create-repo", "POST", "/api/repos/create")
def create_repo(request: Request) -> Any:
    asked, token = request.json(), whom(request)
    if token is None:
        raise Refusal(401, "Invalid username or password.")
    namespace = asked.get("organization") or token.user
    name = f"{namespace}/{asked['name']}"
    if asked.get("type") != "dataset":
        raise Refusal(400, "this server has datasets only")
    if not token.can_write(namespace):
        raise Refusal(403, f"You don't have the rights to create a dataset under the namespace {namespace!r}")
    url = f"{request.hub.url}/datasets/{name}"
    if name in request.hub.repos:
        raise Refusal(409, "You already created this dataset repo", body={"error": "already created", "url": url})
    request.hub.add_repo(name, private=asked.get("visibility") == "private")
    return {"url": url, "name": name, "id": name}


@endpoint("validate-yaml", "POST", "/api/validate-yaml")
def validate_yaml(request: Request) -> Any:
    errors, warnings = check_card(request.json()["content"])
    body = {name: [{"message": one} for one in found] for name, found in (("errors", errors), ("warnings", warnings))}
    if errors:
        raise Refusal(400, "Invalid metadata in README.md", body={"error": "Invalid metadata in README.md", **body})
    return body


@endpoint("auth-check", "GET", rf"{API}/auth-check(?P<write>/write)?")
def auth_check(request: Request, repo: str, write: str | None) -> Any:
    _ = writable(request, repo) if write else readable(request, repo)
    return {}


@endpoint("info", "GET", rf"{READ}(?:/revision/(?P<rev>[^/]+))?")
def info(request: Request, repo: str, rev: str | None) -> Any:
    found = readable(request, repo)
    commit = found.resolve(rev or "main")
    siblings: list[dict[str, Any]] = []
    for path, entry in commit.tree.items():
        siblings.append({"rfilename": path})
        if "blobs" in request.query:
            node = entry.node(path)
            lfs = {"sha256": node["lfs"]["oid"], **node["lfs"]} if entry.large else None
            siblings[-1].update({"size": node["size"], "blobId": node["oid"], **({"lfs": lfs} if lfs else {})})
    times = {"createdAt": found.created, "lastModified": commit.date}
    who = {"id": repo, "author": repo.split("/")[0], "sha": commit.oid, "private": found.private}
    return {
        **who,
        **times,
        "gated": "manual" if found.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    }


@endpoint("refs", "GET", f"{READ}/refs")
def refs(request: Request, repo: str) -> Any:
    found = readable(request, repo)

    def listed(names: dict[str, str], start: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": start + name, "targetCommit": oid} for name, oid in names.items()]

    heads, tags = listed(found.branches, "refs/heads/"), listed(found.tags, "refs/tags/")
    return {"branches": heads, "tags": tags, "converts": []}


@endpoint("commits", "GET", rf"{API}/commits/{{rev}}")
def commits(request: Request, repo: str, rev: str) -> Any:
    return [
        {"id": c.oid, "title": c.summary, "message": c.description, "date": c.date, "authors": [{"user": c.author}]}
        for c in readable(request, repo).resolve(rev).history
    ]


@endpoint("tree", "GET", rf"{READ}/tree/{{rev}}(?:/{{path}})?")
def tree(request: Request, repo: str, rev: str, path: str | None) -> Any:
    recursive = request.query.get("recursive", "").lower() in ("true", "1")
    nodes = readable(request, repo).resolve(rev).folder((path or "").strip("/"), recursive)
    start = int(request.query.get("cursor", 0))
    end = start + request.hub.page_size
    headers = {}
    if end < len(nodes):
        following = urlencode({**request.query, "cursor": end})
        headers["Link"] = f'<{request.hub.url}{request.path}?{following}>; rel="next"'
    return Answer(nodes[start:end], headers=headers)


@endpoint("paths-info", "POST", rf"{READ}/paths-info/{{rev}}")
def paths_info(request: Request, repo: str, rev: str) -> Any:
    commit = readable(request, repo).resolve(rev)
    asked = [path.strip("/") for path in parse_qs(request.body.decode()).get("paths", [])]
    nodes = {node["path"]: node for node in commit.folder("", recursive=True)}
    return [nodes[path] for path in asked if path in nodes]


@endpoint("preupload", "POST", rf"{API}/preupload/{{rev}}")
def preupload(request: Request, repo: str, rev: str) -> Any:
    found = writable(request, repo)
    there, told = found.head(rev).tree, request.json()
    stored = there[".gitignore"].blob.data.decode() if ".gitignore" in there else ""
    patterns = told.get("gitIgnore", stored).splitlines()
    files = []
    for asked in told["files"]:
        path, size = asked["path"], asked["size"]
        large = size > 0 and (path.endswith(".parquet") or size >= request.hub.lfs_from)
        oid = there[path].etag if path in there else None
        ignored = any(fnmatch(path, pattern) for pattern in patterns)
        files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": ignored, "oid": oid})
    if len(files) > 256:
        raise Refusal(413, "more than 256 files")
    return {"files": files, "commitOid": found.head(rev).oid}


@endpoint("commit", "POST", rf"{API}/commit/{{rev}}")
def commit(request: Request, repo: str, rev: str) -> Any:
    found = writable(request, repo)
    try:
        (_, header), *operations = [(one["key"], one["value"]) for one in map(json.loads, request.body.splitlines())]
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, "the body is no commit") from None
    if len(operations) > request.hub.commit_limit:
        raise Refusal(400, f"more than {request.hub.commit_limit} operations in a commit")
    head, parent = found.head(rev), header.get("parentCommit")
    if parent and not head.oid.startswith(parent):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    entries = dict(head.tree)
    for key, value in operations:
        _apply(request, found, entries, key, value)
    author = whom(request).user
    title, answer = header["summary"], {"success": True, "hookOutput": ""}
    made = found.commit(rev, entries, summary=title, description=header.get("description", ""), author=author)
    return {**answer, "commitOid": made.oid, "commitUrl": f"{request.hub.url}/datasets/{repo}/commit/{made.oid}"}


def _apply(request: Request, repo: Repo, entries: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if path.startswith("/") or any(part in ("", ".", "..", ".git") for part in path.rstrip("/").split("/")):
        raise Refusal(400, f"invalid path: {path}")
    if key == "file":
        try:
            data = base64.b64decode(value["content"], validate=True)
        except binascii.Error:
            raise Refusal(400, f"{path} is no base64") from None
        if path == "README.md" and (errors := check_card(data.decode(errors="replace"))[0]):
            raise Refusal(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
        entries[path] = Entry(Blob(request.received(data)), large=False)
    elif key == "lfsFile":
        blob = find_blob(request, repo, value["oid"])
        if blob is None:
            raise Refusal(400, f"the content of {path} was never uploaded ({value['oid']})")
        entries[path] = Entry(blob, large=True)
    elif key in ("deletedFile", "deletedFolder"):
        start = path.rstrip("/") + "/"
        gone = [one for one in entries if (one == path if key == "deletedFile" else one.startswith(start))]
        if not gone:
            raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        for one in gone:
            del entries[one]
    else:
        raise Refusal(400, f"no such operation: {key}")


@endpoint("create-tag", "POST", rf"{API}/tag/{{rev}}")
def create_tag(request: Request, repo: str, rev: str) -> Any:
    found, tag = writable(request, repo), request.json()["tag"]
    target = found.resolve(rev)
    if tag in found.tags:
        raise Refusal(409, f"Tag {tag} already exists")
    found.tags[tag] = target.oid
    return {}


@endpoint("delete-tag", "DELETE", rf"{API}/tag/{{rev}}")
def delete_tag(request: Request, repo: str, rev: str) -> Any:
    if writable(request, repo).tags.pop(rev, None) is None:
        raise Refusal(404, f"Invalid rev id: {rev}", "RevisionNotFound")
    return {}


@endpoint("create-branch", "POST", rf"{API}/branch/{{rev}}")
def create_branch(request: Request, repo: str, rev: str) -> Any:
    found = writable(request, repo)
    if rev.startswith("refs/"):
        raise Refusal(400, f"invalid reference for a branch: {rev}")
    if rev in found.branches:
        raise Refusal(409, f"Reference {rev} already exists")
    found.branches[rev] = found.resolve(request.json().get("startingPoint") or "main").oid
    return {}


@endpoint("delete-branch", "DELETE", rf"{API}/branch/{{rev}}")
def delete_branch(request: Request, repo: str, rev: str) -> Any:
    found = writable(request, repo)
    if rev == "main" or rev.startswith("refs/"):
        raise Refusal(403, f"{rev} is protected")
    found.head(rev)
    del found.branches[rev]
    return {}
