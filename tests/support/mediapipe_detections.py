"""What MediaPipe's ObjectDetector finds; it runs in an environment of its own, without odtrain.

    python tests/support/mediapipe_detections.py MODEL.tflite PICTURES.npy OUTPUT.json

PICTURES: (N, height, width, 3) uint8. OUTPUT: for each picture a list of [class name, score, [ymin, xmin,
ymax, xmax] in pixels].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

if __name__ == "__main__":
    options = vision.ObjectDetectorOptions(
        base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=100
    )
    found = []
    with vision.ObjectDetector.create_from_options(options) as detector:
        for picture in np.load(sys.argv[2]):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            rows = []
            for each in detector.detect(image).detections:
                (category,), box = each.categories, each.bounding_box
                y, x = box.origin_y, box.origin_x
                sides = [y, x, y + box.height, x + box.width]
                rows.append([category.category_name, category.score, sides])
            found.append(rows)
    Path(sys.argv[3]).write_text(json.dumps(found))
