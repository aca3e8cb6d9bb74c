"""odtrain: from labelled pictures to a registered object detector in one tracked command.

    result = odtrain.train(["model=ssd_mobilenet_v1_coco", "data.images=DIR", "data.name=raccoon"])
    odtrain.load(result.model).predict("picture.jpg")

What it holds is said in `odtrain.api`, and is imported when it is first asked for.
"""

__version__ = "0.1.0"

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


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("odtrain.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
