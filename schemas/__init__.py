"""Every Arrow schema, declared once, each column with a sentence about it."""

from .results import RESULT_TEXT, RESULTS, part_schema, result_schema
from .rows import COLUMNS, VIEW_TEXT, row_schema

__all__ = ["COLUMNS", "RESULTS", "RESULT_TEXT", "VIEW_TEXT", "part_schema", "result_schema", "row_schema"]
