"""``python -m caef_data``: the command line."""

from .process import run

run()
