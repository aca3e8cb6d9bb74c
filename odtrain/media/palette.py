"""The colour of each class: the same in drawn pictures, charts and on every page.

The first seven are Okabe's and Ito's ("Color Universal Design", 2008; Wong, Nature Methods 8, 441, 2011)
without their black: people who see no red, or no green, tell them apart as well. Further classes cannot all
be told apart by colour; neighbours differ in lightness too, and names stand beside boxes.
"""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

FIRST_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermillion
    (0, 114, 178),  # blue
    (240, 228, 66),  # yellow
)
LIGHTNESS = (0.8, 0.52, 0.66)
COLOURS = 256
"""That a page is told; classes beyond share them."""


def class_colour(class_id: int) -> Colour:
    """A colour of its own for every class id."""
    if 1 <= class_id <= len(FIRST_COLOURS):
        return FIRST_COLOURS[class_id - 1]
    hue = class_id * 0.618034 % 1  # steps by the golden ratio keep neighbouring ids apart
    red, green, blue = colorsys.hls_to_rgb(hue, LIGHTNESS[class_id % 3], 0.9 - 0.3 * (class_id % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def css_colour(class_id: int) -> str:
    """The same as `#rrggbb`."""
    return f"#{bytes(class_colour(class_id)).hex()}"


def css_colours(classes: int = COLOURS) -> list[str]:
    """Those of the first ids, from 1 on."""
    return [css_colour(number) for number in range(1, classes + 1)]
