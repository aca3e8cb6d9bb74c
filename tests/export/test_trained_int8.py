"""A network of wide-range weights, whose int8 file finds little, and what quantised training makes of it."""

import numpy as np
import pytest

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import TrainConfig
from odtrain.evaluation.evaluate import quick_map
from odtrain.export.lite import LiteWriter
from odtrain.io.tfrecord import index_records
from odtrain.jobs.context import Split
from odtrain.models.build import build_detector
from odtrain.training.input_pipeline import training_batches
from odtrain.training.loop import Fit, Listener
from odtrain_runtime.model_files import load_detector

pytestmark = pytest.mark.long

WIDTH = 16
"""Times as far as its neighbours reach, that every other channel of a map is made to reach."""
LAYERS = "FeatureExtractor/MobilenetV1/Conv2d_"
MODEL = ["model=panels_ssd_mobilenet_v1", "model.input_size=96", "model.depth_multiplier=0.25"]
SETTINGS = {
    "batch_size": 14,
    "optimizer": "adam",
    "clip_norm": 10.0,
    "warmup_steps": 10,
    "log_every": 20,
    "precision": "fp32",
}


class Learner:
    """What learns fourteen pictures by heart."""

    def __init__(self, dataset, folder):
        self.folder = folder
        self.split = Split.read(dataset, "train")
        self.index = index_records(dataset.records("train"))
        self.names = dataset.class_names

    def train(self, detector, name, **changes):
        config = section(TrainConfig, **SETTINGS, **changes)
        quiet = Listener(lambda values, step: None, lambda: None, lambda step: None)
        augment = compose_config(["augment=none"]).augment
        options = {"batch_size": 14, "seed": 0, "first_step": 0}

        def batches(step):
            found = training_batches(self.index, detector.resize, augment, **options)
            return found.take(1).cache().repeat()

        Fit(detector, config, self.folder / name).run(batches, lambda step: [], None, 0, quiet)

    def score(self, detect):
        found = [detect(image) for image in self.split.images]
        return quick_map(self.split.truths, found, self.names)["mAP"]

    def score_of_file(self, detector):
        file = self.folder / "model_int8.tflite"
        writer = LiteWriter(detector, self.split.images, "builtin")
        file.write_bytes(writer.content("tflite_int8", self.names, {"format": "tflite_int8"}))
        return self.score(load_detector(file))


def widen(detector):
    """Make every other channel of a map small and the kernel behind it large: float finds the same."""
    variables = detector.variables_by_name()
    for number in (*range(1, 11), 12):  # behind the others predictors read
        norm, behind = f"{LAYERS}{number}_pointwise/BatchNorm", f"{LAYERS}{number + 1}_depthwise"
        channels = variables[f"{norm}/gamma"].shape[0]
        factors = np.where(np.arange(channels) % 2, 1, 1 / WIDTH).astype(np.float32)
        for part in ("gamma", "beta"):
            variables[f"{norm}/{part}"].assign(variables[f"{norm}/{part}"] * factors)
        kernel = variables[f"{behind}/depthwise_weights"]
        kernel.assign(kernel / factors[:, None])


def test_a_file_that_calibration_breaks_is_saved_by_quantised_training(prepared_shapes, tmp_path):
    learner = Learner(prepared_shapes, tmp_path)
    model = compose_config(MODEL).model
    plain = build_detector(model, 2)
    learner.train(plain, "plain", steps=160, learning_rate=0.004)
    plain_score = learner.score(plain.as_detect())
    widen(plain)
    wide_score, broken = learner.score(plain.as_detect()), learner.score_of_file(plain)
    assert plain_score > 0.4
    assert wide_score == pytest.approx(plain_score, abs=0.05)
    assert broken < wide_score - 0.1
    trained = build_detector(model, 2, quantized=True)
    for name, variable in trained.variables_by_name().items():
        variable.assign(plain.variables_by_name()[name])
    learner.train(
        trained, "trained", steps=300, learning_rate=0.001, checkpoint="zoo", quantize_from=0
    )
    assert learner.score_of_file(trained) > wide_score - 0.02
