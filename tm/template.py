"""Text templates over named parts, written once and filled twice: for one configuration and for columns of them."""

import re
from collections.abc import Mapping
from functools import cached_property

_FIELD = re.compile(r"\{(\w+)\}")


class Template:
    """Literal text with ``{name}`` fields; the step machines fill the same text with ``str.format_map``.

    Args:
        source: the text; ``{name}`` stands for a part, anything else for itself.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def __add__(self, other: "Template") -> "Template":
        return Template(self.source + other.source)

    @cached_property
    def pieces(self) -> tuple[tuple[str, str], ...]:
        """The template as (literal, field name) pairs in order; the last pair may have an empty name."""
        found, at = [], 0
        for match in _FIELD.finditer(self.source):
            found.append((self.source[at : match.start()], match.group(1)))
            at = match.end()
        return (*found, (self.source[at:], ""))


def called(line: str, title: str, state: str, parts: Mapping[str, str]) -> str:
    """Fill a state line; registers that hold nothing yet are left empty."""
    return re.sub(r"\{(\w+)\}", lambda found: {"title": title, "state": state, **parts}.get(found[1], ""), line)
