"""Whole jobs, from a configuration to a tracked result."""
