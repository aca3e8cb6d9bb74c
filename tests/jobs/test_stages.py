"""Where the time of a job went."""

from odtrain.jobs.stages import stages_in_words


def test_the_stages_and_their_sum_in_a_line():
    assert stages_in_words({"prepare": 3.6, "train": 130.2}) == (
        "It took 2 min: prepare 4 s, train 2 min."
    )
