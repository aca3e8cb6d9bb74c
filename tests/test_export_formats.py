"""The table of export formats, and that all who take one file of a version take the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from odtrain import model_source as sources
from odtrain.config.compose import compose_config, section
from odtrain.config.schema import RegistryConfig
from odtrain.export.lite import LITE_SETTINGS
from odtrain.export.writers import WRITERS
from odtrain.export_formats import FORMATS, served_format
from odtrain.promotion import case as promotion
from odtrain.registry.download import file_of_version, resolve_model
from odtrain.registry.lock import alone_at
from odtrain.registry.register import ModelCandidate, register
from odtrain.registry.versions import SOUND, Version, find_version, list_models, refresh_aliases
from odtrain.structures import LabelledSplit
from odtrain.tracking.store import open_client
from odtrain.tracking.tracker import Tracker
from odtrain.web import serve as serving

pytestmark = pytest.mark.usefixtures("own_environment")

RECORD = "odtrain.served_by"


def test_every_format_has_a_writer_a_file_and_a_rank_of_its_own():
    assert list(WRITERS) == list(FORMATS)
    assert list(LITE_SETTINGS) == [name for name, each in FORMATS.items() if each.lite]
    assert len({each.file for each in FORMATS.values()}) == len(FORMATS)
    assert sorted(each.rank for each in FORMATS.values()) == list(range(1, len(FORMATS) + 1))


@pytest.mark.parametrize(
    ("available", "wanted", "served"),
    [
        (["pb", "tflite_fp16"], None, "tflite_fp16"),
        (["pb", "tflite_fp16"], "pb", "pb"),
        (["pb", "tflite_fp16"], "tflite_int8", "tflite_fp16"),
        (["saved_model", "pb"], None, "pb"),
        (["from_another_time"], None, None),
        (["from_another_time", "pb"], "from_another_time", "from_another_time"),
        ([], "pb", None),
    ],
)
def test_what_is_wanted_is_served_if_it_is_there_and_else_the_best_by_rank(
    available, wanted, served
):
    assert served_format(available, wanted) == served


# ---- a version


def candidate(folder: Path, formats: list[str], failed: list[str]) -> ModelCandidate:
    """A model whose first file is the quickest, in a folder as `export` leaves it."""
    folder.mkdir()
    files = {name: folder / FORMATS[name].file for name in formats}
    for name, file in files.items():
        if name == "saved_model":
            file.mkdir()
            file = file / "saved_model.pb"
        file.write_text(name)
    (folder / "labels.txt").write_text("circle\nsquare\n")
    (folder / "label_map.pbtxt").write_text("item { id: 1 name: 'circle' }\n")
    times = {f"export/{name}/latency_ms_p50": 10.0 + n for n, name in enumerate(formats)}
    paths = {name: str(file) for name, file in files.items()}
    reasons = {name: "loses 0.2 mAP" for name in failed}
    return ModelCandidate("shapes", "ssd", paths, times, reasons, "d", 0)


@pytest.fixture
def registered(store, tmp_path):
    """Register a candidate: the version, without the record if it is to be one of the code before."""

    def run(given: ModelCandidate, before: bool = False) -> Version:
        with Tracker(store, tmp_path / "outputs").start("train") as tracker:
            tracker.log(given.metrics, given.step)
            number = register(tracker, given)
        client = open_client(str(store.uri))
        if before:
            client.delete_model_version_tag("shapes", number, RECORD)
        client.set_model_version_tag("shapes", number, SOUND, "passed")
        with alone_at(client, "shapes") as lease:
            refresh_aliases(client, "shapes", lease)
        return find_version(f"models:/shapes/{number}", str(store.uri))

    return run


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were opened; they are none that could be run."""
    names: list[str] = []

    def load(file, workers, threads=1, class_names=None, trusted=False):
        names.append(file.name)
        return SimpleNamespace(
            class_names=("circle", "square"), passport={}, run_batch=None, tiles=None
        )

    monkeypatch.setattr("odtrain_runtime.pyfunc.load_detectors", load)
    monkeypatch.setattr(sources, "load_detectors", load)
    return names


