"""What the operating system refuses, as errors that say what to do."""

from __future__ import annotations

import errno
import os

import pytest

from odtrain.errors import CheckpointError, DataError, os_remedy, told_if_not_written


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space on that disk, or set output to a folder on another one."),
        (errno.EDQUOT, "Free space in your quota, or set output to a folder elsewhere."),
        (errno.EACCES, "Set output to a folder that you may write to."),
        (errno.EROFS, "Set output to a folder that you may write to."),
        (errno.ENOENT, None),
    ],
)
def test_what_to_do_follows_from_what_was_refused(number, remedy):
    assert os_remedy(OSError(number, ""), "set output to a folder") == remedy


def test_the_file_is_named_where_it_is_known():
    with pytest.raises(DataError) as caught, told_if_not_written("folder", "Do."):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "folder/file")
    assert str(caught.value) == "folder/file: cannot be written: No space left on device.\n  Do."


def test_what_to_do_may_depend_on_the_error_and_the_kind_is_the_callers():
    with (
        pytest.raises(CheckpointError) as caught,
        told_if_not_written("folder", lambda error: f"Number {error.errno}.", CheckpointError),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert str(caught.value) == "folder: cannot be written: Input/output error.\n  Number 5."
