"""Names of before, for the files that still use them."""

from .folder import FINISHED as FINISHED
from .folder import Folder as LocalFolder

__all__ = ["FINISHED", "LocalFolder"]