BEFORE = "the code before"
SETS = {
    "frozen graph and fp16": (["pb", "tflite_fp16"], [], None, "tflite_fp16"),
    "frozen graph and fp16 of the code before": (["pb", "tflite_fp16"], [], BEFORE, "tflite_fp16"),
    "int8 alone": (["tflite_int8"], [], None, "tflite_int8"),
    "SavedModel alone": (["saved_model"], [], None, "saved_model"),
    "the best has failed": (["tflite_fp32", "pb"], ["tflite_fp32"], None, "pb"),
    "the best has failed in the code before": (
        ["tflite_fp32", "pb"],
        ["tflite_fp32"],
        BEFORE,
        "pb",
    ),
    "registry.format": (["tflite_fp32", "tflite_int8"], [], "tflite_int8", "tflite_int8"),
    "registry.format has failed": (["pb", "tflite_int8"], ["tflite_int8"], "tflite_int8", "pb"),
}


@pytest.mark.parametrize(("formats", "failed", "wanted", "served"), SETS.values(), ids=SETS)
def test_all_that_take_one_file_of_a_version_take_the_same(
    store, registered, opened, monkeypatch, tmp_path, formats, failed, wanted, served
):
    before, format = wanted == BEFORE, None if wanted == BEFORE else wanted
    given = replace(candidate(tmp_path / "export", formats, failed), format=format)
    version = registered(given, before)
    monkeypatch.setattr(serving, "serve", lambda *arguments: None)
    serving.serve_model(
        compose_config(["source=models:/shapes@challenger", f"tracking.uri={store.uri}"])
    )
    detect, invocations = opened
    folder = resolve_model("models:/shapes/1", str(store.uri))
    file = FORMATS[served].file
    assert {
        "source= and /detect": detect,
        "pyfunc and /invocations": invocations,
        "models compare": file_of_version(version, str(store.uri))[1].name,
        "the gate": judged_in(store, version, format, monkeypatch),
        "@fastest": version.tags["odtrain.latency_ms_p50"],
    } == {
        "source= and /detect": file,
        "pyfunc and /invocations": file,
        "models compare": file,
        "the gate": (served, file),
        "@fastest": f"{given.metrics[f'export/{served}/latency_ms_p50']:g}",
    }
    assert f"`{file}` stands for the version" in (folder / "model_card.md").read_text()


def judged_in(store, version, format, monkeypatch) -> tuple[str, object]:
    """What the gate judges a version by, and what it runs where the version is the champion."""
    monkeypatch.setattr(promotion, "_measured", lambda case, split, file, raw=(): file.name)
    monkeypatch.setattr(promotion, "_reference", lambda case, split, judged: [])
    limits = section(RegistryConfig, name="shapes", format=format)
    known = {
        "made_with": compose_config([]),
        "_raw": lambda file: [],
        "pictures": (LabelledSplit(("circle", "square"), [], ()), []),
    }
    case = promotion.PromotionCase(str(store.uri), compose_config([]), limits, version, None, None)
    vars(case).update(known)
    with promotion.gathered(case) as evidence:
        return evidence.judged, promotion._found_by_champion(case, evidence.split, version)


def test_the_fastest_is_the_version_that_is_served_quickest(store, registered, tmp_path):
    """The first was registered by the code before, with the latency of a file that it does not serve."""
    first = candidate(tmp_path / "first", ["pb", "tflite_fp16"], [])
    second = candidate(tmp_path / "second", ["tflite_fp16"], [])
    version = registered(first, before=True)
    client = open_client(str(store.uri))
    client.set_model_version_tag("shapes", version.number, "odtrain.latency_ms_p50", "10")
    registered(replace(second, metrics={"export/tflite_fp16/latency_ms_p50": 10.5}))
    aliases = {each.number: each.aliases for each in list_models(str(store.uri))}
    assert aliases == {"1": (), "2": ("challenger", "fastest")}


def test_the_same_files_to_be_served_otherwise_are_another_version(store, tmp_path):
    given = candidate(tmp_path / "export", ["pb", "tflite_fp16"], [])
    with Tracker(store, tmp_path / "outputs").start("train") as tracker:
        numbers = [register(tracker, replace(given, format=name)) for name in (None, "pb", None)]
    assert numbers == ["1", "2", "1"]
