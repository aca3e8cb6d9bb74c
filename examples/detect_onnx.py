"""Find objects in a picture with an exported model.onnx: no odtrain, no TensorFlow.

python -m pip install onnxruntime numpy pillow
python detect_onnx.py model.onnx picture.jpg 0.5
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, picture: str, threshold: float = 0.5) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["names"])
    (image,) = session.get_inputs()
    height, width = image.shape[1:3]

    upright = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    size = np.array([upright.width, upright.height])
    # Bilinear without antialiasing, pixel i from i * old / new, as in training: it matters.
    corner = (1 - size / (width, height)) / 2
    area = (*corner, *(corner + size))
    bilinear = Image.Resampling.BILINEAR
    small = upright.transform((width, height), Image.Transform.EXTENT, area, bilinear)

    found = session.run(["boxes", "classes", "scores"], {image.name: np.asarray(small)[None]})
    for box, label, score in zip(*(each[0] for each in found)):
        if score >= threshold:
            (top, left), (bottom, right) = box.reshape(2, 2) * size[::-1]
            name = names[str(int(label))]
            print(f"{name} {score:.2f} {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]))
