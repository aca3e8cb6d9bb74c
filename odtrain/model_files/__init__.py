"""Exported files: what they carry, and how each is opened and run."""
