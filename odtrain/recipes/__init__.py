"""Settings of a training chosen by its data and its machine."""
