"""Draw the demo data set: photographs of elevator button panels that nobody had to take.

    python data/panels/draw.py --to DIR --seed 0

writes DIR/images/train and DIR/images/test, each picture with its labels beside it as labelImg
writes them. Every picture has a random generator of its own, seeded by (seed, split, number), so
one of them can be redrawn without the others.

A scene is laid out in units of one button's width: a wall, a plate on it, and on the plate
`Item`s. A camera (a homography) looks at a part of it; lens, light, sensor and JPEG follow.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

import matplotlib
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]
Row = TypeVar("Row")

SPLITS = {"train": 720, "test": 80}
BACKGROUND_SHARE = 0.05
SIZES = [(240, 180), (180, 240), (240, 240), (216, 240), (240, 204), (192, 240), (228, 228)]
OVERSAMPLING = 2
LEAST_VISIBLE = 0.7
FEWEST_OBJECTS, MOST_OBJECTS = 3, 10

FONTS = [
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneral.ttf",
    "cmss10.ttf",
    "cmb10.ttf",
    None,  # Pillow's own
]
WALLS: list[tuple[Colour, float, str]] = [
    ((206, 200, 188), 3, "grain"),
    ((178, 184, 188), 3, "grain"),
    ((150, 146, 140), 5, "grain"),
    ((132, 94, 62), 16, "vertical"),
    ((96, 66, 46), 14, "vertical"),
    ((188, 156, 116), 12, "vertical"),
    ((150, 152, 155), 7, "horizontal"),
    ((88, 100, 112), 3, "grain"),
    ((120, 44, 40), 4, "grain"),
]
PLATES: list[tuple[Colour, float, str]] = [
    ((172, 174, 176), 8, "horizontal"),
    ((158, 160, 164), 9, "vertical"),
    ((192, 193, 192), 6, "horizontal"),
    ((186, 158, 98), 8, "vertical"),
    ((84, 86, 90), 5, "horizontal"),
    ((26, 27, 30), 1, "grain"),
    ((222, 221, 214), 2, "grain"),
    ((124, 98, 76), 7, "vertical"),
    ((104, 118, 130), 2, "grain"),
]
FACES: list[tuple[Colour, Colour]] = [  # a button's face, and what is printed on it
    ((190, 191, 192), (28, 28, 30)),
    ((205, 204, 198), (150, 24, 22)),
    ((236, 234, 226), (22, 22, 24)),
    ((238, 236, 230), (24, 50, 120)),
    ((30, 31, 34), (240, 240, 236)),
    ((44, 45, 48), (244, 214, 120)),
    ((226, 214, 180), (40, 30, 24)),
    ((120, 122, 126), (250, 250, 250)),
]
ALARM_FACES: list[tuple[Colour, Colour]] = [
    ((232, 196, 36), (24, 22, 16)),
    ((196, 34, 30), (250, 248, 244)),
    ((226, 120, 28), (26, 20, 16)),
]
DOOR_FACES: dict[str, list[tuple[Colour, Colour]]] = {
    "open": [((40, 130, 62), (248, 250, 246)), ((236, 238, 232), (16, 128, 52))],
    "close": [((38, 76, 152), (246, 248, 252)), ((236, 238, 232), (22, 62, 158))],
}
LIGHTS: list[Colour] = [
    (255, 176, 40),
    (255, 70, 48),
    (72, 150, 255),
    (70, 230, 120),
    (250, 250, 240),
]


@dataclass(frozen=True)
class Style:
    """What the buttons of one panel have in common."""

    shape: str
    face: Colour
    ink: Colour
    alarm: tuple[Colour, Colour]
    doors: dict[str, tuple[Colour, Colour]]
    light: Colour
    font: str | None
    ring: float
    braille: bool


@dataclass(frozen=True)
class Item:
    """One thing on a plate; centre and size in units, `kind` is its class or None for clutter."""

    kind: str | None
    x: float
    y: float
    width: float = 1.0
    height: float = 1.0
    text: str = ""
    lit: bool = False


@dataclass(frozen=True)
class Camera:
    """Where the scene is seen from.

    Attributes:
        matrix: (3, 3) homography from the finished picture's pixels (x, y, 1) to scene units.
        corners: (4, 2) x, y of the view's corners in the scene, clockwise from the top left.
        unit: pixels that one unit is wide in the finished picture, roughly.
    """

    matrix: Floats
    corners: Floats
    unit: float


def pick(rng: Generator, table: Sequence[Row]) -> Row:
    """One row of `table`."""
    return table[int(rng.integers(len(table)))]


# The scene


def random_style(rng: Generator) -> Style:
    """One maker's buttons."""
    face, ink = pick(rng, FACES)
    alarm = pick(rng, ALARM_FACES)
    doors = {kind: pick(rng, faces) for kind, faces in DOOR_FACES.items()}
    return Style(
        shape=pick(rng, ["round", "round", "square", "rounded"]),
        face=face,
        ink=ink,
        alarm=alarm,
        doors=doors,
        light=pick(rng, LIGHTS),
        font=pick(rng, FONTS),
        ring=float(rng.uniform(0.05, 0.13)),
        braille=bool(rng.random() < 0.35),
    )


