import pytest

from odtrain.recipes.rules import Choice, Facts, Speed, batch, choose, passes_of, steps, value_of

FACTS = Facts(
    160, 180, 1, 0.4, True, "weights of COCO can be had for it", ("model=m",), True, True, 24
)


def test_a_training_from_published_weights_has_what_small_data_has():
    assert choose(FACTS) == [
        Choice(("model=m",), "weights of COCO can be had for it"),
        Choice(
            (
                "train.restore=all",
                "train.optimizer=momentum",
                "train.learning_rate=0.02",
                "train.schedule=cosine",
                "train.schedule_steps=null",
                "train.decay_steps=null",
                "train.warmup_steps=30",
                "train.clip_norm=10.0",
                "train.loss=hard_mining",
                "model.localization_weight=1.0",
                "model.class_bias=0.0",
                "model.batch_norm_decay=0.97",
            ),
            "from published weights short and warm, as small_data",
        ),
        Choice(("augment=colour",), "mild changes of light and colour"),
        Choice(
            ("data.validation_fraction=0.0",),
            "160 pictures are too few to spare any for validation",
        ),
    ]


def test_a_network_of_another_family_keeps_its_own_training():
    found = choose(FACTS._replace(mined=False, tuned=False, pictures=2000))
    assert [each.overrides for each in found] == [
        ("model=m",),
        ("augment=colour",),
        ("data.validation_fraction=0.1",),
    ]


def test_from_random_weights_pictures_are_put_together():
    found = choose(FACTS._replace(weights=False))
    assert [each.overrides for each in found] == [
        ("model=m",),
        ("augment.mosaic=0.7", "augment.off_last=0.15"),
        ("data.validation_fraction=0.0",),
    ]


@pytest.mark.parametrize(
    ("facts", "minutes", "expected"),
    [
        pytest.param({}, None, 330, id="as measured"),
        pytest.param({"pictures": 60}, None, 330, id="fewer pictures"),
        pytest.param({"pictures": 640}, None, 660, id="four times the pictures"),
        pytest.param({"classes": 21}, None, 660, id="many classes"),
        pytest.param({"pictures": 100_000}, None, 2000, id="most"),
        pytest.param({}, 2, 225, id="as many as there is time for"),
        pytest.param({}, 0.01, 50, id="least"),
    ],
)
def test_steps(facts, minutes, expected):
    found = steps(FACTS._replace(**facts), Speed(0.02, 100), 24, minutes)
    assert found.overrides == (f"train.steps={expected}",)


def test_the_end_is_foretold():
    assert steps(FACTS, Speed(0.02, 100), 24, None).reason == (
        "by the number of pictures and classes; about 3 minutes here"
    )


@pytest.mark.parametrize(
    ("size", "most", "passes"),
    [(24, 100, 1), (24, 24, 1), (24, 23, 2), (24, 7, 4), (7, 3, 7), (8, 0, 8)],
)
def test_a_batch_is_computed_in_as_few_equal_passes_as_fit(size, most, passes):
    assert passes_of(size, most) == passes


def test_a_batch_is_no_larger_than_the_pictures_that_there_are():
    found = batch(FACTS._replace(pictures=14), Speed(0.02, 5))
    assert found == Choice(
        ("train.batch_size=14", "train.accumulate=7"), "5 pictures fit into memory at once"
    )
    assert value_of([found], "train.batch_size") == "14"
    assert value_of([found], "train.steps") is None


def test_a_batch_that_is_given_stays():
    assert batch(FACTS, Speed(0.02, 6), fixed=12).overrides == ("train.accumulate=2",)
