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
from ..card_merge import NO_TEXT, SAVE, Card, UnmarkedError, appended, conflict, without_examples
from ..folder import Folder
from ..manifest import CARD, MANIFEST, TAKEN, json_bytes
from .dataset import Dataset


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
    mine, first, taken = Card.of(dataset.card), Card.of(dataset.untouched), manifest_there.get(TAKEN)
    wrote = mine.person != first.person
    from_here = _with(dataset, dataset.card, mine.person if wrote else None)
    if there is None:
        return from_here
    try:
        text = there.decode("utf-8")
        theirs = Card.of(text)
    except UnicodeDecodeError:
        raise conflict(NO_TEXT, where, SAVE) from None
    except UnmarkedError as error:
        # What caef-data 0.1.0 wrote is nobody's; the rows that it showed are not at hand.
        made = first_card(dict(manifest_there), Folder(Path(os.devnull))) if manifest_there else ""
        if manifest_there and without_examples(text) == without_examples(made):
            return from_here
        if manifest_there or wrote:
            raise conflict(str(error), where) from None
        return _with(dataset, appended(text, dataset.card), None, theirs=True)
    newer = _newer(mine, theirs, first, taken)
    if newer is None:
        same = manifest_there.get("identity") == dataset.identity
        rebuild = "" if same else ", build the folder again, which renews our part of it,"
        raise conflict(
            f"it was changed there, and the {CARD} of the folder as well",
            where,
            f"keep a copy of your {CARD}, put the one from there in its place{rebuild} and push; then write your"
            " changes into it",
        )
    return from_here if newer is mine else _with(dataset, theirs.renewed(mine).text, taken, theirs=True)


def _newer(mine: Card, theirs: Card, first: Card, taken: str | None) -> Card | None:
    """Return the card of whoever changed it last; None where nobody can tell.

    ``first`` is the card that nobody has edited, ``taken`` what a push noted at the target.
    """
    if theirs.person == mine.person:
        return mine
    if mine.person in (first.person, taken):
        return theirs
    if theirs.person == (taken or first.person) or (taken is None and mine.holds(theirs, first)):
        return mine
    # With a note it is not known what was removed since: its text is gone.
    return theirs if taken is None and theirs.holds(mine, first) else None


def _with(dataset: Dataset, card: str, taken: str | None, theirs: bool = False) -> Dataset:
    manifest = {key: value for key, value in dataset.manifest.items() if key != TAKEN}
    texts = {CARD: card.encode(), MANIFEST: json_bytes({**manifest, **({TAKEN: taken} if taken else {})})}
    return replace(dataset, texts=texts, notes={"card": "keeps what was written in it there"} if theirs else {})
