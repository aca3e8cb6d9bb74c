"""Names to try until one is free."""

from itertools import islice
from pathlib import Path

from odtrain.io.free_names import numbered


def test_a_name_comes_first_as_it_is_and_then_with_numbers_behind_its_stem():
    names = [str(name) for name in islice(numbered(Path("a/cat.1.jpg")), 3)]
    assert names == ["a/cat.1.jpg", "a/cat.1-2.jpg", "a/cat.1-3.jpg"]
