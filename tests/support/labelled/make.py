"""Makes the label files beside it, with the writers of the tools themselves.

    python tests/labelled/make.py [labelimg] [labelme] [label_studio] [datumaro] [tutorial] [tensorflow]

Run once, in an environment that has what it uses:

- labelImg 1.8.6 (its `libs`, which need no window): pascal_voc_io, yolo_io, create_ml_io
- labelme 6.3.1
- label-studio-sdk 2.1.2, whose converter is what Label Studio exports with
- datumaro 1.13.12, with which CVAT writes Pascal VOC, COCO, YOLO, LabelMe and its own XML
- pandas 2, for the CSV that the tutorial's xml_to_csv.py writes
- TensorFlow 2.20, for records as the tutorial's generate_tfrecord.py and the Object Detection API's
  create_pascal_tf_record.py write them

The tests read what is committed, and need none of these.
"""

from __future__ import annotations

import builtins
import functools
import json
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
PICTURES = HERE / "pictures"
WORDS = ("circle", "red  square", "단추")
"""labelImg turns two blanks into a tab."""
OBJECTS: dict[str, tuple[tuple[int, int], list[tuple[str, int, int, int, int, bool]]]] = {
    "p1.jpg": (
        (120, 80),
        [("circle", 10, 12, 50, 60, False), ("red  square", 60, 1, 120, 70, False)],
    ),
    "p  2.png": ((80, 100), [("단추", 5, 5, 40, 50, True)]),
    "p3.jpg": ((100, 100), []),
    "p4.jpg": ((64, 48), [("circle", 20, 10, 50, 40, False), ("단추", 1, 1, 15, 20, False)]),
}
"""Name: (width, height), objects with xmin, ymin, xmax, ymax and whether it is difficult."""


def pictures() -> None:
    """Grey, with a rectangle where an object is."""
    PICTURES.mkdir(exist_ok=True)
    for number, (name, (size, objects)) in enumerate(OBJECTS.items()):
        picture = Image.new("RGB", size, (60 + 20 * number,) * 3)
        for _, *corners, _ in objects:
            ImageDraw.Draw(picture).rectangle(corners, fill=(200, 90, 40))
        picture.save(PICTURES / name, quality=60)


def fresh(name: str) -> Path:
    """An empty folder for the files of one writer."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def points(corners: list[int]) -> list[tuple[int, int]]:
    """The corners of a box as labelImg's canvas has them."""
    xmin, ymin, xmax, ymax = corners
    return [(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax)]


def labelimg() -> None:
    """Pascal VOC, YOLO with classes.txt in UTF-8 and in cp949, CreateML."""
    from libs import yolo_io
    from libs.create_ml_io import CreateMLWriter
    from libs.pascal_voc_io import PascalVocWriter

    voc, old, yolo = fresh("labelimg_voc"), fresh("labelimg_voc_2016"), fresh("labelimg_yolo")
    korean, createml = fresh("labelimg_yolo_cp949"), fresh("labelimg_createml")
    for name, (size, objects) in OBJECTS.items():
        stem, shape = Path(name).stem, [size[1], size[0], 3]
        # Before July 2017 labelImg left the suffix out.
        for folder, written in ((voc, name), (old, stem)):
            path = f"C:\\Users\\someone\\Desktop\\pictures\\{name}"
            writer = PascalVocWriter("pictures", written, shape, local_img_path=path)
            writer.verified = name == "p3.jpg"
            for word, *corners, difficult in objects:
                writer.add_bnd_box(*corners, word, int(difficult))
            writer.save(target_file=str(folder / f"{stem}.xml"))
        for folder, encoding in ((yolo, "utf-8"), (korean, "cp949")):
            # classes.txt is written in the encoding of the locale, the labels in UTF-8.
            yolo_io.open = functools.partial(builtins.open, encoding=encoding)
            writer = yolo_io.YOLOWriter("pictures", name, shape)
            for word, *corners, difficult in objects:
                writer.add_bnd_box(*corners, word, int(difficult))
            words = ["dog", "person", *WORDS]
            writer.save(class_list=words, target_file=str(folder / f"{stem}.txt"))
        shapes = [{"label": word, "points": points(corners)} for word, *corners, _ in objects]
        CreateMLWriter("pictures", name, shape, shapes, str(createml / "labels.json")).write()


def labelme() -> None:
    """Rectangles, a polygon, a circle; the picture inside one of the files."""
    from labelme._label_file import write_label_file

    folder = fresh("labelme")
    for name, (size, objects) in OBJECTS.items():
        shapes = []
        for word, xmin, ymin, xmax, ymax, _ in objects:
            kind, outline = "rectangle", [[xmax, ymax], [xmin, ymin]]
            if name == "p4.jpg":
                kind = "polygon"
                outline = [[xmin, ymax], [(xmin + xmax) / 2, ymin], [xmax, ymax]]
            shapes.append({"label": word, "points": outline, "shape_type": kind, "flags": {}})
        if name == "p3.jpg":
            circle = {"points": [[50, 50], [60, 50]], "shape_type": "circle"}
            shapes.append({"label": "circle", "flags": {}, **circle})
        path = f"..\\pictures\\{name}"
        data = (PICTURES / name).read_bytes() if name == "p1.jpg" else None
        write_label_file(
            str(folder / f"{Path(name).stem}.json"),
            shapes=shapes,
            image_path=path,
            image_height=size[1],
            image_width=size[0],
            image_data=data,
        )


LABEL_CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    + "".join(f'<Label value="{word}"/>' for word in WORDS)
    + "</RectangleLabels></View>"
)


