"""How much the tests do that can do less: ``make test-all`` sets CAEF_DATA_LONG_TESTS=1, for all of it."""

import os

LONG = os.environ.get("CAEF_DATA_LONG_TESTS") == "1"


def examples(few: int, many: int) -> int:
    """Return the number of hypothesis's examples."""
    return many if LONG else few
