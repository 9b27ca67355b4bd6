"""Turing machines in formats that people have them in, as tables of rules.

>>> table, example = read_table("bbchallenge", "1RB1LB_1LA1RZ", "here")
>>> table.states
('A', 'B', 'Z')
"""

import re

from ...errors import UserError, did_you_mean, quoted
from . import jflap, lines, turingmachine_io
from .rules import RuleTable, TableWriter

READERS = {
    "turingmachine.io": turingmachine_io.read,
    "bbchallenge": lines.bbchallenge,
    "jflap": jflap.read,
    "turingmachinesimulator": lines.turingmachinesimulator,
}
FORMATS = tuple(READERS)
LARGEST = 20_000_000  # characters


def read_table(format: str, text: str, where: str) -> tuple[RuleTable, str | None]:
    """Return the machine of a text in one of ``FORMATS``, and the example word that it states, if it does.

    Symbols of the word stand side by side, or with blanks between them where one has several characters. A blank of
    the machine that is white space is written ``_`` in both. Raises UserError where the text, which messages call
    ``where``, is no machine in the format.
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
