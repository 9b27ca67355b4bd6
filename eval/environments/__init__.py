"""Rows as tasks of reinforcement learning and of other libraries' evaluations."""
