"""What the tutorial's two scripts do, written anew for comparison: `xml_to_csv`, `generate_tfrecord`.

Not the scripts themselves, but the same steps with the same libraries in the same order: label files
read by the position of their elements, one pandas table written as CSV, then for each picture its
header opened with Pillow and a `tf.train.Example` with its bytes as they are. Nothing is checked.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

COLUMNS = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]


def xml_to_csv(annotations: str, csv: str) -> int:
    """Write a row for each object in a folder of label files; return the number of rows."""
    import pandas as pd

    rows = []
    for file in Path(annotations).glob("*.xml"):
        root = ET.parse(file).getroot()
        size: Any = root.find("size")
        for item in root.findall("object"):
            box = [int(side.text or "") for side in item[4]]
            picture = (root.findtext("filename"), int(size[0].text), int(size[1].text))
            rows.append((*picture, item[0].text, *box))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(csv, index=False)
    return len(rows)


def generate_tfrecord(csv: str, images: str, record: str, class_name: str) -> int:
    """Write a record for each picture of the table; return the number of records."""
    import pandas as pd
    import tensorflow as tf

    groups = pd.read_csv(csv).groupby("filename")
    with tf.io.TFRecordWriter(record) as writer:
        for filename, rows in groups:
            example = _example(Path(images) / str(filename), rows, class_name)
            writer.write(example.SerializeToString())
    return len(groups)


def _example(file: Path, rows: Any, class_name: str) -> Any:
    import tensorflow as tf
    from PIL import Image

    encoded = file.read_bytes()
    width, height = Image.open(io.BytesIO(encoded)).size
    sides: dict[str, list[float]] = {"xmin": [], "xmax": [], "ymin": [], "ymax": []}
    texts, labels = [], []
    for _, row in rows.iterrows():
        for side, values in sides.items():
            values.append(row[side] / (width if side[0] == "x" else height))
        texts.append(row["class"].encode())
        labels.append(1 if row["class"] == class_name else 0)
    boxes = {f"image/object/bbox/{side}": _floats(values) for side, values in sides.items()}
    features = {
        "image/height": _ints([height]),
        "image/width": _ints([width]),
        "image/filename": _bytes([file.name.encode()]),
        "image/source_id": _bytes([file.name.encode()]),
        "image/encoded": _bytes([encoded]),
        "image/format": _bytes([b"jpg"]),
        **boxes,
        "image/object/class/text": _bytes(texts),
        "image/object/class/label": _ints(labels),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _ints(values: list[int]) -> Any:
    import tensorflow as tf

    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: list[float]) -> Any:
    import tensorflow as tf

    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _bytes(values: list[bytes]) -> Any:
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
