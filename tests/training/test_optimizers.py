from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from odtrain.training.optimizers import FusedAdam, FusedMomentum, TF1RMSprop

GRADIENTS = [np.float32([g, -2 * g, 0.1]) for g in (1.0, -0.5, 3.0, 0.25, -1.0)]


def steps(optimizer, gradients=GRADIENTS):
    variable = tf.Variable([1.0, 2.0, 3.0])
    path = []
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        path.append(variable.numpy())
    return np.array(path)


@pytest.mark.parametrize("epsilon", [1.0, 1e-10])
def test_it_steps_as_the_optimizer_of_tensorflow_1(epsilon):
    ours = TF1RMSprop(0.1, rho=0.9, momentum=0.9, epsilon=epsilon)
    theirs = tf.compat.v1.train.RMSPropOptimizer(0.1, decay=0.9, momentum=0.9, epsilon=epsilon)
    np.testing.assert_allclose(steps(ours), steps(theirs), rtol=1e-6)


def test_the_first_step_is_small_because_the_mean_square_starts_at_one():
    first = steps(TF1RMSprop(0.1, rho=0.9, momentum=0.0, epsilon=1.0), GRADIENTS[:1])[0]
    assert 1.0 - first[0] == pytest.approx(0.1 / 2**0.5)


def test_it_follows_a_schedule():
    schedule = tf_keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.0])
    path = steps(TF1RMSprop(schedule, momentum=0.0))
    assert np.any(path[0] != [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(path[2], path[1])


def test_it_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    def start(value):
        variable, optimizer = tf.Variable(value), TF1RMSprop(0.1)
        optimizer.build([variable])
        return variable, optimizer, tf.train.Checkpoint(variable=variable, optimizer=optimizer)

    variable, optimizer, checkpoint = start([1.0, 2.0, 3.0])
    for gradient in GRADIENTS[:3]:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
    prefix = checkpoint.save(tmp_path / "ckpt")
    other, resumed, restored = start([0.0, 0.0, 0.0])
    restored.restore(prefix).assert_consumed()
    for gradient in GRADIENTS[3:]:
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        resumed.apply_gradients([(tf.constant(gradient), other)])
    np.testing.assert_array_equal(variable, other)
    assert int(resumed.iterations) == 5


def test_gradients_are_clipped_by_their_global_norm():
    large = [np.float32([30.0, 40.0, 0.0])]
    clipped = steps(TF1RMSprop(0.1, global_clipnorm=5.0), large)
    np.testing.assert_allclose(clipped, steps(TF1RMSprop(0.1), [np.float32([3.0, 4.0, 0.0])]))


def test_its_configuration_makes_the_same_optimizer():
    copy = TF1RMSprop.from_config(TF1RMSprop(0.02, 0.8, 0.7, 0.5).get_config())
    np.testing.assert_array_equal(steps(copy), steps(TF1RMSprop(0.02, 0.8, 0.7, 0.5)))


# ---- Keras' own in one operation


FUSED = [
    pytest.param(FusedAdam, tf_keras.optimizers.Adam, {}, id="adam"),
    pytest.param(FusedMomentum, tf_keras.optimizers.SGD, {"momentum": 0.9}, id="momentum"),
    pytest.param(FusedMomentum, tf_keras.optimizers.SGD, {"momentum": 0.0}, id="without momentum"),
]


@pytest.mark.parametrize(("fused", "kerases", "options"), FUSED)
def test_one_operation_steps_as_kerases_dozen(fused, kerases, options):
    rate = tf_keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.03])
    options = options | {"global_clipnorm": 2.0, "use_ema": True, "ema_momentum": 0.9}
    # 1 - 0.999 in float32 has lost three of its seven digits, in both.
    np.testing.assert_allclose(
        steps(fused(rate, **options)), steps(kerases(rate, **options)), rtol=3e-6
    )


@pytest.mark.parametrize(("fused", "kerases", "options"), FUSED)
def test_it_goes_on_from_a_checkpoint_of_kerases_own(fused, kerases, options, tmp_path):
    variable, ours = tf.Variable([1.0, 2.0, 3.0]), fused(0.1, **options)
    theirs = kerases(0.1, **options)
    before = steps(theirs, GRADIENTS[:3])
    prefix = tf.train.Checkpoint(optimizer=theirs).save(tmp_path / "ckpt")
    variable.assign(before[-1])
    ours.build([variable])
    tf.train.Checkpoint(optimizer=ours).restore(prefix).assert_existing_objects_matched()
    for gradient in GRADIENTS[3:]:
        ours.apply_gradients([(tf.constant(gradient), variable)])
    np.testing.assert_allclose(variable, steps(kerases(0.1, **options))[-1], rtol=1e-6)
