"""What clients are asked to do: functions for ``Client.call``. Their source travels, so each imports what it needs."""

from typing import Any


def push(name: str, folder: str) -> str:
    from pathlib import Path

    from huggingface_hub import CommitOperationAdd, HfApi

    api, here = HfApi(), {"repo_id": name, "repo_type": "dataset"}
    files = [CommitOperationAdd(str(path.relative_to(folder)), path) for path in sorted(Path(folder).rglob("*.*"))]
    head = api.repo_info(**here).sha
    return api.create_commit(operations=files, commit_message="push", parent_commit=head, num_threads=2, **here).oid


def commit(name: str, files: dict[str, str | None], **options: Any) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    operations = [
        CommitOperationDelete(path) if text is None else CommitOperationAdd(path, text.encode())
        for path, text in files.items()
    ]
    here = {"repo_id": name, "repo_type": "dataset", "operations": operations, "commit_message": "change"}
    made = HfApi().create_commit(**here, **options)
    return made.pr_revision or made.oid


def api(method: str, name: str, **arguments: Any) -> Any:
    from huggingface_hub import HfApi

    answer = getattr(HfApi(), method)(repo_id=name, repo_type="dataset", **arguments)
    return list(answer) if hasattr(answer, "__next__") else answer


def whoami(token: str | bool) -> Any:
    from huggingface_hub import HfApi

    return HfApi().whoami(token)


def post(path: str, lines: list[Any]) -> int:
    import json

    from huggingface_hub import constants, get_session, get_token

    content = "\n".join(map(json.dumps, lines))
    headers = {"Authorization": f"Bearer {get_token()}"}
    return get_session().post(constants.ENDPOINT + path, content=content, headers=headers).status_code


def tree(name: str, revision: str) -> dict[str, str]:
    from huggingface_hub import HfApi

    nodes = HfApi().list_repo_tree(name, repo_type="dataset", revision=revision, recursive=True)
    return {node.path: node.lfs.sha256 if node.lfs else node.blob_id for node in nodes if hasattr(node, "size")}


def download(name: str, path: str) -> str:
    import hashlib
    from pathlib import Path

    from huggingface_hub import hf_hub_download

    there = hf_hub_download(name, path, repo_type="dataset", force_download=True)
    return hashlib.sha256(Path(there).read_bytes()).hexdigest()


def load(name: str, revision: str, streaming: bool) -> dict[str, list[int]]:
    import datasets

    loaded = datasets.load_dataset(name, "a", revision=revision, streaming=streaming)
    return {split: [row["x"] for row in rows] for split, rows in loaded.items()}


def leave(kind: str) -> None:
    import socket

    if kind == "connect":
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    else:
        socket.getaddrinfo("example.invalid", 80)
