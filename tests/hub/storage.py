"""Where file contents come in and go out: LFS, Xet tokens, and ``resolve``."""

import hashlib
import re
import time
from typing import Any
from urllib.parse import quote

from .access import readable, writable
from .repo import Blob, Repo
from .wire import Answer, Refusal, Request, endpoint
from .xet import read_xet_file

LFS = r"/datasets/{repo}\.git/info/lfs/objects"
STORE = r"/storage/(?P<secret>\w+)"  # no token is asked for here: the address itself is the permission
OID = r"(?P<oid>[0-9a-f]{64})"


def find_blob(request: Request, repo: Repo, oid: str) -> Blob | None:
    """Return the bytes that were uploaded as ``oid``, fetching them from the Xet store if they went there."""
    if oid not in repo.blobs or repo.blobs[oid].sha256 != oid:  # a damaged copy: look for a better one
        found = read_xet_file(request.hub.cas, oid)
        if found is not None:
            data, xet_hash = found
            stored = request.received(data)
            repo.blobs[oid] = Blob(stored, xet_hash if stored == data else None)
    return repo.blobs.get(oid)


@endpoint("lfs-batch", "POST", f"{LFS}/batch")
def lfs_batch(request: Request, repo: str) -> Any:
    asked, hub = request.json(), request.hub
    found = writable(request, repo)
    objects = []
    for one in asked["objects"]:
        oid, size = one["oid"], one["size"]
        objects.append({"oid": oid, "size": size})
        if oid in found.blobs and found.blobs[oid].sha256 == oid:
            continue  # stored already; a damaged copy is asked for again
        where, header = f"{hub.storage_url}/{{}}/{repo}/{oid}", {}
        upload = {"href": where.format("put")}
        if hub.multipart_from is not None and size >= hub.multipart_from and "multipart" in asked["transfers"]:
            parts = -(-size // hub.part_size)
            header = {str(part): f"{where.format('part')}/{part}" for part in range(1, parts + 1)}
            upload = {"href": where.format("complete"), "header": {"chunk_size": str(hub.part_size), **header}}
            found.parts[oid] = {}
        verify = {"href": f"{hub.url}/datasets/{repo}.git/info/lfs/objects/verify"}
        objects[-1]["actions"] = {"upload": upload, "verify": verify}
    return {"transfer": "basic", "objects": objects}


@endpoint("lfs-verify", "POST", f"{LFS}/verify")
def lfs_verify(request: Request, repo: str) -> Any:
    found, asked = writable(request, repo), request.json()
    blob = found.blobs.get(asked["oid"])
    if blob is None or len(blob.data) != asked["size"]:
        raise Refusal(422, "this file did not arrive whole")
    return {}


def _stored(request: Request, secret: str, repo: str) -> Repo:
    if secret != request.hub.secret or repo not in request.hub.repos:
        raise Refusal(403, "this address was not signed")
    return request.hub.repos[repo]


@endpoint("lfs-put", "PUT", rf"{STORE}/put/{{repo}}/{OID}")
def lfs_put(request: Request, secret: str, repo: str, oid: str) -> Any:
    _stored(request, secret, repo).blobs[oid] = Blob(request.received(request.body))
    return Answer()


@endpoint("lfs-part", "PUT", rf"{STORE}/part/{{repo}}/{OID}/(?P<part>\d+)")
def lfs_part(request: Request, secret: str, repo: str, oid: str, part: str) -> Any:
    data = request.received(request.body)
    _stored(request, secret, repo).parts[oid][int(part)] = data
    return Answer(headers={"ETag": _part_etag(data)})


def _part_etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@endpoint("lfs-complete", "POST", rf"{STORE}/complete/{{repo}}/{OID}")
def lfs_complete(request: Request, secret: str, repo: str, oid: str) -> Any:
    found = _stored(request, secret, repo)
    asked = {one["partNumber"]: one["etag"] for one in request.json()["parts"]}
    parts = found.parts.get(oid, {})
    if oid in found.blobs and not parts:
        return {}  # asked twice: the first answer was lost
    if sorted(asked) != [*range(1, len(asked) + 1)] or asked != {n: _part_etag(data) for n, data in parts.items()}:
        raise Refusal(400, "the parts are not those that were uploaded")
    found.blobs[oid] = Blob(b"".join(parts[part] for part in sorted(parts)))
    del found.parts[oid]
    return {}


@endpoint("xet-write-token", "GET", r"/api/datasets/{repo}/xet-write-token/{rev}")
def xet_write_token(request: Request, repo: str, rev: str) -> Any:
    writable(request, repo).resolve(rev)
    return _xet_token(request)


@endpoint("xet-read-token", "GET", r"/api/datasets/{repo}/xet-read-token/{rev}")
def xet_read_token(request: Request, repo: str, rev: str) -> Any:
    readable(request, repo).resolve(rev)
    return _xet_token(request)


def _xet_token(request: Request) -> Answer:
    url, expires = f"local://{request.hub.cas}", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
    return Answer({"casUrl": url, "accessToken": "xet", "exp": expires}, headers=headers)


def _resolve(request: Request, repo: str, rev: str, path: str) -> Answer:
    found = readable(request, repo)
    if found.gated:
        raise Refusal(403, f"Access to {repo} is restricted and you are not in the authorized list.", "GatedRepo")
    commit = found.resolve(rev)
    named = {"X-Repo-Commit": commit.oid}
    if path not in commit.tree:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers=named)
    entry = commit.tree[path]
    if not entry.large:
        return _ranged(request, entry.blob.data, {**named, "ETag": f'"{entry.oid}"'})
    linked = {"X-Linked-ETag": f'"{entry.blob.sha256}"', "X-Linked-Size": str(len(entry.blob.data))}
    if entry.blob.xet:
        refresh = f"{request.hub.url}/api/datasets/{repo}/xet-read-token/{commit.oid}"
        linked |= {"X-Xet-Hash": entry.blob.xet, "Link": f'<{refresh}>; rel="xet-auth"'}
    where = f"{request.hub.storage_url}/get/{repo}/{commit.oid}/{quote(path)}"
    return Answer(b"", 302, {**named, **linked, "Location": where})


endpoint("resolve-head", "HEAD", r"(?:/datasets)?/{repo}/resolve/{rev}/{path}")(_resolve)
endpoint("resolve", "GET", r"(?:/datasets)?/{repo}/resolve/{rev}/{path}")(_resolve)


def _get(request: Request, secret: str, repo: str, rev: str, path: str) -> Answer:
    blob = _stored(request, secret, repo).commits[rev].tree[path].blob
    return _ranged(request, blob.data, {"ETag": f'"{blob.sha256}"'})


endpoint("storage-head", "HEAD", rf"{STORE}/get/{{repo}}/{{rev}}/{{path}}")(_get)
endpoint("storage", "GET", rf"{STORE}/get/{{repo}}/{{rev}}/{{path}}")(_get)


def _ranged(request: Request, data: bytes, headers: dict[str, str]) -> Answer:
    headers = {**headers, "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if asked is None or not any(asked.groups()):
        return Answer(data, headers=headers)
    first, last = asked.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= end:
        raise Refusal(416, "no such range", headers={"Content-Range": f"bytes */{len(data)}"})
    return Answer(data[start:end], 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
