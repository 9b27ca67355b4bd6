"""``python -m caef_data``: the command line."""

from .cli import run

run()
