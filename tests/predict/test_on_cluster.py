"""Pictures of a folder, looked at by two processes of a Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.commands import odtrain
from support.pictures import SHAPES


@pytest.mark.long
def test_what_ray_finds_is_what_this_machine_finds(model, shapes, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in SHAPES:
        shutil.copy(shapes / name, pictures)
    (pictures / "broken.jpg").write_bytes(b"none")
    written = []
    for where, more in (("here", ()), ("there", ("cluster=ray", "cluster.workers=2"))):
        given = [f"source={model}", f"input={pictures}", f"output={tmp_path / where}"]
        done = odtrain(["predict", *given, "predict.xml=true", *more], tmp_path)
        assert done.returncode == 0, done.stderr
        assert "broken.jpg" in done.stderr
        folder = Path(tmp_path, where)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        written.append({str(file.relative_to(folder)): file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert len(written[0]) == 2 + 2 * len(SHAPES)
