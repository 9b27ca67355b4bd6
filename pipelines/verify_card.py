"""The part of a dataset card that is ours, against the manifest; the rest belongs to whoever edits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from .card import card, card_there, is_first_card
from .card_merge import OURS, Card, UnmarkedError, without_examples, without_place
from .folder import Folder
from .manifest import CARD
from .verify_shard import Finding

UNMARKED = ("0.1.0",)  # releases whose cards have no marks


def check_card(directory: Path, manifest: dict[str, Any], damaged: bool) -> tuple[list[Finding], list[str]]:
    """Return what is wrong with the card, and notes about it.

    Args:
        directory: the dataset's folder.
        manifest: its manifest.
        damaged: files are damaged: the rows shown as examples may not be there.
    """
    folder, by = Folder(directory), manifest["caef_data"]
    try:
        text = card_there(folder)
    except UserError as error:
        return [_wrong(error.what)], []
    if text is None:
        return [_wrong("is missing")], []
    ours = card(manifest, folder)
    try:
        there = Card.of(text)
    except UnmarkedError as error:
        if by not in UNMARKED:
            return [_wrong(str(error))], []
        changed = "" if is_first_card(text, manifest, folder) else ", edited since"
        return [], [f"{CARD} is a card of caef-data {by}{changed}: the next build into the folder renews it"]
    right, found = Card.of(ours), []
    for key in OURS:
        if there.values.get(key) != right.values.get(key):
            found.append(_wrong(f"{key} in its YAML is not what the manifest gives"))
    same = without_examples if damaged else without_place
    if same(there.block) != same(right.block):
        if by != __version__:
            return found, [f"{CARD} was written by caef-data {by}: its text is not compared with the manifest"]
        found.append(_wrong("the part between the marks is not what the manifest gives"))
    return found, []


def _wrong(message: str) -> Finding:
    return Finding("card", CARD, None, message)
