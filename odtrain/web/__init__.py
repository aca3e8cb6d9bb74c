"""Pages and REST that odtrain serves."""
