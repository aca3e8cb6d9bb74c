"""Pictures drawn for comparing recipes, labelled as labelImg labels them: the same seed draws the same ones."""

from __future__ import annotations

import importlib.util
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from odtrain.config.shipped import shipped

SIDE = 240
LETTERS = "ABCDEFGHJKLMNPRSTUVX"
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf")
SEED_OF_TEST = 1000
TEST_PICTURES = {"crowded": 40, "letters": 60}

Labelled = tuple[Image.Image, list[tuple[str, NDArray[np.float64]]]]


def draw_set(name: str, seed: int, pictures: int, folder: Path) -> Path:
    """Draw `pictures` for training with `seed`, and the test pictures, which are the same for all seeds.

    Returns:
        `folder`, with train/ and test/ inside; made once.
    """
    if not (folder / "drawn").is_file():
        for split in ("train", "test"):
            shutil.rmtree(folder / split, ignore_errors=True)
            (folder / split).mkdir(parents=True)
        _DRAWERS[name](seed, pictures, folder)
        (folder / "drawn").touch()
    return folder


def _panels(seed: int, pictures: int, folder: Path) -> None:
    draw = _panels_module()
    for number in range(1, pictures + 1):
        # 10 + seed: seed 0 would draw the pictures that come with odtrain.
        jpeg, xml = draw.draw_picture(10 + seed, "train", number)
        (folder / "train" / f"img{number}.jpg").write_bytes(jpeg)
        (folder / "train" / f"img{number}.xml").write_text(xml, encoding="utf-8")
    shutil.copytree(shipped("data/panels/images") / "test", folder / "test", dirs_exist_ok=True)


def _of(scene: Callable[[Generator], Labelled], name: str) -> Callable[[int, int, Path], None]:
    def write(seed: int, pictures: int, folder: Path) -> None:
        voc_xml = _panels_module().voc_xml
        for split, count, own in (
            ("train", pictures, seed),
            ("test", TEST_PICTURES[name], SEED_OF_TEST),
        ):
            for number in range(count):
                image, boxes = scene(np.random.default_rng([own, number]))
                file, data = folder / split / f"{split}{number}.jpg", io.BytesIO()
                image.save(data, "JPEG", quality=88)
                file.write_bytes(data.getvalue())
                xml = voc_xml(split, file.name, image.size, boxes)
                file.with_suffix(".xml").write_text(xml, encoding="utf-8")

    return write


def _crowd(rng: Generator) -> Labelled:
    """30 to 60 discs and rings of 8 to 26 pixels, which may lie on one another."""
    image = _ground(rng)
    draw, boxes = ImageDraw.Draw(image), []
    for _ in range(rng.integers(30, 61)):
        side, (x, y) = rng.uniform(8, 26), rng.uniform(0, SIDE - 26, 2)
        colour = tuple(rng.integers(30, 226, 3).tolist())
        kind = "disc" if rng.random() < 0.5 else "ring"
        box = (x, y, x + side, y + side)
        draw.ellipse(box, fill=colour if kind == "disc" else None, outline=colour, width=3)
        boxes.append((kind, np.array(box)))
    return image.filter(ImageFilter.GaussianBlur(0.5)), boxes


def _letters(rng: Generator) -> Labelled:
    """3 to 8 letters of 18 to 60 pixels, apart from one another."""
    from matplotlib import font_manager

    image = _ground(rng)
    draw, boxes = ImageDraw.Draw(image), []
    for cell in rng.permutation(9)[: rng.integers(3, 9)]:
        letter = LETTERS[rng.integers(len(LETTERS))]
        family = font_manager.findfont(FONTS[rng.integers(len(FONTS))].removesuffix(".ttf"))
        font = ImageFont.truetype(family, int(rng.uniform(22, 66)))
        row, column = divmod(int(cell), 3)
        place = (column * 80 + rng.uniform(5, 20), row * 80 + rng.uniform(-5, 5))
        box = np.clip(draw.textbbox(place, letter, font=font), 0, SIDE).astype(float)
        draw.text(place, letter, tuple(rng.integers(0, 256, 3).tolist()), font=font)
        if (box[2:] - box[:2]).min() > 4:
            boxes.append((letter, box))
    return image.filter(ImageFilter.GaussianBlur(0.5)), boxes


def _ground(rng: Generator) -> Image.Image:
    """Soft patches of colour with noise on them."""
    patches = Image.fromarray(rng.integers(60, 220, (6, 6, 3)).astype(np.uint8))
    smooth = np.asarray(patches.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
    noise = rng.normal(0, 8, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _panels_module() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "data" / "panels" / "draw.py"
    spec = importlib.util.spec_from_file_location("draw_panels", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


_DRAWERS: dict[str, Callable[[int, int, Path], None]] = {
    "panels": _panels,
    "crowded": _of(_crowd, "crowded"),
    "letters": _of(_letters, "letters"),
}
