# What type checkers and editors see of `import odtrain`: the names that __getattr__ gives.
from odtrain.api import Detections as Detections
from odtrain.api import check as check
from odtrain.api import compose as compose
from odtrain.api import evaluate as evaluate
from odtrain.api import load as load
from odtrain.api import prepare as prepare
from odtrain.api import train as train

__version__: str

__all__ = [
    "Detections",
    "__version__",
    "check",
    "compose",
    "evaluate",
    "load",
    "prepare",
    "train",
]
