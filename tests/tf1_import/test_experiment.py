"""`odtrain import`: the tutorial's edited file becomes an experiment that composes and says what differs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from support.pipeline_configs import pipeline_text

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError, DataError
from odtrain.tf1_import.experiment import import_pipeline

TUTORIAL = compose_config(["model=ssd_mobilenet_v1_coco"])
RACCOON = "item {\n  id: 1\n  name: 'raccoon'\n}\n"


def readers(data: Path, train: str = "train.record", evaluated: str = "test.record") -> str:
    return f"""
train_input_reader {{
  tf_record_input_reader {{ input_path: "{data}/{train}" }}
  label_map_path: "{data}/object-detection.pbtxt"
}}
eval_input_reader {{
  tf_record_input_reader {{ input_path: "{data}/{evaluated}" }}
  label_map_path: "{data}/object-detection.pbtxt"
  shuffle: false
}}
"""


@pytest.fixture
def data(tmp_path):
    """A folder as the tutorial leaves it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.record", "test.record"):
        (folder / name).touch()
    (folder / "object-detection.pbtxt").write_text(RACCOON)
    return folder


@pytest.fixture
def pipeline(tmp_path, data):
    """Writes the tutorial's edited file; returns its path."""

    def of(text: str | None = None, *, checkpoint: str = "", **options) -> Path:
        given = pipeline_text(TUTORIAL, num_classes=1, reader=readers(data, **options))
        text = text or given.replace("PATH_TO_BE_CONFIGURED/model.ckpt", checkpoint)
        file = tmp_path / "ssd_mobilenet_v1_raccoon.config"
        file.write_text(text, encoding="utf-8")
        return file

    return of


def composed(folder: Path, name: str):
    return compose_config([f"experiment={name}"], str(folder))


def test_the_experiment_composes_to_the_file_s_training(tmp_path, data, pipeline):
    said = import_pipeline(pipeline(), tmp_path / "configs")
    assert said == (
        f"{tmp_path}/configs/experiment/ssd_mobilenet_v1_raccoon.yaml: ssd_mobilenet_v1 at 300x300, "
        "rmsprop, batch 24, 200000 steps, from random weights\n"
        "Left out, since it does not change what is learned:\n"
        "  dropout_keep_probability, shuffle.\n"
        "Everything was carried over.\n"
        f"To run it: odtrain train --config-dir {tmp_path}/configs experiment=ssd_mobilenet_v1_raccoon"
    )
    config = composed(tmp_path / "configs", "ssd_mobilenet_v1_raccoon")
    assert config.data.images == str(data)
    assert config.data.format == "tfrecord"
    assert config.data.label_map == str(data / "object-detection.pbtxt")
    assert config.data.validation_fraction == 0
    assert config.data.name == config.registry.name == "ssd_mobilenet_v1_raccoon"
    assert config.train.checkpoint is None
    assert (config.train.steps, config.train.learning_rate) == (200000, 0.004)
    assert (config.train.schedule, config.train.schedule_steps) == ("step", None)
    assert config.model == TUTORIAL.model.__class__(
        **{**vars(TUTORIAL.model), "separable_extras": False, "predictor_kernel": 1}
    )


