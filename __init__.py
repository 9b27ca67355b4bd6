"""caef-data: exact, leak-free datasets of arithmetic executed as Turing machines (CAEF, arXiv 2410.07896)."""

__version__ = "0.1.0"
