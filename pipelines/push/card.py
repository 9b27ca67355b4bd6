"""The card that a push leaves at its target: our part from the manifest, the rest from whoever changed it last.

What a push takes from the folder is noted in the manifest there, as a digest under ``card``, so that a later push can
tell who has changed a card since; where it is not noted, nobody had written anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..card import first_card
from ..card_merge import Card, UnmarkedError, appended, conflict, without_examples
from ..local_folder import LocalFolder
from ..manifest import CARD, MANIFEST, json_bytes
from .dataset import Dataset

TAKEN = "card"  # the key of the manifest
BOTH = (
    f"keep a copy of your {CARD}, put the one from there in its place and push; then write your changes into it"
    " and push once more"
)


def settled(dataset: Dataset, there: bytes | None, manifest_there: Mapping[str, Any], where: str) -> Dataset:
    """Return the dataset with the card that shall lie at the target, and a manifest that notes where it is from.

    Args:
        dataset: the dataset, with the card of its folder.
        there: the card at the target, if there is one.
        manifest_there: the manifest there; empty without one.
        where: names the target's card in messages.

    Raises:
        UserError: a person changed the card here and there, or the one there holds no part of ours.
    """
    mine, untouched, taken = Card.of(dataset.card), Card.of(dataset.untouched).person, manifest_there.get(TAKEN)
    from_here = dataset.card, mine.person if mine.person != untouched else None
    if there is None:
        return _with(dataset, *from_here)
    try:
        text = there.decode("utf-8")
        theirs = Card.of(text)
    except UnicodeDecodeError:
        raise conflict("it is no UTF-8 text", where) from None
    except UnmarkedError as error:
        if manifest_there and without_examples(text) == _first(manifest_there):
            return _with(dataset, *from_here)
        if manifest_there or mine.person != untouched:
            raise conflict(str(error), where) from None
        return _with(dataset, appended(text, dataset.card), None)
    if theirs.person == mine.person:
        return _with(dataset, *from_here)
    if mine.person in (untouched, taken):
        return _with(dataset, theirs.renewed(mine).text, taken)
    if theirs.person in (untouched, taken):
        return _with(dataset, *from_here)
    raise conflict(f"it was changed there, and the {CARD} of the folder as well", where, BOTH)


def _first(manifest: Mapping[str, Any]) -> str:
    """Return what caef-data 0.1.0 wrote for a manifest; the rows that it showed are not at hand."""
    return without_examples(first_card(dict(manifest), LocalFolder(Path(os.devnull))))


def _with(dataset: Dataset, card: str, taken: object) -> Dataset:
    manifest = {key: value for key, value in dataset.manifest.items() if key != TAKEN}
    texts = {CARD: card.encode(), MANIFEST: json_bytes({**manifest, **({TAKEN: taken} if taken else {})})}
    return replace(dataset, texts=texts)
