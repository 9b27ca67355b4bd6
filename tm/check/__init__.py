"""A second account of the nine machines, by another method: every text in closed form, from Python integers.

``entries`` computes prompt and completion of any step; ``pipelines.verify_rows`` compares rows with them. Nothing here
imports the machines, the engine, their templates or the renderer (tests/test_check.py).
"""
