"""Trainings that answer a question about the data: which labels are doubtful, how many pictures are enough."""
