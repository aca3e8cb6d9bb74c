"""What a run keeps of the data that were left out of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.pictures import label_picture, write_xml

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.prepare import prepare
from odtrain.jobs.steps import record_inputs


@pytest.mark.parametrize(("faulty", "logged"), [(True, ["data/left_out.csv"]), (False, [])])
def test_a_run_lists_what_was_left_out_of_it(tmp_path, faulty, logged):
    cat = [("cat", 4, 6, 30, 40)]
    for i in range(4):
        label_picture(tmp_path / f"d/p{i}.jpg", (64, 48), cat, seed=i)
    if faulty:
        write_xml(tmp_path / "d/p0.xml", "p0.jpg", (64, 48), [*cat, ("cat", 5, 6, 5, 40)])
    places = {"images": str(tmp_path / "d"), "prepared": str(tmp_path / "prepared")}
    data = section(DataConfig, name="d", faulty="leave_out", **places)
    texts = {}
    tracker = SimpleNamespace(
        resumed=True,
        logged_steps=lambda key: {1},
        log_dataset=lambda *_, **__: None,
        log_text=lambda text, name: texts.update({name: text}),
    )
    record_inputs(SimpleNamespace(tracker=tracker, dataset=prepare(data)), [])
    assert [name for name in texts if name == "data/left_out.csv"] == logged
    if faulty:
        assert "OD009" in texts["data/left_out.csv"]
