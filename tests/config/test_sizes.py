import pytest
from support.made_up_model import made_up_model

from odtrain.config.compose import compose_config
from odtrain.config.sizes import check_sizes, input_sizes
from odtrain.errors import ConfigError


@pytest.mark.parametrize(
    ("size", "multiple", "span", "others"),
    [
        (300, 1, 0, []),
        (300, 1, 0.1, []),
        (300, 1, 0.25, [268, 332, 236, 364]),
        (320, 1, 0.1, [288, 352]),
        (320, 1, 0.5, [224, 416, 160, 480]),
        (640, 128, 0.2, [512, 768]),
        (64, 1, 0.5, [32, 96]),
    ],
)
def test_the_sizes_lie_around_the_models_own_in_steps_that_its_strides_allow(
    size, multiple, span, others
):
    model = made_up_model(input_size=size, input_multiple=multiple)
    assert input_sizes(model, span) == [(side, side) for side in (size, *others)]


def test_the_shorter_side_goes_along_with_the_longer():
    model = made_up_model(input_size=[192, 320])
    assert input_sizes(model, 0.2) == [(192, 320), (160, 288), (224, 352), (160, 256), (224, 384)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=ssd_mobilenet_v1_coco", "train.multi_scale=0.1"],
            "train.multi_scale=0.1: ssd_mobilenet_v1_coco changes its input in steps of 32 pixels: none "
            "is that near to 300.\n  Give train.multi_scale=0.11 or more.",
        ),
        (
            [
                "model=retinanet_mobile_coco",
                "train.multi_scale=0.5",
                "model.input_size=128",
            ],
            "train.multi_scale=0.5: retinanet_mobile_coco changes its input in steps of 128 pixels: none "
            "is that near to 128.\n  Give model.input_size=256 or more, or leave train.multi_scale out.",
        ),
        (
            ["train.multi_scale=0.6"],
            "train.multi_scale=0.6: too large.\n  Give at most 0.5.",
        ),
    ],
    ids=["no other near", "none at all", "too much"],
)
def test_a_span_without_another_size_is_refused(words, message):
    with pytest.raises(ConfigError) as caught:
        config = compose_config(words)
        check_sizes(config.model, config.train.multi_scale)
    assert str(caught.value) == message
