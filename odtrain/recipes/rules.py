"""What `experiment=auto` chooses, as rules of a line or two: numbers in, overrides with their reasons out.

The settings of a training from COCO weights are those of `experiment=small_data`, whose score and time are
measured (docs/speed.md). docs/training.md says of each rule whether it was measured, and how.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FEW_PICTURES = 300
"""Below it none are spared for validation: a score on so few says little, and each is needed."""
VALIDATION = 0.1
TUNED_STEPS, TUNED_PICTURES = 330, 160
"""Of a training from published weights, and the pictures that it was measured on."""
MOST_TUNED_STEPS = 2000
FIRST_STEPS, FIRST_PICTURES = 1500, 720
"""Of a training from random weights, likewise."""
MOST_FIRST_STEPS = 4000
PER_CLASS = 0.05
"""By what share of the steps each class beyond the first makes a training longer."""
LEAST_STEPS = 50
SHARE_OF_TIME = 0.9
"""Of `train.max_minutes` that the steps may take: building the graph and validating take the rest."""
RANDOM_NETWORK = "panels_ssdlite_mobilenet_v2"
PUBLISHED_NETWORK = "ssd_mobilenet_v1_0.75_depth_coco"
TUNED = (
    "train.restore=all",
    "train.optimizer=momentum",
    "train.learning_rate=0.02",
    "train.schedule=cosine",
    "train.schedule_steps=null",
    "train.decay_steps=null",
    "train.warmup_steps=30",
    "train.clip_norm=10.0",
)
"""Short and warm: of networks with the TensorFlow 1 API's heads."""
MINED = (
    "train.loss=hard_mining",
    "model.localization_weight=1.0",
    "model.class_bias=0.0",
    "model.batch_norm_decay=0.97",
)
"""The loss that `small_data` was measured with, of SSDs whose maps are no pyramid."""


MOSAIC = ("augment.mosaic=0.7", "augment.off_last=0.15")
"""As it was measured from random weights (docs/training.md)."""


class Facts(NamedTuple):
    """What the rules look at.

    Attributes:
        pictures: that are trained on.
        objects: in them.
        classes: of them.
        side: the middle one of the objects' sides, sqrt(height x width) as a fraction of the picture.
        weights: the published or given weights are there.
        why: where they come from, or why there are none, in words.
        network: `model=NAME` and the like, of the weights or as the user named it.
        mined: whether the network is an SSD without a pyramid.
        tuned: whether it has the TensorFlow 1 API's heads.
        batch_size: of the network's own settings.
    """

    pictures: int
    objects: int
    classes: int
    side: float
    weights: bool
    why: str
    network: tuple[str, ...]
    mined: bool
    tuned: bool
    batch_size: int


class Speed(NamedTuple):
    """What was measured of one step.

    Attributes:
        seconds: of a step, of each picture in its batch.
        pictures: that fit into memory at once; None where that was not measured.
    """

    seconds: float
    pictures: int | None


class Choice(NamedTuple):
    """Settings, and why.

    Attributes:
        overrides: as the command line takes them.
        reason: in words.
    """

    overrides: tuple[str, ...]
    reason: str


def choose(facts: Facts) -> list[Choice]:
    """All that does not depend on the speed of this machine."""
    chosen = [Choice(facts.network, facts.why)]
    if facts.weights:
        own = (*TUNED, *MINED) if facts.mined else TUNED if facts.tuned else ()
        if own:
            chosen.append(Choice(own, "from published weights short and warm, as small_data"))
        chosen.append(Choice(("augment=colour",), "mild changes of light and colour"))
    else:
        reason = "four pictures in one, but for the last steps: that helped from random weights"
        chosen.append(Choice(MOSAIC, reason))
    if facts.pictures < FEW_PICTURES:
        reason = f"{facts.pictures} pictures are too few to spare any for validation"
        chosen.append(Choice(("data.validation_fraction=0.0",), reason))
    else:
        share = f"data.validation_fraction={VALIDATION}"
        chosen.append(Choice((share,), "validation says which step's weights are best"))
    return chosen


def batch(facts: Facts, speed: Speed, fixed: int | None = None) -> Choice:
    """The batch of the network's settings, or of the user's, at once or in passes."""
    size = fixed or min(facts.batch_size, facts.pictures)
    passes = passes_of(size, speed.pictures)
    given = () if fixed else (f"train.batch_size={size}",)
    if speed.pictures is None:
        return Choice(given, "as the network's settings have it; memory was not measured")
    fits = (
        f"{speed.pictures} pictures fit into memory at once" if passes > 1 else "fits into memory"
    )
    return Choice((*given, f"train.accumulate={passes}"), fits)


def passes_of(size: int, most: int | None) -> int:
    """In how many equal passes a batch is computed, of which each holds at most so many pictures."""
    if most is None:
        return 1
    return next(n for n in range(1, size + 1) if size % n == 0 and size // n <= max(1, most))


def steps(facts: Facts, speed: Speed, size: int, minutes: float | None) -> Choice:
    """More with more pictures, by the root of their number, and with more classes; none beyond the time."""
    first, pictures, most = (
        (TUNED_STEPS, TUNED_PICTURES, MOST_TUNED_STEPS)
        if facts.weights
        else (FIRST_STEPS, FIRST_PICTURES, MOST_FIRST_STEPS)
    )
    wished = first * max(1.0, facts.pictures / pictures) ** 0.5
    wished *= 1 + PER_CLASS * (facts.classes - 1) if facts.weights else 1.0
    count = min(most, round(wished))
    reason = f"by the number of pictures and classes; {seconds_in_words(count * size * speed.seconds)} here"
    if minutes:
        possible = int(60 * minutes * SHARE_OF_TIME / (size * speed.seconds))
        if possible < count:
            count = max(LEAST_STEPS, possible)
            reason = f"as many as train.max_minutes={minutes:g} leaves time for"
    return Choice((f"train.steps={count}",), reason)


def seconds_in_words(seconds: float) -> str:
    """About how long, such as `about 4 minutes`."""
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} minute{'s' * (minutes != 1)}"


def value_of(choices: Sequence[Choice], key: str) -> str | None:
    """What some choices give a key."""
    given = [one.partition("=") for each in choices for one in each.overrides]
    return next((value for name, _, value in reversed(given) if name == key), None)
