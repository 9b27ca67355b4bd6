"""Publishes a built folder: to the Hugging Face Hub, or to any store that fsspec reaches."""