def region(size: tuple[int, int], word: str, corners: list[int], rotation: float = 0) -> dict:
    """One box as Label Studio stores it: percent of the picture."""
    xmin, ymin, xmax, ymax = corners
    value = {
        "x": 100 * xmin / size[0],
        "y": 100 * ymin / size[1],
        "width": 100 * (xmax - xmin) / size[0],
        "height": 100 * (ymax - ymin) / size[1],
        "rotation": rotation,
        "rectanglelabels": [word],
    }
    return {
        "id": f"r{xmin}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": value,
    }


def task(number: int, name: str, annotations: list[dict]) -> dict:
    """One task of an export."""
    stored = f"{number:08x}-{name}"
    return {
        "id": number,
        "annotations": annotations,
        "file_upload": stored,
        "predictions": [],
        "data": {"image": f"/data/upload/1/{stored}"},
        "project": 1,
    }


def label_studio() -> None:
    """The full export, and what Label Studio's converter makes of it."""
    from label_studio_sdk.converter import Converter

    folder, tasks = fresh("label_studio"), []
    for number, (name, (size, objects)) in enumerate(OBJECTS.items(), start=1):
        regions = [region(size, word, corners) for word, *corners, _ in objects]
        first = {"id": 10 * number, "completed_by": 1, "was_cancelled": False, "result": regions}
        dropped = {"id": 10 * number + 1, "completed_by": 2, "was_cancelled": True, "result": []}
        tasks.append(task(number, name, [first, dropped]))
    tasks.append(task(9, "nobody.jpg", []))
    (folder / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    converter = Converter(LABEL_CONFIG, str(folder), download_resources=False)
    for kind in ("VOC", "COCO", "YOLO", "JSON_MIN"):
        made = fresh(f"label_studio_{kind.lower()}")
        converter.convert(str(folder / "export.json"), str(made), kind, is_dir=False)
        shutil.rmtree(made / "images", ignore_errors=True)


def datumaro() -> None:
    """What CVAT exports."""
    import datumaro as dm

    items = [
        dm.DatasetItem(
            id=Path(name).stem,
            subset="val" if name == "p4.jpg" else "train",
            media=dm.Image.from_file(path=str(PICTURES / name), size=size[::-1]),
            annotations=[
                dm.Bbox(
                    corners[0],
                    corners[1],
                    corners[2] - corners[0],
                    corners[3] - corners[1],
                    label=WORDS.index(word),
                    attributes={"difficult": difficult, "occluded": False},
                )
                for word, *corners, difficult in objects
            ],
        )
        for name, (size, objects) in OBJECTS.items()
    ]
    dataset = dm.Dataset.from_iterable(items, categories=list(WORDS))
    for kind in ("voc_detection", "coco_instances", "yolo", "yolo_ultralytics", "cvat", "label_me"):
        folder = HERE / f"cvat_{kind}"
        shutil.rmtree(folder, ignore_errors=True)
        dataset.export(str(folder), kind, save_media=False)


def tutorial() -> None:
    """CSV as the tutorial's xml_to_csv.py makes it of labelImg's files; it drops the background."""
    from xml.etree import ElementTree

    import pandas as pd

    rows = []
    for file in sorted((HERE / "labelimg_voc").glob("*.xml")):
        root = ElementTree.parse(file).getroot()
        for member in root.findall("object"):
            size = (int(root.find("size")[0].text), int(root.find("size")[1].text))
            corners = [int(side.text) for side in member[4]]
            rows.append((root.find("filename").text, *size, member[0].text, *corners))
    header = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    folder = fresh("tutorial_csv")
    pd.DataFrame(rows, columns=header).to_csv(folder / "train_labels.csv", index=None)


def tensorflow() -> None:
    """Records with the tutorial's keys, and with those of create_pascal_tf_record.py."""
    import tensorflow as tf

    def feature(values: list) -> tf.train.Feature:
        if values and isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if values and isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    folder = fresh("tfrecord")
    names = sorted(WORDS)
    for file, chosen in (
        ("train.record", ["p1.jpg", "p  2.png", "p3.jpg"]),
        ("test.record", ["p4.jpg"]),
    ):
        with tf.io.TFRecordWriter(str(folder / file)) as writer:
            for name in chosen:
                (width, height), objects = OBJECTS[name]
                sides = {
                    "xmin": [item[1] / width for item in objects],
                    "xmax": [item[3] / width for item in objects],
                    "ymin": [item[2] / height for item in objects],
                    "ymax": [item[4] / height for item in objects],
                }
                values = {
                    "image/height": [height],
                    "image/width": [width],
                    "image/filename": [name.encode()],
                    "image/source_id": [name.encode()],
                    "image/encoded": [(PICTURES / name).read_bytes()],
                    "image/format": [b"jpg"],
                    **{f"image/object/bbox/{side}": sides[side] for side in sides},
                    "image/object/class/text": [item[0].encode() for item in objects],
                    "image/object/class/label": [names.index(item[0]) + 1 for item in objects],
                }
                if file == "test.record":  # create_pascal_tf_record.py's; numbers alone
                    values["image/object/difficult"] = [int(item[5]) for item in objects]
                    values["image/object/truncated"] = [0 for _ in objects]
                    del values["image/object/class/text"]
                features = {key: feature(list_) for key, list_ in values.items()}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    lines = [f"item {{\n  id: {i}\n  name: '{name}'\n}}\n" for i, name in enumerate(names, 1)]
    (folder / "label_map.pbtxt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    writers = {
        "pictures": pictures,
        "labelimg": labelimg,
        "labelme": labelme,
        "label_studio": label_studio,
        "datumaro": datumaro,
        "tutorial": tutorial,
        "tensorflow": tensorflow,
    }
    for chosen in sys.argv[1:] or list(writers):
        writers[chosen]()
