"""Find objects in a picture with an exported .tflite, on any board: no odtrain, no TensorFlow.

python -m pip install ai-edge-litert numpy pillow
python detect_litert.py model.tflite picture.jpg 0.5
"""

import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def main(model: str, picture: str, threshold: float = 0.5) -> None:
    with zipfile.ZipFile(model) as files:  # the class names are zipped onto the end of the model
        names = files.read("labels.txt").decode("utf-8").splitlines()
    interpreter = Interpreter(model, num_threads=1)  # more lose a class: tensorflow issue 56058
    image = interpreter.get_input_details()[0]
    height, width = (int(side) for side in image["shape"][1:3])

    upright = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    size = np.array([upright.width, upright.height])
    # Bilinear without antialiasing, pixel i from i * old / new, as in training: it matters.
    corner = (1 - size / (width, height)) / 2
    area = (*corner, *(corner + size))
    bilinear = Image.Resampling.BILINEAR
    small = upright.transform((width, height), Image.Transform.EXTENT, area, bilinear)
    pixels = np.asarray(small)[None]
    if image["dtype"] == np.float32:  # an int8 file takes the pixels as they are
        pixels = (pixels.astype(np.float32) - 127.5) / 127.5

    found = interpreter.get_signature_runner()(normalized_input_image_tensor=pixels)
    for box, label, score in zip(
        *(found[f"detection_{n}"][0] for n in ("boxes", "classes", "scores"))
    ):
        if score >= threshold:
            (top, left), (bottom, right) = box.reshape(2, 2) * size[::-1]
            print(f"{names[int(label)]} {score:.2f} {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]))
