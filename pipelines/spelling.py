"""How the user wrote settings, so that messages name them in the same way."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError, shell_quoted


def option(key: str) -> str:
    """Return the command line's option for a setting."""
    return {"splits": "--split", "views": "--view"}.get(key, "--" + key.replace("_", "-"))


def as_option(key: str, value: object) -> str:
    """Return a setting as one types it on the command line; lists repeat the option."""
    if isinstance(value, bool):
        return option(key) if value else f"--no-{key}"
    if isinstance(value, list | tuple):
        return " ".join(as_option(key, word) for word in value)
    plain = isinstance(value, str) and value.isascii() and value.replace("_", "").isalnum()
    return f"{option(key)} {value if plain else literal(value)}"


def as_toml(value: object) -> str:
    """Return a setting's value as TOML has it, a table in one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {as_toml(one)}' for key, one in sorted(value.items()))} }}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML has no pairs of escapes


def literal(value: object) -> str:
    """Return a value as JSON and TOML write it, short and safe to print whatever it holds."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"about 10^{int(value.bit_length() * 0.30103)}"
    try:
        text = json.dumps(value, default=str)
    except (ValueError, TypeError):  # a number of more than 4,300 digits inside, or a key that is no text
        return "a value that cannot be shown"
    return text if len(text) <= 80 else f"{text[:80]}..."


MOST_LINES = 4  # of a file that a message names: a key may stand in several tables


@dataclass(frozen=True)
class Spelling:
    """How the user wrote settings, for messages: as fields, as options, or as keys of a TOML file."""

    options: Mapping[str, object] | None = None
    """The settings that were given as options of the command line."""
    file: str | None = None
    """Name of the file; where options were given beside it, the other settings are its keys."""
    text: str = ""
    """What the file holds."""
    verb: str = "build"
    """The command that they are for; a file has a table of that name, but for a build."""

    def _typed(self, key: str) -> bool:
        return self.options is not None and (self.file is None or key in self.options)

    def name(self, key: str) -> str:
        """Return the name of a setting."""
        return option(key) if self._typed(key) else key

    def setting(self, key: str, value: object) -> str:
        """Return a setting with a value, as one would write it."""
        return as_option(key, value) if self._typed(key) else f"{key} = {literal(value)}"

    def where(self, *keys: str) -> str | None:
        """Return the place of those settings that were given; None where they were given in no file, nor as options."""
        if self.options is not None and any(map(self._typed, keys)):
            return " ".join(as_option(key, self.options[key]) for key in keys if key in self.options) or None
        if self.file is not None and self.verb != "build":
            return f"{self.file}, table [{self.verb}]"
        given = re.compile(rf"""\s*["']?({"|".join(map(re.escape, keys))})["']?\s*=""")
        lines = [str(number) for number, line in enumerate(self.text.split("\n"), 1) if given.match(line)][:MOST_LINES]
        return f"{self.file}, line{'s' * (len(lines) > 1)} {', '.join(lines)}" if lines else self.file

    def refusal(self, what: str, *keys: str, allowed: str, advice: str | None = None) -> UserError:
        """Return the error for settings that are refused; it names the place of those that were given."""
        if advice is None and any(map(self._typed, keys)):
            advice = f"caef-data {self.verb} --help"
        elif advice is None and (self.file or "").endswith(".toml"):
            then = f", then: caef-data plan {shell_quoted(str(self.file))}" if self.verb == "build" else ""
            advice = f"mend it there{then}"
        return UserError(what, where=self.where(*keys), allowed=allowed, next_step=advice)


PLAIN = Spelling()
