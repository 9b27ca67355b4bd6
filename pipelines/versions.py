"""Version constants that are part of every identity.

They change only together with a line in CHANGELOG.md: rows built before and after such a change do not mix.
"""

TEXT_VERSION = 1  # the text of states, commands, aligner and instruction: any byte of a prompt or completion
SPLIT_VERSION = 1  # the split function: which expressions are train, test and reserved for stress
SAMPLING_VERSION = 1  # classes, counts, operand laws, steps kept, row order, and how rows are cut into shards


def rules() -> dict[str, int]:
    """Return the version constants that every identity covers."""
    return {"text": TEXT_VERSION, "split": SPLIT_VERSION, "sampling": SAMPLING_VERSION}


def built_with() -> dict[str, str]:
    """Return the packages that the bytes of a shard depend on, with their versions."""
    import numpy
    import pyarrow

    from .. import __version__

    return {"caef_data": __version__, "numpy": numpy.__version__, "pyarrow": pyarrow.__version__}