def test_the_command_writes_beside_where_it_is_run(tmp_path, pipeline, capsys, monkeypatch):
    file = pipeline()
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(file), "--name", "mine"]) == 0
    assert "experiment=mine" in capsys.readouterr().out
    assert main(["train", "--config-dir", "configs", "experiment=mine", "--cfg"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["steps"] == 200000


def test_a_typo_is_one_screen_and_nothing_is_written(tmp_path, pipeline, capsys):
    file = pipeline(
        pipeline_text(TUTORIAL).replace("'ssd_mobilenet_v1'", "\u2018ssd_mobilenet_v1\u2019")
    )
    assert main(["import", str(file), "--to", str(tmp_path / "configs")]) == 1
    assert re.fullmatch(
        rf"{re.escape(str(file))}:\d+:13: curly quote \u2018\.\n"
        r"  Use straight quotes: name: 'cat'\n",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "configs").exists()


def test_a_checkpoint_that_is_here_is_taken(tmp_path, pipeline):
    folder = tmp_path / "ssd_mobilenet_v1_coco_2018_01_28"
    folder.mkdir()
    for suffix in ("index", "data-00000-of-00001"):
        (folder / f"model.ckpt.{suffix}").touch()
    import_pipeline(pipeline(checkpoint=f"{folder}/model.ckpt"), tmp_path)
    config = composed(tmp_path, "ssd_mobilenet_v1_raccoon")
    assert config.train.checkpoint == f"{folder}/model.ckpt"
    assert config.train.restore == "backbone"


def test_published_weights_that_are_not_here_come_from_the_zoo(tmp_path, pipeline):
    gone = "ssd_mobilenet_v1_quantized_300x300_coco14_sync_2018_07_18/model.ckpt"
    said = import_pipeline(pipeline(checkpoint=gone), tmp_path)
    assert "from zoo" in said
    assert f"fine_tune_checkpoint: {gone} is not here" in said
    config = composed(tmp_path, "ssd_mobilenet_v1_raccoon")
    assert config.train.checkpoint == "zoo"
    assert config.model.name == "ssd_mobilenet_v1_quantized_coco"


def test_other_weights_that_are_not_here_are_told(tmp_path, pipeline):
    said = import_pipeline(pipeline(checkpoint="mine/model.ckpt-1500"), tmp_path)
    assert "  fine_tune_checkpoint: mine/model.ckpt-1500 is not here.\n" in said
    config = composed(tmp_path, "ssd_mobilenet_v1_raccoon")
    assert config.train.checkpoint == "mine/model.ckpt-1500"


def test_a_file_that_was_not_filled_in_never_trains_on_other_pictures(tmp_path, pipeline):
    said = import_pipeline(pipeline(pipeline_text(TUTORIAL)), tmp_path)
    assert "input_path of train_input_reader is not filled in" in said
    assert "label_map_path is not filled in" in said
    assert "the published weights of ssd_mobilenet_v1_coco are taken" in said
    config = composed(tmp_path, "ssd_mobilenet_v1_raccoon")
    assert config.data.images == "PATH_TO_BE_CONFIGURED"


def test_a_count_of_classes_that_is_not_the_label_map_s_is_told(tmp_path, data, pipeline):
    (data / "object-detection.pbtxt").write_text(RACCOON + "item { id: 2 name: 'cat' }")
    said = import_pipeline(pipeline(), tmp_path)
    assert "  num_classes: 1, but the label map has 2; the label map counts.\n" in said


def test_a_typo_in_the_label_map_is_told_with_its_place(tmp_path, data, pipeline):
    (data / "object-detection.pbtxt").write_text("item {\n  id: 1\n  name: raccoon\n}")
    with pytest.raises(DataError) as error:
        import_pipeline(pipeline(), tmp_path)
    assert str(error.value).startswith(f"{data}/object-detection.pbtxt:3:9: name needs quotes")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"evaluated": "val.record"}, "by its name these pictures are for validation"),
        ({"train": "raccoon.record"}, 'its name does not say "train"'),
        ({"train": "train-?????-of-00002.record"}, "/train-?????-of-00002.record is not here."),
        ({"evaluated": "../other/test.record"}, "is in another folder than the training records"),
    ],
)
def test_records_that_would_be_split_otherwise_are_told(tmp_path, pipeline, options, said):
    assert said in re.sub(r"\n\s+", " ", import_pipeline(pipeline(**options), tmp_path))


def test_records_that_the_file_does_not_name_are_told(tmp_path, data, pipeline):
    (data / "old_train.record").touch()
    said = re.sub(r"\n\s+", " ", import_pipeline(pipeline(), tmp_path))
    assert (
        "holds records that the file does not name, and odtrain reads all: old_train.record."
        in said
    )


def test_what_is_there_is_not_overwritten(tmp_path, pipeline):
    target = tmp_path / "experiment" / "ssd_mobilenet_v1_raccoon.yaml"
    import_pipeline(pipeline(), tmp_path)
    import_pipeline(pipeline(), tmp_path)
    target.write_text(target.read_text() + "# mine\n")
    with pytest.raises(ConfigError) as error:
        import_pipeline(pipeline(), tmp_path)
    assert str(error.value) == (
        f"{target}: is there already, and says something else.\n"
        "  Give another name, --name NAME, or move it away."
    )
    assert target.read_text().endswith("# mine\n")


def test_a_file_that_is_called_pipeline_is_named_by_its_folder(tmp_path, pipeline):
    folder = tmp_path / "my training"
    folder.mkdir()
    file = pipeline().rename(folder / "pipeline.config")
    import_pipeline(file, tmp_path)
    assert (tmp_path / "experiment" / "my_training.yaml").is_file()
    with pytest.raises(ConfigError, match="cannot be a name"):
        import_pipeline(file, tmp_path, "../out")


def test_the_notes_stand_in_the_experiment_too(tmp_path, pipeline):
    import_pipeline(pipeline(checkpoint="mine/model.ckpt"), tmp_path)
    text = (tmp_path / "experiment" / "ssd_mobilenet_v1_raccoon.yaml").read_text()
    assert (
        "# Could not be carried over:\n#   fine_tune_checkpoint: mine/model.ckpt is not here.\n"
        in text
    )


def test_a_number_that_no_network_can_have_is_refused_and_nothing_is_left(tmp_path, pipeline):
    file = pipeline()
    file.write_text(file.read_text().replace("height: 300", "height: 3"))
    with pytest.raises(ConfigError, match=re.escape("model.input_size=[3, 300]: ")):
        import_pipeline(file, tmp_path)
    assert list((tmp_path / "experiment").iterdir()) == []


def test_a_folder_that_cannot_be_is_named(tmp_path, pipeline):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as error:
        import_pipeline(pipeline(), tmp_path / "file")
    assert str(error.value) == (
        f"{tmp_path}/file/experiment/ssd_mobilenet_v1_raccoon.yaml: cannot be written: Not a directory."
        "\n  Give another folder: --to DIR."
    )
