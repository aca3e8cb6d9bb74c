"""A detector that plain int8 breaks."""

import pytest
from support.wide_range import NAMES, Case, small_detector, widen

from odtrain.export_formats import INT8


@pytest.fixture(scope="session")
def case():
    """A detector whose channels are spread far apart in two layers."""
    detector = small_detector()
    widen(detector)
    return Case.of(detector)


@pytest.fixture(scope="session")
def files(case, tmp_path_factory):
    """Its float32 file and the converter's own int8 file."""
    folder = tmp_path_factory.mktemp("export")
    for name in ("tflite_fp32", INT8):
        content = case.writer.content(name, NAMES, {**case.passport, "format": name})
        (folder / f"{name}.tflite").write_bytes(content)
    return folder
