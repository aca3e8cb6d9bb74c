"""Networks as their int8 files compute them, for training that gets used to it."""
