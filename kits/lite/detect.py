"""Find objects in a picture: class, score, left, top, right, bottom in pixels, a line each.

python -m pip install numpy pillow ai-edge-litert
python detect.py PICTURE [THRESHOLD] [FILE DELEGATE], such as model_int8_edgetpu.tflite libedgetpu.so.1
"""

import json
import sys
from pathlib import Path

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter, load_delegate
except ModuleNotFoundError:
    from tflite_runtime.interpreter import Interpreter, load_delegate

HERE = Path(__file__).resolve().parent
KIT = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))


def framed(file):
    """(1, height, width, 3) uint8 as in training; the sides in pixels that 1.0 of a box means."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    size, frame = np.float32(upright.size), np.float32([KIT["width"], KIT["height"]])
    scaled = size * (frame / size).min()  # in proportion: at the top left, the rest is filled
    ways = {"stretch": frame, "pad": np.rint(scaled), "pad_grey": np.fmax(scaled // 1, 1)}
    fitted = ways[KIT["resize"]]
    # Bilinear without antialiasing; where the picture is stretched, pixel i from i * old / new.
    shift = (1 - size / frame) / 2 if KIT["resize"] == "stretch" else (0, 0)
    area = (*shift, *(size + shift))
    edged = Image.fromarray(np.pad(np.asarray(upright), ((0, 1), (0, 1), (0, 0)), "edge"))
    whole = Image.new("RGB", tuple(map(int, frame)), tuple(KIT["fill"] or (0, 0, 0)))
    whole.paste(edged.transform(tuple(map(int, fitted)), Image.EXTENT, area, Image.BILINEAR))
    return np.asarray(whole)[None], size * frame / fitted


def as_input(pixels):
    return pixels if KIT["dtype"] == "uint8" else (pixels.astype(np.float32) - 127.5) / 127.5


def main(picture, threshold=0.5, file=KIT["file"], delegate=None):
    parts = [load_delegate(delegate)] if delegate else []
    model = Interpreter(str(HERE / file), experimental_delegates=parts, num_threads=3)
    model.allocate_tensors()
    pixels, sides = framed(picture)
    model.set_tensor(model.get_input_details()[0]["index"], as_input(pixels))
    model.invoke()
    # By position: boxes (ymin, xmin, ymax, xmax, 0 to 1), classes from 0, scores, count.
    *rows, count = (model.get_tensor(each["index"])[0] for each in model.get_output_details())
    for box, label, score in list(zip(*rows))[: int(count)]:
        if score >= float(threshold):
            corners = np.rint(box.reshape(2, 2)[:, ::-1] * sides).astype(int)
            print(KIT["class_names"][int(label)], f"{score:.2f}", *corners.ravel())


if __name__ == "__main__":
    main(*sys.argv[1:])
