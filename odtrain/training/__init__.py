"""Batches, targets, losses, and the loop."""
