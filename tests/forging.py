"""Forges datasets consistently: what is changed in rows is changed in the manifest and the card as well."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caef_data.pipelines.card import card
from caef_data.pipelines.manifest import json_bytes
from caef_data.pipelines.settings import TaskSettings, digest
from caef_data.pipelines.store import open_folder

Rows = list[dict[str, Any]]
Change = Callable[[Rows], Rows]


class Forger:
    """A built folder and the means to forge it.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        return found

    def save(self, manifest: dict[str, Any]) -> None:
        """Write a manifest, its card, and the identity of all its configs."""
        splits = [split for config in manifest["configs"].values() for split in config.values()]
        manifest["identity"] = digest(sorted(split["identity"] for split in splits))
        (self.path / "README.md").write_text(card(manifest, open_folder(self.path)))
        (self.path / "manifest.json").write_bytes(json_bytes(manifest))

    def settings(self, task: str, **changes: Any) -> None:
        """Change settings of a task, and all identities and commands that follow from them."""
        manifest = self.manifest()
        own = manifest["tasks"][task]
        own["settings"] |= changes
        settings = TaskSettings.of(own["settings"])
        own["identity"] = settings.identity()
        for name, splits in manifest["configs"].items():
            for split, entry in splits.items():
                if name.rpartition("-")[0] == task:
                    entry["identity"] = settings.config_identity(name.rpartition("-")[2], split)
        self.save(manifest)

    def rows(self, config: str, split: str) -> list[Rows]:
        return [pq.read_table(path).to_pylist() for path in sorted((self.path / config).glob(f"{split}-*"))]

    def change(self, config: str, split: str, change: Change) -> None:
        """Change the rows of every shard of a split."""
        self.write(config, split, [change(rows) for rows in self.rows(config, split)])

    def write(self, config: str, split: str, shards: list[Rows], schema: pa.Schema | None = None) -> None:
        """Write a split's shards and all that the manifest says of them."""
        paths = sorted((self.path / config).glob(f"{split}-*"))
        kept = schema or pq.read_schema(paths[0])
        for path in paths:
            path.unlink()
        held = []
        for number, rows in enumerate(shards):
            path = f"{config}/{split}-{number:05}-of-{len(shards):05}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema=kept), self.path / path, compression="zstd")
            held.append({"path": path, "rows": len(rows), **self.measured(path)})
            held[-1]["chars"] = {name: sizes(rows, name) for name in ("prompt", "completion")}
        manifest = self.manifest()
        every = [row for rows in shards for row in rows]
        manifest["configs"][config][split] |= {
            "classes": len({(row["len_a"], row["len_b"]) for row in every}),
            "expressions": len({(row["a"], row["b"]) for row in every}),
            "rows": len(every),
            "bytes": sum(shard["bytes"] for shard in held),
            "shards": held,
            "chars": {
                name: {"mean": round(sizes(every, name)[0] / max(len(every), 1), 1), "max": sizes(every, name)[1]}
                for name in ("prompt", "completion")
            },
        }
        self.save(manifest)

    def measured(self, path: str) -> dict[str, Any]:
        content = (self.path / path).read_bytes()
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def sizes(rows: Rows, name: str) -> list[int]:
    """Return the characters of a column in all, and of its longest text."""
    found = [len(row[name]) for row in rows]
    return [sum(found), max(found, default=0)]
