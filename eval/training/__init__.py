"""Training of adapters on rows of a declaration: `caef-data train`."""
