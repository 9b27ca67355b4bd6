"""Text templates over named parts, written once and filled twice: for one configuration and for columns of them."""

import re
from collections.abc import Mapping
from functools import cached_property

_FIELD = re.compile(r"\{(\w+)\}")


class Template:
    """Literal text with ``{name}`` fields.

    Args:
        source: the text; ``{name}`` stands for a part, anything else for itself.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    def __add__(self, other: "Template") -> "Template":
        return Template(self.source + other.source)

    def fill(self, parts: Mapping[str, str]) -> str:
        """Return the text with every field replaced; raises KeyError for a part that is not given."""
        return self._format.format_map(parts)

    @cached_property
    def _format(self) -> str:
        return self.source  # str.format_map reads the same notation; machine texts hold no braces of their own

    @cached_property
    def pieces(self) -> tuple[tuple[str, str], ...]:
        """The template as (literal, field name) pairs in order; the last pair may have an empty name."""
        found, at = [], 0
        for match in _FIELD.finditer(self.source):
            found.append((self.source[at : match.start()], match.group(1)))
            at = match.end()
        return (*found, (self.source[at:], ""))