def floor_names(rng: Generator, count: int) -> list[str]:
    """`count` floors from the lowest up, as different houses name them."""
    ground = pick(rng, ["G", "L", "0", "1", "E", "P"])
    basements = int(rng.integers(0, 3))
    below = [f"{pick(rng, ['B', '-', 'U'])}{n}" for n in range(basements, 0, -1)]
    first = 2 if ground == "1" else 1
    return [*below, ground, *(str(n) for n in range(first, first + count))][:count]


def random_panel(rng: Generator) -> list[Item]:
    """A panel's items: a display on top, floors below it, doors and alarm at the bottom."""
    columns = int(rng.integers(1, 4))
    rows = int(rng.integers(2, 7 if columns < 3 else 5))
    pitch_x, pitch_y = rng.uniform(1.3, 1.9), rng.uniform(1.25, 1.6)
    xs = (np.arange(columns) - (columns - 1) / 2) * pitch_x
    names = floor_names(rng, rows * columns)
    lit = rng.random(len(names)) < 0.18
    floors = [
        Item("floor", xs[i % columns], -(i // columns) * pitch_y, text=names[i], lit=bool(lit[i]))
        for i in range(len(names))
    ]
    services = service_rows(rng, pitch_x, pitch_y, columns)
    top = min(item.y for item in floors)
    return [*floors, *services, *head(rng, top - pitch_y)]


def service_rows(rng: Generator, pitch_x: float, pitch_y: float, columns: int) -> list[Item]:
    """Door, alarm and key items under the floors (whose lowest row is at y 0)."""
    kinds = ["open", "close", "alarm"]
    if rng.random() < 0.65:
        kinds.insert(int(rng.integers(2, 4)), "key")
    if rng.random() < 0.25:
        kinds[0], kinds[1] = kinds[1], kinds[0]
    across = 3 if columns == 3 else 2
    gap = pitch_y * rng.uniform(1.0, 1.35)
    items = []
    for i, kind in enumerate(kinds):
        row, column = divmod(i, across)
        in_row = min(across, len(kinds) - row * across)
        x = (column - (in_row - 1) / 2) * pitch_x
        items.append(
            Item(kind, x, gap + row * pitch_y, lit=kind != "key" and bool(rng.random() < 0.12))
        )
    return items


def head(rng: Generator, y: float) -> list[Item]:
    """What is above the floors: often a display, sometimes a loudspeaker, a sign."""
    items = []
    if rng.random() < 0.85:
        width, height = rng.uniform(1.7, 2.5), rng.uniform(1.1, 1.5)
        y -= height / 2 - 0.3
        text = f"{pick(rng, ['▲', '▼', ''])}{rng.integers(1, 28)}"
        items.append(Item("display", 0.0, y, width, height, text))
        y -= height / 2 + 0.7
    if rng.random() < 0.4:
        sign = pick(rng, ["630 kg  8 pers.", "MAX 450 kg", "NO SMOKING", "1000 kg  13 persons"])
        items.append(Item(None, 0.0, y, 2.4, 0.35, sign))
        y -= 0.8
    if rng.random() < 0.35:
        items.append(Item(None, 0.0, y - 0.3, 1.6, 1.0, "speaker"))
    return items


# The camera


def look_at(rng: Generator, centre: tuple[float, float], size: tuple[int, int]) -> Camera:
    """A hand-held view of the scene around `centre`, for a picture of `size` (width, height)."""
    unit = float(rng.uniform(40, 64))
    half = np.array(size) / unit / 2
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
    yaw, pitch = rng.uniform(-0.14, 0.14, 2)
    depth = 1 + yaw * square[:, 0] + pitch * square[:, 1]
    angle = np.deg2rad(rng.normal(0, 2.5))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (square * half * depth[:, None]) @ turn.T + centre
    width, height = size
    picture = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=float)
    return Camera(homography(picture, corners), corners, unit)


def homography(source: Floats, target: Floats) -> Floats:
    """The (3, 3) matrix that maps four (x, y) points `source` onto `target`."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    solution = np.linalg.solve(np.array(rows), target.reshape(-1))
    return np.append(solution, 1.0).reshape(3, 3)


def project(matrix: Floats, points: Floats) -> Floats:
    """(N, 2) `points` through a homography."""
    flat = np.c_[points, np.ones(len(points))] @ matrix.T
    flattened: Floats = flat[:, :2] / flat[:, 2:]
    return flattened


def outline(item: Item, style: Style) -> Floats:
    """(N, 2) points around an item, in scene units."""
    is_round = item.kind == "key" or (item.kind != "display" and style.shape == "round")
    if is_round:
        angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        circle: Floats = np.c_[np.cos(angles), np.sin(angles)]
        return np.array([item.x, item.y]) + circle * [item.width / 2, item.height / 2]
    sides = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    return np.array([item.x, item.y]) + sides * [item.width, item.height]


def visible_boxes(
    items: list[Item], style: Style, camera: Camera, size: tuple[int, int]
) -> list[tuple[str, Floats, float]]:
    """Class, clipped box (xmin, ymin, xmax, ymax in pixels) and visible share of each item seen."""
    to_picture: Floats = np.linalg.inv(camera.matrix).astype(np.float64)
    found = []
    for item in items:
        if item.kind is None:
            continue
        points = project(to_picture, outline(item, style))
        box = np.r_[points.min(axis=0), points.max(axis=0)]
        clipped = np.clip(box, 0, [*size, *size])
        share = np.prod(clipped[2:] - clipped[:2]) / np.prod(box[2:] - box[:2])
        if share > 0.02:
            found.append((item.kind, clipped, float(share)))
    return found


def frame(
    rng: Generator, items: list[Item], style: Style, size: tuple[int, int]
) -> tuple[Camera, list[tuple[str, Floats]]]:
    """A view that shows a handful of items and cuts none of them in half."""
    kinds = sorted({item.kind for item in items if item.kind})
    rare = [kind for kind in kinds if kind in ("display", "key")]
    kind = pick(rng, rare if rare and rng.random() < 0.35 else kinds)
    while True:
        near = pick(rng, [item for item in items if item.kind == kind])
        centre = (near.x + rng.normal(0, 1.1), near.y + rng.normal(0, 1.1))
        camera = look_at(rng, centre, size)
        boxes = visible_boxes(items, style, camera, size)
        cut = any(share < LEAST_VISIBLE for _, _, share in boxes)
        if FEWEST_OBJECTS <= len(boxes) <= MOST_OBJECTS and not cut:
            return camera, [(kind, box) for kind, box, _ in boxes]


# Surfaces


def surface(
    rng: Generator, size: tuple[int, int], material: tuple[Colour, float, str]
) -> Image.Image:
    """Wall or plate of `size` (width, height): its colour, roughness and direction of brushing."""
    colour, roughness, direction = material
    width, height = size
    coarse = {
        "grain": (width // 3 + 1, height // 3 + 1),
        "horizontal": (width // 60 + 2, height),
        "vertical": (width, height // 60 + 2),
    }[direction]
    noise = rng.normal(128, 40, (coarse[1], coarse[0])).clip(0, 255).astype(np.uint8)
    grain = np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), np.float64)
    shade = (grain - 128) / 40 * roughness
    tint = np.array(colour) * rng.uniform(0.88, 1.1) + rng.normal(0, 4, 3)
    return to_image(tint + shade[..., None])


def sheen(rng: Generator, image: Image.Image, strength: float) -> Image.Image:
    """`image` with the broad reflections that a plate of metal or glass has."""
    width, height = image.size
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    wave = np.sin(along * rng.uniform(3, 9) + rng.uniform(0, 6)) * rng.uniform(0.3, 1.0)
    return to_image(np.asarray(image) * (1 + strength * wave[..., None]))


def to_image(pixels: Floats) -> Image.Image:
    """RGB picture of (H, W, 3) values, cut off at 0 and 255."""
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shaded(size: tuple[int, int], colour: Colour, top: float, bottom: float) -> Image.Image:
    """A patch of `colour` whose brightness runs from `top` to `bottom` (factors)."""
    width, height = size
    run = np.linspace(top, bottom, height)[:, None, None]
    return to_image(np.broadcast_to(np.array(colour) * run, (height, width, 3)))


def shape_mask(size: tuple[int, int], shape: str, inset: float = 0.0) -> Image.Image:
    """White `shape` on black, `inset` pixels inside a patch of `size`."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    box = (inset, inset, size[0] - 1 - inset, size[1] - 1 - inset)
    if shape == "round":
        draw.ellipse(box, fill=255)
    else:
        draw.rounded_rectangle(
            box, radius=min(size) * (0.2 if shape == "rounded" else 0.04), fill=255
        )
    return mask


# Items: each takes a patch of its own size and draws itself into it


def draw_button(rng: Generator, patch: Image.Image, item: Item, style: Style) -> None:
    """A ring, a face and the mark on it; lit ones shine in the panel's colour."""
    size, side = patch.size, min(patch.size)
    of_kind = {"alarm": style.alarm, **style.doors}
    face, ink = of_kind.get(str(item.kind), (style.face, style.ink))
    red, green, blue = style.face
    steel = (red // 2 + 90, green // 2 + 90, blue // 2 + 90)
    ring = style.light if item.lit else steel
    patch.paste(shaded(size, ring, 1.25, 0.65), mask=shape_mask(size, style.shape))
    inset = style.ring * side
    dark = shape_mask(size, style.shape, inset * 0.8)
    patch.paste((30, 30, 32), mask=dark)
    top, bottom = (0.92, 1.1) if rng.random() < 0.5 else (1.1, 0.9)
    patch.paste(shaded(size, face, top, bottom), mask=shape_mask(size, style.shape, inset))
    if item.lit and sum(face) < 400:
        ink = style.light
    mark = Image.new("L", size)
    MARKS[item.kind](ImageDraw.Draw(mark), side, item.text, style.font)
    patch.paste(ink, mask=mark)


def mark_text(draw: ImageDraw.ImageDraw, side: int, text: str, font: str | None) -> None:
    """The floor's name, as large as fits."""
    size = side * (0.56 if len(text) == 1 else 0.44)
    draw.text((side / 2, side / 2), text, 255, load_font(font, size), anchor="mm")


def mark_open(draw: ImageDraw.ImageDraw, side: int, text: str, font: str | None) -> None:
    """Two triangles that point outwards, a line between them."""
    for way in (-1, 1):
        draw.polygon(triangle(side, way, base=0.08, tip=0.34), fill=255)
    draw.rectangle((side * 0.48, side * 0.28, side * 0.52, side * 0.72), fill=255)


def mark_close(draw: ImageDraw.ImageDraw, side: int, text: str, font: str | None) -> None:
    """Two triangles that point at each other."""
    for way in (-1, 1):
        draw.polygon(triangle(side, way, base=0.34, tip=0.06), fill=255)


def triangle(side: int, way: int, base: float, tip: float) -> list[tuple[float, float]]:
    """A triangle left (-1) or right (1) of a button's middle, its base and tip that far from it."""
    centre, high = side / 2, side * 0.22
    base_x, tip_x = centre + way * base * side, centre + way * tip * side
    return [(base_x, centre - high), (base_x, centre + high), (tip_x, centre)]


def mark_bell(draw: ImageDraw.ImageDraw, side: int, text: str, font: str | None) -> None:
    """A bell: dome, flared rim, clapper and the knob on top."""

    def at(x: float, y: float) -> tuple[float, float]:
        return (side * (0.5 + x), side * (0.5 + y))

    draw.ellipse((*at(-0.17, -0.25), *at(0.17, 0.11)), fill=255)
    draw.polygon(
        [
            at(-0.17, -0.07),
            at(0.17, -0.07),
            at(0.2, 0.1),
            at(0.27, 0.17),
            at(-0.27, 0.17),
            at(-0.2, 0.1),
        ],
        fill=255,
    )
    draw.ellipse((*at(-0.07, 0.13), *at(0.07, 0.27)), fill=255)
    draw.ellipse((*at(-0.045, -0.31), *at(0.045, -0.22)), fill=255)


MARKS: dict[str | None, Callable[[ImageDraw.ImageDraw, int, str, str | None], None]] = {
    "floor": mark_text,
    "open": mark_open,
    "close": mark_close,
    "alarm": mark_bell,
}


def draw_key(rng: Generator, patch: Image.Image, item: Item, style: Style) -> None:
    """A lock: a bright ring, a barrel and the slot, turned by some angle."""
    size, side = patch.size, min(patch.size)
    patch.paste(shaded(size, (214, 212, 204), 1.15, 0.6), mask=shape_mask(size, "round"))
    patch.paste(
        shaded(size, (150, 148, 142), 0.6, 1.2), mask=shape_mask(size, "round", side * 0.12)
    )
    patch.paste(
        shaded(size, (196, 186, 150), 1.1, 0.85), mask=shape_mask(size, "round", side * 0.22)
    )
    slot = Image.new("L", size)
    draw = ImageDraw.Draw(slot)
    draw.rectangle((side * 0.45, side * 0.28, side * 0.55, side * 0.72), fill=255)
    draw.ellipse((side * 0.41, side * 0.3, side * 0.59, side * 0.48), fill=255)
    patch.paste((18, 17, 16), mask=slot.rotate(float(pick(rng, [0, 0, 45, 90, -45]))))


def draw_display(rng: Generator, patch: Image.Image, item: Item, style: Style) -> None:
    """A dark window with an arrow and a number of light in it, sometimes made of dots."""
    size, side = patch.size, min(patch.size)
    patch.paste((70, 71, 74), mask=shape_mask(size, "rounded"))
    patch.paste(shaded(size, (16, 15, 18), 1.9, 0.8), mask=shape_mask(size, "square", side * 0.07))
    glyphs = Image.new("L", size)
    font = load_font("DejaVuSansMono-Bold.ttf", side * 0.62)
    ImageDraw.Draw(glyphs).text((size[0] / 2, size[1] / 2), item.text, 255, font, anchor="mm")
    if rng.random() < 0.5:
        glyphs = dotted(glyphs, max(3, side // 18))
    glow = glyphs.filter(ImageFilter.GaussianBlur(side * 0.06)).point(lambda v: v // 2)
    patch.paste(style.light, mask=glow)
    patch.paste(style.light, mask=glyphs)


def dotted(mask: Image.Image, pitch: int) -> Image.Image:
    """`mask` seen through a grid of round holes."""
    values = np.asarray(mask)
    y, x = np.mgrid[0 : values.shape[0], 0 : values.shape[1]] % pitch - (pitch - 1) / 2
    return Image.fromarray(np.where(np.hypot(x, y) < pitch * 0.46, values, 0).astype(np.uint8))


def draw_clutter(rng: Generator, patch: Image.Image, item: Item, style: Style) -> None:
    """A loudspeaker's holes, or the words of a sign."""
    draw = ImageDraw.Draw(patch)
    width, height = patch.size
    if item.text != "speaker":
        font = load_font(style.font, height * 0.75)
        draw.text((width / 2, height / 2), item.text, (40, 40, 42), font, anchor="mm")
        return
    pitch = height / 7
    for row in range(7):
        for column in range(int(width / pitch)):
            x, y = (column + 0.5 + row % 2 * 0.5) * pitch, (row + 0.5) * pitch
            draw.ellipse(
                (x - pitch / 5, y - pitch / 5, x + pitch / 5, y + pitch / 5), fill=(20, 20, 22)
            )


ARTISTS: dict[str | None, Callable[[Generator, Image.Image, Item, Style], None]] = {
    "floor": draw_button,
    "open": draw_button,
    "close": draw_button,
    "alarm": draw_button,
    "key": draw_key,
    "display": draw_display,
    None: draw_clutter,
}


def load_font(name: str | None, size: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """A font that comes with matplotlib, or Pillow's own; none of the system's."""
    if name is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


# Putting the scene together


def draw_scene(
    rng: Generator, items: list[Item], style: Style, camera: Camera
) -> tuple[Image.Image, Floats, float]:
    """Whatever the camera can see, drawn flat.

    Returns:
        the picture, the scene (x, y) of its top left corner, and its pixels per unit.
    """
    scale = camera.unit * OVERSAMPLING
    origin = camera.corners.min(axis=0) - 0.1
    extent = np.ceil((camera.corners.max(axis=0) + 0.1 - origin) * scale).astype(int)
    size = (int(extent[0]), int(extent[1]))
    canvas = sheen(rng, surface(rng, size, pick(rng, WALLS)), 0.05)
    if not items:
        draw_corridor(rng, canvas)
        return canvas, origin, scale
    draw_plate(rng, canvas, items, origin, scale)
    cast_shadows(canvas, items, style, origin, scale)
    for item in items:
        left, top = ((item.x - item.width / 2, item.y - item.height / 2) - origin) * scale
        patch_size = (max(8, round(item.width * scale)), max(8, round(item.height * scale)))
        place = (round(left), round(top))
        patch = canvas.crop((*place, place[0] + patch_size[0], place[1] + patch_size[1]))
        ARTISTS[item.kind](rng, patch, item, style)
        canvas.paste(patch, place)
        if item.kind == "floor" and style.braille:
            draw_braille(rng, canvas, place, patch_size[0])
    return canvas, origin, scale


def draw_plate(
    rng: Generator, canvas: Image.Image, items: list[Item], origin: Floats, scale: float
) -> None:
    """The plate that carries the items: its shadow on the wall, a bevelled edge, screws."""
    margin = rng.uniform(0.35, 0.8)
    low = np.array([min(i.x - i.width / 2 for i in items), min(i.y - i.height / 2 for i in items)])
    high = np.array([max(i.x + i.width / 2 for i in items), max(i.y + i.height / 2 for i in items)])
    left, top = (low - margin - origin) * scale
    right, bottom = (high + margin - origin) * scale
    radius, edge = float(pick(rng, [0.0, 0.05, 0.25])) * scale, max(2, scale * 0.03)
    shadow = Image.new("L", canvas.size)
    drop = scale * rng.uniform(0.03, 0.12)
    ImageDraw.Draw(shadow).rounded_rectangle(
        (left + drop, top + drop, right + drop, bottom + drop), radius, fill=150
    )
    canvas.paste((10, 10, 12), mask=shadow.filter(ImageFilter.GaussianBlur(scale * 0.08)))
    material = pick(rng, PLATES)
    plate = sheen(rng, surface(rng, canvas.size, material), rng.uniform(0.04, 0.22))
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).rounded_rectangle((left, top, right, bottom), radius, fill=255)
    canvas.paste(tuple(min(255, int(c * 1.2 + 25)) for c in material[0]), mask=mask)
    inner = Image.new("L", canvas.size)
    ImageDraw.Draw(inner).rounded_rectangle(
        (left + edge, top + edge, right, bottom), radius, fill=255
    )
    canvas.paste(plate, mask=inner)
    if rng.random() < 0.6:
        draw_screws(canvas, (left, top, right, bottom), scale)


def draw_screws(canvas: Image.Image, box: tuple[float, float, float, float], scale: float) -> None:
    """Four small screws in the corners of `box`."""
    draw, inset, radius = ImageDraw.Draw(canvas), scale * 0.2, scale * 0.06
    for x in (box[0] + inset, box[2] - inset):
        for y in (box[1] + inset, box[3] - inset):
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius), (128, 128, 126), (50, 50, 50)
            )
            draw.line((x - radius, y - radius, x + radius, y + radius), (50, 50, 50), 2)


def cast_shadows(
    canvas: Image.Image, items: list[Item], style: Style, origin: Floats, scale: float
) -> None:
    """Soft shadows under the buttons, and around lit ones their light."""
    shadow, glow = Image.new("L", canvas.size), Image.new("L", canvas.size)
    for item in items:
        if item.kind is None:
            continue
        points = (outline(item, style) - origin) * scale
        ImageDraw.Draw(shadow).polygon([tuple(p) for p in points + scale * 0.04], fill=140)
        if item.lit:
            wider = points + (points - points.mean(axis=0)) * 0.18
            ImageDraw.Draw(glow).polygon([tuple(p) for p in wider], fill=190)
    canvas.paste((8, 8, 10), mask=shadow.filter(ImageFilter.GaussianBlur(scale * 0.05)))
    canvas.paste(style.light, mask=glow.filter(ImageFilter.GaussianBlur(scale * 0.09)))


def draw_braille(rng: Generator, canvas: Image.Image, place: tuple[int, int], side: int) -> None:
    """Raised dots beside a button."""
    draw, pitch = ImageDraw.Draw(canvas), side * 0.055
    for row in range(3):
        for column in range(2):
            if rng.random() < 0.6:
                x, y = (
                    place[0] - pitch * (4 - 1.6 * column),
                    place[1] + side * 0.4 + pitch * 1.6 * row,
                )
                draw.ellipse((x, y, x + pitch, y + pitch), (226, 226, 222), (70, 70, 70))


def draw_corridor(rng: Generator, canvas: Image.Image) -> None:
    """A wall without a panel: door leaves, a skirting board, a poster, a handrail."""
    width, height = canvas.size
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.7:
        door = sheen(rng, surface(rng, canvas.size, pick(rng, PLATES)), 0.15)
        left = int(width * rng.uniform(-0.2, 0.6))
        canvas.paste(door.crop((0, 0, width, height)), (left, int(height * rng.uniform(0, 0.3))))
        seam = left + int(width * rng.uniform(0.3, 0.6))
        draw.line((seam, 0, seam, height), (20, 20, 22), max(3, width // 90))
    if rng.random() < 0.5:
        y = int(height * rng.uniform(0.3, 0.8))
        canvas.paste(shaded((width, height // 12), (180, 180, 178), 1.2, 0.5), (0, y))
    if rng.random() < 0.5:
        x, y = int(width * rng.uniform(0.05, 0.5)), int(height * rng.uniform(0.05, 0.5))
        draw.rectangle((x, y, x + width // 3, y + height // 4), (232, 230, 222), (90, 90, 90), 2)
        words = pick(rng, ["EXIT", "STAIRS", "WET PAINT", "LEVEL 3", "FIRE DOOR"])
        font = load_font(pick(rng, FONTS), width / 24)
        draw.text((x + width / 6, y + height / 8), words, (150, 30, 28), font, anchor="mm")


# Light, lens, sensor


def photograph(
    rng: Generator,
    scene: Image.Image,
    origin: Floats,
    scale: float,
    camera: Camera,
    size: tuple[int, int],
) -> Image.Image:
    """The scene through the camera: perspective, light, blur and noise."""
    to_canvas = np.array(
        [[scale, 0, -origin[0] * scale], [0, scale, -origin[1] * scale], [0, 0, 1]]
    )
    shrink = np.diag([1 / OVERSAMPLING, 1 / OVERSAMPLING, 1])
    matrix = to_canvas @ camera.matrix @ shrink
    coefficients = (matrix / matrix[2, 2]).reshape(-1)[:8]
    large = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
    view = scene.transform(
        large, Image.Transform.PERSPECTIVE, coefficients.tolist(), Image.Resampling.BILINEAR
    )
    pixels = np.asarray(view.resize(size, Image.Resampling.LANCZOS), np.float64)
    lit = to_image(pixels * light(rng, size) + glare(rng, size))
    blur = float(rng.choice([0.0, 0.5, 0.9], p=[0.5, 0.35, 0.15]))
    soft = np.asarray(lit.filter(ImageFilter.GaussianBlur(blur)), np.float64)
    return to_image(soft + rng.normal(0, rng.uniform(0.5, 4.0), soft.shape))


def light(rng: Generator, size: tuple[int, int]) -> Floats:
    """(H, W, 3) factors: exposure, colour of the lamps, fall-off to one side and to the corners."""
    y, x = unit_grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    slope = 1 + rng.uniform(0, 0.35) * (x * np.cos(angle) + y * np.sin(angle))
    corners = 1 - rng.uniform(0, 0.25) * (x**2 + y**2)
    warmth = rng.normal(0, 0.05)
    lamps = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.65, 1.2)
    factors: Floats = (slope * corners)[..., None] * lamps
    return factors


def glare(rng: Generator, size: tuple[int, int]) -> Floats:
    """(H, W, 1) light added where a lamp is mirrored; usually none."""
    y, x = unit_grid(size)
    if rng.random() < 0.55:
        return np.zeros((size[1], size[0], 1))
    centre_x, centre_y = rng.uniform(-1, 1, 2)
    wide, high = rng.uniform(0.15, 0.6, 2)
    distance = ((x - centre_x) / wide) ** 2 + ((y - centre_y) / high) ** 2
    added: Floats = (rng.uniform(30, 110) * np.exp(-distance))[..., None]
    return added


def unit_grid(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Rows and columns (y, x) of every pixel, -1 to 1."""
    width, height = size
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return y, x


# Files


def picture_name(split: str, number: int) -> str:
    """File name without suffix; no two pictures of the data set share one."""
    return f"panel-{split}-{number:04d}"


def draw_picture(seed: int, split: str, number: int) -> tuple[bytes, str]:
    """JPEG and labelImg XML of one picture of the data set."""
    rng = np.random.default_rng([seed, list(SPLITS).index(split), number])
    size = pick(rng, SIZES)
    style = random_style(rng)
    items = [] if rng.random() < BACKGROUND_SHARE else random_panel(rng)
    if items:
        camera, boxes = frame(rng, items, style, size)
    else:
        camera, boxes = look_at(rng, (0.0, 0.0), size), []
    scene, origin, scale = draw_scene(rng, items, style, camera)
    picture = photograph(rng, scene, origin, scale, camera, size)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(45, 74)), optimize=True)
    return file.getvalue(), voc_xml(split, f"{picture_name(split, number)}.jpg", size, boxes)


def voc_xml(folder: str, name: str, size: tuple[int, int], boxes: list[tuple[str, Floats]]) -> str:
    """Labels as labelImg 1.8.6 writes them.

    Args:
        folder: the last folder that the picture is in.
        name: the picture's file name.
        size: width, height of the picture in pixels.
        boxes: class and (xmin, ymin, xmax, ymax) in pixels. labelImg drops their fractions and
            lets no minimum be below 1; "truncated" only says that a box touches the border.
    """
    root = ElementTree.Element("annotation")
    element(root, "folder", folder)
    element(root, "filename", name)
    element(root, "path", f"{folder}/{name}")
    element(element(root, "source"), "database", "Unknown")
    fields = element(root, "size")
    for field, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        element(fields, field, value)
    element(root, "segmented", 0)
    for kind, box in boxes:
        add_object(root, size, kind, box)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def add_object(root: ElementTree.Element, size: tuple[int, int], kind: str, box: Floats) -> None:
    """One labelled box, see `voc_xml`."""
    xmin, ymin = (int(max(1, v)) for v in box[:2])
    xmax, ymax = (int(v) for v in box[2:])
    truncated = xmin == 1 or ymin == 1 or xmax == size[0] or ymax == size[1]
    node = element(root, "object")
    element(node, "name", kind)
    element(node, "pose", "Unspecified")
    element(node, "truncated", int(truncated))
    element(node, "difficult", 0)
    corners = element(node, "bndbox")
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), (xmin, ymin, xmax, ymax), strict=True):
        element(corners, tag, value)


def element(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
    """A new last child of `parent`."""
    child = ElementTree.SubElement(parent, tag)
    child.text = None if text is None else str(text)
    return child


def main() -> None:
    """Draw both splits."""
    parser = argparse.ArgumentParser(description="Draw the demo data set.")
    parser.add_argument("--to", type=Path, required=True, help="folder to write images/ into")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other pictures")
    options = parser.parse_args()
    for split, count in SPLITS.items():
        folder = options.to / "images" / split
        folder.mkdir(parents=True, exist_ok=True)
        for number in tqdm(range(1, count + 1), desc=split):
            jpeg, xml = draw_picture(options.seed, split, number)
            file = folder / f"{picture_name(split, number)}.jpg"
            file.write_bytes(jpeg)
            file.with_suffix(".xml").write_text(xml, encoding="utf-8")


if __name__ == "__main__":
    main()
