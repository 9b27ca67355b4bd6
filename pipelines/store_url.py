"""URLs of stores: which ones can hold a dataset, and what cannot be meant."""

from __future__ import annotations

import re

from ..errors import UserError, clip, shown

# Object stores: an object appears whole or not at all, which builds and pushes rely on; how to install their package.
INSTALL = {
    **dict.fromkeys(("s3", "s3a"), "pip install 'caef-data[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "pip install 'caef-data[s3]' gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "pip install 'caef-data[s3]' adlfs"),
}
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)", re.DOTALL)
SLIP = re.compile(r"(s3a?|gs|gcs|az|abfss?|file|hf):(/?[^/].*)?", re.DOTALL | re.IGNORECASE)
NOT_IN_PATHS = re.compile(r"[?*\[\]#\\]|::|[^ -~\u00a0-\U0010ffff]")  # queries, wildcards, chains, controls


def split_url(name: str) -> tuple[str, str] | None:
    """Return the kind of store of a URL, in lower case, and what follows ``://``; None for a path.

    Raises:
        UserError: it is a URL, but of no store that keeps what a dataset needs; or it holds a password.
    """
    match = URL.fullmatch(name)
    if match is None:
        if slip := SLIP.fullmatch(name):
            raise UserError(
                "this is neither a URL nor the name of a folder here",
                where=shown(name),
                allowed=f"{slip[1].lower()}://... with two slashes; ./{shown(name)} for a folder of this name",
            )
        return None
    kind, rest = match[1].lower(), match[2]
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if at and (":" in user or kind not in ("az", "abfs", "abfss")):  # Azure writes container@account
        raise UserError(
            "a URL must not hold a user name or password",
            where=f"{kind}://***@...",
            next_step="leave them out: they are taken from where the store's own tools take them (AWS_PROFILE, ...)",
        )
    if kind == "hf":
        raise UserError(
            "the Hub can be read here, not written or built into",
            where=shown(name),
            allowed="verify, info and eval --data read hf://datasets/user/name",
            next_step="build into a folder, then: caef-data push DIR --repo user/name",
        )
    if kind != "file" and kind not in INSTALL:
        raise UserError(
            f"{clip(match[1])} is no kind of store that can hold a dataset",
            where=shown(name),
            allowed="a folder, or a URL: s3://bucket/prefix, gs://..., az://..., file:///...",
        )
    parts = rest.rstrip("/").split("/")
    if kind == "file":
        if not rest.startswith("/") or not any(parts):
            raise UserError("this URL names no folder", where=shown(name), allowed="file:///a/folder")
    elif NOT_IN_PATHS.search(rest) or any(part in ("", ".", "..") for part in parts):
        raise UserError(
            "this cannot be the URL of a folder",
            where=shown(name),
            allowed=f"{kind}://bucket/prefix, without ? * [ ] # \\ :: and empty parts",
        )
    return kind, "/".join(parts)
