"""Detectors that were trained elsewhere: their files, and what their pictures and outputs mean."""
