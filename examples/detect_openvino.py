"""Find objects in a picture with an exported OpenVINO model: no odtrain, no TensorFlow.

python -m pip install openvino numpy pillow
python detect_openvino.py openvino_fp32/model.xml picture.jpg 0.5
"""

import json
import sys

import numpy as np
import openvino
from PIL import Image, ImageOps


def main(file: str, picture: str, threshold: float = 0.5) -> None:
    core = openvino.Core()
    model = core.read_model(file)
    names = json.loads(model.get_rt_info(["framework", "names"]).astype(str))
    # Left to itself, OpenVINO computes in bfloat16 where the processor has it: other scores.
    detect = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    height, width = detect.input(0).shape[1:3]

    upright = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    size = np.array([upright.width, upright.height])
    # Bilinear without antialiasing, pixel i from i * old / new, as in training: it matters.
    corner = (1 - size / (width, height)) / 2
    area = (*corner, *(corner + size))
    bilinear = Image.Resampling.BILINEAR
    small = upright.transform((width, height), Image.Transform.EXTENT, area, bilinear)

    found = detect(np.asarray(small)[None])
    for box, label, score in zip(*(found[name][0] for name in ("boxes", "classes", "scores"))):
        if score >= threshold:
            (top, left), (bottom, right) = box.reshape(2, 2) * size[::-1]
            name = names[str(int(label))]
            print(f"{name} {score:.2f} {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]))
