"""Settings of a network where its name, kind and input do not matter."""

from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig


def made_up_model(**values: object) -> ModelConfig:
    """What `conf/` gives a network, and `values`."""
    own = {"name": "made up", "architecture": "ssd_mobilenet_v1", "input_size": 300}
    return section(ModelConfig, **{**own, **values})
