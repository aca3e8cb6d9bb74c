"""Files that were trained elsewhere, registered and judged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import numpy as np
import pytest
from support.commands import TINY_RUN, odtrain
from support.onnx_files import write_constant_onnx

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError, DataError, TrackingError
from odtrain.jobs.register import register_files
from odtrain.model_source import open_source
from odtrain.promotion.promote import promote
from odtrain.registry.download import file_of_version
from odtrain.registry.versions import ORIGIN, find_version

TEXTS = {"names": "{0: 'circle', 1: 'square'}", "stride": "32", "license": "AGPL-3.0 License"}


def foreign(file: Path, texts: dict[str, str] = TEXTS, boxes: int = 84) -> Path:
    """A YOLO that sees circles and squares everywhere, whatever the picture."""
    return write_constant_onnx(file, {"output0": boxes_everywhere(boxes)}, texts=texts)


def boxes_everywhere(count: int) -> np.ndarray:
    """(1, 6, count) as YOLO writes them: of two classes."""
    rows = np.random.default_rng(3).uniform(8, 56, (1, 6, count))
    rows[0, 2:4] = np.random.default_rng(4).uniform(20, 30, (2, count))
    rows[0, 4:] = np.random.default_rng(5).uniform(0.3, 0.9, (2, count))
    return rows


@pytest.fixture
def asked(shapes, store, tmp_path, own_environment):
    """Composes what is asked for, in a store of its own."""

    def composed(*more: str):
        overrides = [
            *(f"data.images={shapes}", "data.name=shapes", f"data.prepared={tmp_path / 'shapes'}"),
            *(f"tracking.uri={store.uri}", "tracking.system_metrics=false", "registry.name=shapes"),
            *(f"outputs={tmp_path / 'outputs'}", "benchmark.runs=2", "evaluate.bootstrap=20"),
            *("evaluate.drawn=1", *more),
        ]
        return compose_config(overrides), overrides

    return composed


@pytest.mark.slow
def test_a_foreign_file_becomes_a_version_with_its_numbers_and_where_it_comes_from(
    asked, store, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    file = foreign(tmp_path / "yolo.onnx")
    config, overrides = asked("registry.min_recall=0")
    result = register_files(config, overrides, [str(file)], "a friend")
    version = find_version("models:/shapes@champion", store.uri)
    assert re.fullmatch(
        r"models:/shapes/1 is registered: mAP 0\.\d+ \[0\.\d+, 0\.\d+\] on 4 test pictures of shapes, "
        r"\d+\.\d ms, 0\.0 MB\.\nmodels:/shapes/1 is @champion\.",
        result.in_words,
    )
    origin = json.loads(version.tags[ORIGIN])
    assert origin["origin"] == "a friend"
    assert origin["licence, as the file states it"] == "AGPL-3.0 License"
    assert len(origin["sha256 of yolo.onnx"]) == 64
    assert version.tags["odtrain.served_by"] == "onnx"
    assert float(version.tags["export/onnx/latency_ms_p50"]) > 0
    chosen, kept = file_of_version(version, store.uri)
    assert (chosen, kept.read_bytes()) == ("onnx", file.read_bytes())
    card = (kept.parent / "model_card.md").read_text()
    assert "- origin: a friend\n" in card and "AGPL-3.0" in card and "Android" not in card
    mlflow.set_tracking_uri(store.uri)
    (found,) = mlflow.pyfunc.load_model("models:/shapes/1").predict(
        np.zeros((80, 96, 3), np.uint8), params={"score_threshold": 0.8}
    )
    assert set(found["class_names"]) == {"circle", "square"}


@pytest.mark.slow
def test_an_openvino_model_becomes_a_version_with_both_of_its_files(asked, store, tmp_path):
    pytest.importorskip("openvino", reason="pip install 'odtrain[openvino]' brings it")
    from support.openvino_files import write_constant_openvino

    rows = boxes_everywhere(84)
    file = write_constant_openvino(tmp_path / "theirs", {"output0": rows}, texts=TEXTS)
    config, overrides = asked("registry.min_recall=0")
    result = register_files(config, overrides, [str(file)], None)
    assert "models:/shapes/1 is @champion." in result.in_words
    version = find_version("models:/shapes@champion", store.uri)
    origin = json.loads(version.tags[ORIGIN])
    assert origin["licence, as the file states it"] == "AGPL-3.0 License"
    assert {len(origin[f"sha256 of yolo.{end}"]) for end in ("xml", "bin")} == {64}
    chosen, kept = file_of_version(version, store.uri)
    assert chosen == version.tags["odtrain.served_by"] == "openvino_fp32"
    assert sorted(part.name for part in kept.iterdir()) == ["model.bin", "model.xml"]
    mlflow.set_tracking_uri(store.uri)
    (found,) = mlflow.pyfunc.load_model("models:/shapes/1").predict(
        np.zeros((80, 96, 3), np.uint8), params={"score_threshold": 0.8}
    )
    assert set(found["class_names"]) == {"circle", "square"}


@pytest.mark.slow
def test_a_file_of_other_classes_is_measured_and_never_champion(asked, store, tmp_path, said):
    names = {**TEXTS, "names": "{0: 'circle', 1: 'hexagon'}"}
    file = foreign(tmp_path / "yolo.onnx", names)
    config, overrides = asked("registry.min_recall=0")
    result = register_files(config, overrides, [str(file)], None)
    assert (
        "The model knows circle, hexagon; shapes has circle, square. It is registered with the mAP that it has "
        "here, and can be no champion."
    ) in said
    assert "\nmodels:/shapes/1 is @challenger, not @champion:\n  labels: " in result.in_words
    version = find_version("models:/shapes/1", store.uri)
    assert "export/onnx/mAP" in version.tags and "champion" not in version.aliases


def test_two_files_of_one_format_are_registered_one_by_one(asked, tmp_path):
    files = [str(foreign(tmp_path / name)) for name in ("a.onnx", "b.onnx")]
    with pytest.raises(ConfigError) as error:
        register_files(*asked(), files, None)
    assert str(error.value) == f"{files[1]}: is a second onnx file.\n  Register them one by one."


def test_a_file_without_names_needs_them(asked, tmp_path):
    file = foreign(tmp_path / "yolo.onnx", {"stride": "32", "names": ""})
    with pytest.raises(DataError) as error:
        register_files(*asked(), [str(file)], None)
    assert str(error.value) == (
        f"{file}: carries no class names.\n"
        "  Give them: predict.label_map=FILE, a name a line, or classes in source.yaml."
    )


@pytest.mark.long
def test_champions_change_between_ours_and_others_by_what_their_files_find(
    new, shapes, tmp_path, own_environment
):
    ours = (
        f"data.images={shapes}",
        *TINY_RUN,
        "registry.name=both",
        "export.formats=[tflite_fp32]",
    )
    config = compose_config(ours)

    def register(file: Path) -> str:
        return register_files(config, ours, [str(file)], None).in_words

    def map_of(number: str) -> float:
        return float(new.get_model_version("both", number).tags["eval/mAP"])

    assert "models:/both/1 is @champion." in register(foreign(tmp_path / "worse.onnx", boxes=1))
    done = odtrain(["train", *ours, "train.steps=150", "evaluate.every=75"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert new.get_model_version_by_alias("both", "champion").version == 2
    assert "models:/both/3 is @champion." in register(foreign(tmp_path / "better.onnx"))
    assert map_of("1") < map_of("2") < map_of("3")
    with pytest.raises(TrackingError, match="accuracy: "):
        promote(config, ours, "both", "2")

    new.set_registered_model_alias("both", "champion", "1")
    won = "models:/both/2 is @champion now (before: version 1)."
    assert won in promote(config, ours, "both", "2")
    won = "models:/both/3 is @champion now (before: version 2)."
    assert won in promote(config, ours, "both", "3")

    for number in ("1", "3"):
        model = new.get_model_version("both", number).source.removeprefix("models:/")
        folder = urlsplit(new.get_logged_model(model).artifact_location).path
        file = Path(unquote(folder), "artifacts/model.onnx")
        file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(TrackingError, match=r"checksums: model\.onnx"):
        promote(config, ours, "both", "1")
    with pytest.raises(TrackingError, match=r"model\.onnx is damaged"):
        open_source("models:/both/3", config)
