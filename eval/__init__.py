"""Evaluates adapters: model calls and their verdicts, result tables, SQL over them, a report."""
