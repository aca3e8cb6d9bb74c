"""Registered versions: written, found, described, run by MLflow."""
