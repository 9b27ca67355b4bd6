"""Turing machines in formats that people have them in, as tables of rules.

>>> table, example = read_table("bbchallenge", "1RB1LB_1LA1RZ", "here")
>>> table.states
('A', 'B', 'Z')
"""

import re

from ...errors import UserError, did_you_mean, quoted
from . import bbchallenge, jflap, turingmachine_io, turingmachinesimulator
from .rules import RuleTable, TableWriter

READERS = {
    "turingmachine.io": turingmachine_io.read,
    "bbchallenge": bbchallenge.read,
    "jflap": jflap.read,
    "turingmachinesimulator": turingmachinesimulator.read,
}
FORMATS = tuple(READERS)
LARGEST = 20_000_000  # characters


def read_table(format: str, text: str, where: str) -> tuple[RuleTable, str | None]:
    """Return the machine of a text and the example word that it states, if the format has one.

    Symbols of the word stand side by side, or with blanks between them where one has several characters. A blank of
    the machine that is white space is written ``_`` in both.

    Args:
        format: one of ``FORMATS``.
        text: what the user wrote, or a file holds.
        where: names the text in messages.

    Raises:
        UserError: an unknown format, or a text that is no machine in it.
    """
    if format not in READERS:
        what = f"unknown format {quoted(format)}{did_you_mean(str(format)[:60], FORMATS)}"
        raise UserError(what, where=where, allowed=", ".join(FORMATS))
    if len(text) > LARGEST:
        raise UserError(f"a text of {len(text):,} characters", where=where, allowed=f"{LARGEST:,} characters at most")
    if wrong := re.search("[\0\ud800-\udfff]", text):
        raise UserError(f"the text holds {quoted(wrong[0])}", where=where, allowed="a text in UTF-8 without NUL")
    writer = TableWriter(where)
    return writer.table(READERS[format](text.removeprefix("\ufeff"), writer))
