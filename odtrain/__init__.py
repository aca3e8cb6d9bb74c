"""odtrain: from labelled pictures to a registered object detector in one tracked command."""

__version__ = "0.1.0"
