"""Start labelImg 1.8.6 on Python 3.10 and later, where it crashes while a box is drawn.

Python 3.10 no longer takes a float where a Qt function wants a whole number; labelImg passes floats.

python -m pip install labelImg==1.8.6
python run_labelimg.py FOLDER CLASS_FILE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from PyQt5.QtGui import QPainter
from PyQt5.QtWidgets import QScrollBar, QSpinBox


def takes_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, with whole numbers made of floats."""

    def called(self: Any, *values: Any) -> Any:
        return function(self, *(int(v) if isinstance(v, float) else v for v in values))

    return called


for owner, names in (
    (QPainter, ("drawLine", "drawRect", "drawText")),
    (QScrollBar, ("setValue",)),
    (QSpinBox, ("setValue",)),
):
    for name in names:
        setattr(owner, name, takes_floats(getattr(owner, name)))

if __name__ == "__main__":
    from labelImg.labelImg import main

    sys.exit(main())
