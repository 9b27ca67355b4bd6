"""Training of adapters on rows of a declaration: `caef-data train`, and the tokens that any trainer should use."""
