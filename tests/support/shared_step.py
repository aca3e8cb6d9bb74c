"""One step of a batch by one device and by two, in a process of its own: devices are chosen once in each.

    python shared_step.py network PREPARED ARCHITECTURE LOSS BATCH_NORM [TRAIN_KEY=VALUE ...]
    python shared_step.py batch_norm

Prints JSON: how far loss (or output), gradients and moving statistics of two devices are from those of one, in
proportion to their norm.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig, ModelConfig, TrainConfig
from odtrain.config.sizes import input_sizes
from odtrain.dataset.read import read_dataset
from odtrain.io.tfrecord import index_records
from odtrain.models.build import build_detector
from odtrain.models.layers import SynchronizedBatchNorm
from odtrain.models.replicas import summed
from odtrain.training.input_pipeline import training_batches
from odtrain.training.task import DetectionTask
from odtrain.training.team import ALONE, join

BATCH = 8


def small(architecture):
    more = (
        {"depth_multiplier": 0.25, "min_depth": 8, "initializer": "he"}
        if architecture.startswith("ssd")
        else {}
    )
    return section(ModelConfig, name="s", architecture=architecture, input_size=64, **more)


def step(team, dataset, model, train):
    """(loss, gradients, moving statistics) of the first batch."""
    index = index_records(dataset.records("train"))
    with team.scope():
        detector = build_detector(
            model,
            len(dataset.class_names),
            batch_norm_trained=train.batch_norm != "frozen",
            synchronized=train.batch_norm == "synchronized",
            quantized=train.quantize_from is not None,
        )
        optimizer = tf_keras.optimizers.SGD(1.0, jit_compile=False)
        optimizer.build(detector.network.trainable_variables)
        sizes = input_sizes(model, train.multi_scale)
        others = [detector.at_size(size) for size in sizes[1:]]
        quantized = train.quantize_from is not None
        task = DetectionTask(detector, train, None, others, quantized)
        shares = team.distribute(
            lambda: training_batches(
                index,
                detector.resize,
                section(AugmentConfig),
                extent=detector.extent,
                batch_size=BATCH,
                seed=0,
                first_step=0,
                sizes=len(sizes),
                team=team,
            )
        )
    before = [variable.numpy() for variable in detector.network.trainable_variables]

    @tf.function(autograph=False)
    def one(batch):
        if team.strategy is None:
            return task.train_step(batch, detector, optimizer)["loss"]
        of_replica = lambda share: task.train_step(share, detector, optimizer)["loss"]  # noqa: E731
        losses = team.strategy.run(of_replica, args=(batch,))
        return team.strategy.experimental_local_results(losses)[0]

    loss = float(one(next(iter(shares))))
    after = [variable.numpy() for variable in detector.network.trainable_variables]
    gradients = np.concatenate([(a - b).ravel() for a, b in zip(before, after, strict=True)])
    moving = [variable.numpy().ravel() for variable in detector.network.non_trainable_variables]
    if detector.quantized:
        moving = [variable.numpy().ravel() for variable in detector.quantized.ranges.variables]
    return np.array([loss]), gradients, np.concatenate(moving)


def network(prepared, architecture, loss, batch_norm, *more):
    two, dataset = join(2), read_dataset(Path(prepared))
    given = dict(one.split("=") for one in more)
    train = section(TrainConfig, loss=loss, batch_norm=batch_norm, batch_size=BATCH, **given)
    model = small(architecture)
    say("loss", *(step(team, dataset, model, train) for team in (two, ALONE)))


def batch_norm():
    """A layer between an activation and another weight, as networks have it."""
    two = join(2)
    draw = np.random.default_rng(0).normal
    maps, weights, errors = (draw(size=size).astype(np.float32) for size in (MAPS, WEIGHTS, MAPS))
    say("output", *(through(team, maps + 0.5, weights, errors) for team in (two, ALONE)))


MAPS, WEIGHTS = (BATCH, 4, 4, 6), (1, 1, 6, 6)


def through(team, maps, weights, errors):
    """(output, gradients, moving statistics) of the layer."""
    with team.scope():
        kernel = tf.Variable(weights, aggregation=tf.VariableAggregation.SUM)
        alone = team.strategy is None
        layer = (tf_keras.layers.BatchNormalization if alone else SynchronizedBatchNorm)()
        layer.build((None, *MAPS[1:]))

    def of_replica(maps, errors):
        variables = [kernel, *layer.trainable_variables]
        with tf.GradientTape() as tape:
            out = layer(tf.nn.relu6(tf.nn.conv2d(maps, kernel, 1, "SAME")), training=True)
            loss = tf.reduce_sum(out * errors)
        gradients = tape.gradient(loss, variables)
        return out, [summed(gradient) for gradient in gradients]

    shares = zip(*(np.split(each, team.total) for each in (maps, errors)), strict=True)
    shares = list(map(list, zip(*map(lambda share: map(tf.constant, share), shares), strict=True)))
    if alone:
        outs, gradients = of_replica(*(each[0] for each in shares))
        outs = [outs]
    else:
        pick = lambda each: team.strategy.experimental_distribute_values_from_function(  # noqa: E731
            lambda context: each[context.replica_id_in_sync_group]
        )
        run = tf.function(
            lambda *values: team.strategy.run(of_replica, args=values), autograph=False
        )
        outs, gradients = run(*map(pick, shares))
        outs = team.strategy.experimental_local_results(outs)
        gradients = [team.strategy.experimental_local_results(each)[0] for each in gradients]
    flat = [each.numpy().ravel() for each in gradients]
    moving = [variable.numpy() for variable in layer.non_trainable_variables]
    return np.concatenate([out.numpy() for out in outs]), np.concatenate(flat), np.stack(moving)


def say(first, ours, theirs):
    names = (first, "gradients", "moving")
    far = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)]
    print(json.dumps(dict(zip(names, map(float, far), strict=True))))


if __name__ == "__main__":
    {"network": network, "batch_norm": batch_norm}[sys.argv[1]](*sys.argv[2:])
