"""Which expressions and which of their steps a dataset holds: classes, splits, distributions of operands, stress."""
