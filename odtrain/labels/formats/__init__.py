"""A module for each format of labels."""
