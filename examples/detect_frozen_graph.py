"""Find objects in a picture with frozen_inference_graph.pb, by the tensor names of the old notebooks.

Runs on TensorFlow 2 and, with `import tensorflow as tf` alone, on TensorFlow 1.15.

python -m pip install tensorflow numpy pillow
python detect_frozen_graph.py frozen_inference_graph.pb labels.txt picture.jpg 0.5
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
from PIL import Image, ImageOps


def main(graph_file: str, labels: str, picture: str, threshold: float = 0.5) -> None:
    names = Path(labels).read_text(encoding="utf-8").splitlines()  # line 0 is class 1
    upright = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")

    graph = tf.Graph()
    with graph.as_default():
        definition = tf.GraphDef.FromString(Path(graph_file).read_bytes())
        tf.import_graph_def(definition, name="")
    with tf.Session(graph=graph) as session:
        # A picture of any size: the graph resizes it. Boxes are ymin, xmin, ymax, xmax, 0 to 1.
        boxes, classes, scores = session.run(
            ["detection_boxes:0", "detection_classes:0", "detection_scores:0"],
            feed_dict={"image_tensor:0": np.asarray(upright)[None]},
        )
    for box, label, score in zip(boxes[0], classes[0], scores[0]):
        if score >= threshold:
            (top, left), (bottom, right) = box.reshape(2, 2) * (upright.height, upright.width)
            name = names[int(label) - 1]
            print(f"{name} {score:.2f} {left:.0f} {top:.0f} {right:.0f} {bottom:.0f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(float, sys.argv[4:5]))
