"""Processes, threads and what the machine does meanwhile."""
