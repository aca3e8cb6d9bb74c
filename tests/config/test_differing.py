"""Which settings a run's parameters and its name tell."""

import pytest

from odtrain.config.compose import compose_config
from odtrain.config.differing import differing, in_a_name, left_out, worth_logging


def test_a_choice_of_data_and_model_alone_differs_in_nothing():
    config = compose_config(["model=ssd_mobilenet_v1_coco"])
    assert differing(config) == {}
    assert in_a_name(config) == ""
    assert left_out(config) == ""


def test_what_follows_from_the_data_sets_name_is_not_told_again():
    assert differing(compose_config(["data.name=my cats"])) == {"data.name": "my cats"}


def test_what_people_ask_for_is_logged_whether_it_differs_or_not():
    assert worth_logging(compose_config(["train.learning_rate=0.01", "augment.flip=false"])) == {
        "model.name": "panels_ssdlite_mobilenet_v2",
        "model.input_size": 192,
        "train.batch_size": 8,
        "train.steps": 800,
        "train.learning_rate": 0.01,
        "train.seed": 0,
        "augment.flip": False,
    }


def test_no_more_than_eighteen_are_logged_and_the_rest_is_counted():
    config = compose_config(["experiment=small_data", "data.name=cats", "train.seed=3"])
    logged = worth_logging(config)
    assert len(logged) == 18
    assert logged["train.seed"] == 3
    assert left_out(config) == "2 more settings differ from conf/: `config/config.yaml` has them."


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["train.learning_rate=0.01"], "rate 0.01"),
        (["train.seed=3", "train.learning_rate=0.01"], "seed 3 rate 0.01"),
        (["train.checkpoint=models:/panels@champion"], "from models:/panels@champion"),
        (["train.checkpoint=/far/away/model.ckpt"], "from model.ckpt"),
        (["augment.flip=false", "train.clip_norm=null"], "flip off clip norm none"),
        (["train.batch_norm=frozen", "outputs=there"], "batch norm frozen"),
        (["model.input_size=[96,128]", "train.log_every=1"], ""),
        (
            ["train.seed=1", "train.steps=5", "train.batch_size=2", "train.freeze=1"],
            "seed 1 steps 5 batch 2 +1",
        ),
    ],
)
def test_a_name_says_what_differs_in_the_order_it_was_given(overrides, name):
    assert in_a_name(compose_config(overrides), overrides) == name
