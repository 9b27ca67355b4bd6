"""Turing machines in formats that people have them in, as tables of rules.

>>> table, example = read_table("bbchallenge", "1RB1LB_1LA1RZ", "here")
>>> table.states
('A', 'B', 'Z')
"""

from ...errors import did_you_mean, quoted
from .rules import RuleTable, TableWriter

FORMATS = ("turingmachine.io", "bbchallenge", "jflap", "turingmachinesimulator")
LARGEST = 5_000_000  # characters


def read_table(format: str, text: str, where: str) -> tuple[RuleTable, str | None]:
    """Return the machine of a text in one of ``FORMATS``, and the example that it states, if that is an input word.

    A blank that is white space is written ``_``. Raises UserError where the text, which messages call ``where``, is no
    machine in the format.
    """
    from . import jflap, lines, turingmachine_io  # inside: every command imports this file

    writer, largest = TableWriter(where), f"{LARGEST:,} characters at most"
    what = f"unknown format {quoted(format)}{did_you_mean(str(format)[:60], FORMATS)}"
    writer.require(format in FORMATS, what, None, ", ".join(FORMATS))
    writer.require(len(text) <= LARGEST, "this text is too large", None, largest)
    readers = (turingmachine_io.read, lines.bbchallenge, jflap.read, lines.turingmachinesimulator)
    return writer.table(dict(zip(FORMATS, readers, strict=True))[format](text.removeprefix("\ufeff"), writer))
