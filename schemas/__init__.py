"""Every Arrow schema, declared once, each column with a sentence about it."""

from .rows import COLUMNS, VIEW_TEXT, row_schema

__all__ = ["COLUMNS", "VIEW_TEXT", "row_schema"]
