"""`model_card.md`: what a registered model is, how good and how fast, and how to run its files.

The sections are those of Mitchell et al., Model Cards for Model Reporting (2019), as far as a training knows
them. It lies in the version, so that every way of downloading brings it along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from odtrain.export_formats import FORMATS
from odtrain.io import markdown
from odtrain_runtime.plain import plain_lines

CARD = "model_card.md"


def write_card(
    name: str,
    architecture: str,
    run_id: str,
    files: Sequence[str],
    metrics: Mapping[str, float],
    class_names: Sequence[str],
    data: str,
    data_digest: str,
    pictures: int,
    served: str,
    origin: Mapping[str, str] | None = None,
) -> str:
    """The card's text.

    Args:
        name: of the registered model.
        architecture: of the network.
        run_id: of the MLflow run it comes from.
        files: formats of the exported files that the version holds.
        metrics: of the run, under their names in MLflow.
        class_names: index 0 = class id 1.
        data: name of the dataset.
        data_digest: of its content.
        pictures: that the metrics are of.
        served: the format that stands for the version.
        origin: of files that were trained elsewhere, a text a line.
    """
    own = files if origin is None else ()
    lite = [each.name for each in FORMATS.values() if each.lite and each.name in own]
    sections = [
        f"# {name}: {architecture}",
        _what(class_names, run_id) if origin is None else _from(class_names, run_id, origin),
        "## Data\n\n" + _data(data, data_digest, pictures),
        "## How good\n\n" + _scores(metrics, class_names),
        "## Files\n\n" + _files(files, metrics, served),
        "## Run it\n\n" + (RUN if origin is None else RUN_AS_IT_SAYS),
    ]
    if lite:
        sections += [_android(lite), _raspberry(lite), _tensorflow_lite_note(lite)]
    if "saved_model" in own:
        sections.append(SAVED_MODEL)
    if "pb" in own:
        sections.append(FROZEN_GRAPH)
    sections += ["## Limits\n\n" + _limits(metrics, class_names), CHECK]
    return plain_lines("\n\n".join(section for section in sections if section)) + "\n"


def _what(class_names: Sequence[str], run_id: str) -> str:
    count = len(class_names)
    return (
        f"An object detector for {count} class{'es' * (count != 1)}, trained and exported by odtrain in MLflow "
        f"run `{run_id}`. The run holds settings, curves and checkpoints.\n\n"
        f"Classes, id 1 first: {', '.join(class_names)}."
    )


def _from(class_names: Sequence[str], run_id: str, origin: Mapping[str, str]) -> str:
    said = [f"- {key}: {text}" for key, text in origin.items()]
    return "\n".join(
        [
            f"An object detector that was trained elsewhere, measured and registered by odtrain in MLflow run "
            f"`{run_id}`. Its classes, id 1 first: {', '.join(class_names)}.",
            "",
            *said,
        ]
    )


def _data(data: str, digest: str, pictures: int) -> str:
    measured = f" The numbers below are of its {pictures} test pictures." if pictures else ""
    return f"Dataset {data or '(unnamed)'}, digest `{digest}`.{measured}"


def _scores(metrics: Mapping[str, float], class_names: Sequence[str]) -> str:
    """The checkpoint's COCO metrics, with the interval of mAP."""
    rows = []
    for key in ("mAP", "mAP_50", "mAP_75", "mAP_small", "mAP_medium", "mAP_large", "AR_100"):
        if f"eval/{key}" in metrics:
            ends = [metrics.get(f"eval/{key}_{end}") for end in ("lo", "hi")]
            interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if None not in ends else ""
            rows.append((key, f"{metrics[f'eval/{key}']:.3f}{interval}"))
    for class_name in class_names:
        if f"eval/AP/{class_name}" in metrics:
            rows.append((f"AP, {class_name}", f"{metrics[f'eval/AP/{class_name}']:.3f}"))
    if not rows:
        return "Not recorded."
    said = (
        "Of the checkpoint; mAP is the mean over IoU 0.50 to 0.95, in brackets the 95 % interval by bootstrap "
        "over the test pictures."
    )
    return said + "\n\n" + "\n".join(markdown.table(("COCO metric", ""), rows))


def _files(files: Sequence[str], metrics: Mapping[str, float], served: str) -> str:
    columns = ("file", "format", "mAP", "mAP_50", "latency p50 / p90", "size")
    rows = []
    for each in files:
        value = {
            key: metrics.get(f"export/{each}/{key}")
            for key in ("mAP", "mAP_50", "latency_ms_p50", "latency_ms_p90", "size_mb")
        }
        cells = [_cell(value["mAP"], ".3f"), _cell(value["mAP_50"], ".3f")]
        times = (
            f"{_cell(value['latency_ms_p50'], '.1f')} / {_cell(value['latency_ms_p90'], '.1f')} ms"
        )
        size = f"{_cell(value['size_mb'], '.1f')} MB"
        rows.append((f"`{FORMATS[each].file}`", each, *cells, times, size))
    said = (
        "Each file was run from disk in a process of its own: its own mAP on the same pictures, and the median "
        "and ninth decile of its own run on one picture, on the machine that trained it (a PC, not your "
        "device). `labels.txt` has a class name a line, the first for id 1; `label_map.pbtxt` the same for the "
        "TensorFlow Object Detection API."
    )
    said += (
        f" `{FORMATS[served].file}` stands for the version: it is served, and judged by the gate."
    )
    return said + "\n\n" + "\n".join(markdown.table(columns, rows))


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


RUN = (
    "Boxes are ymin, xmin, ymax, xmax as fractions of the picture. Give RGB; the whole picture is resized to "
    "the input, its sides are not kept in proportion. With odtrain every file here runs as "
    "`odtrain predict source=FILE input=PICTURES output=drawn`."
)


RUN_AS_IT_SAYS = (
    "`source.yaml`, where it lies here, says how pictures are made ready and what the outputs mean. With "
    "odtrain every file here runs as `odtrain predict source=FILE input=PICTURES output=drawn`."
)


def _android(lite: Sequence[str]) -> str:
    best = "tflite_int8" if "tflite_int8" in lite else lite[0]
    file = FORMATS[best].file
    return f"""### Android

`{file}` carries its labels and normalisation as TFLite metadata, so that the Task Library reads it as it is
(`org.tensorflow:tensorflow-lite-task-vision`); put it into `src/main/assets`:

```kotlin
val options = ObjectDetector.ObjectDetectorOptions.builder()
    .setBaseOptions(BaseOptions.builder().setNumThreads(1).build())
    .setScoreThreshold(0.5f)
    .setMaxResults(10)
    .build()
val detector = ObjectDetector.createFromFileAndOptions(context, "{file}", options)
for (found in detector.detect(TensorImage.fromBitmap(bitmap))) {{
    Log.i("found", "${{found.categories[0].label}} ${{found.categories[0].score}} ${{found.boundingBox}}")
}}
```

One thread: with more, the operator that suppresses per class loses classes (tensorflow issue 56058)."""


def _raspberry(lite: Sequence[str]) -> str:
    best = "tflite_int8" if "tflite_int8" in lite else lite[0]
    return f"""### Raspberry Pi, or any Linux, without TensorFlow

`python -m pip install ai-edge-litert pillow`, then:

```python
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

names = open("labels.txt", encoding="utf-8").read().splitlines()
model = Interpreter("{FORMATS[best].file}", num_threads=1)
model.allocate_tensors()
wanted = model.get_input_details()[0]
height, width = wanted["shape"][1:3]
picture = Image.open(sys.argv[1]).convert("RGB").resize((width, height))
pixels = np.asarray(picture)[None]
if wanted["dtype"] == np.float32:
    pixels = np.float32(pixels) / 127.5 - 1
model.set_tensor(wanted["index"], pixels)
model.invoke()
boxes, classes, scores, count = (model.get_tensor(o["index"])[0] for o in model.get_output_details())
for box, class_id, score in zip(boxes, classes, scores):
    if score >= 0.5:
        print(names[int(class_id)], round(float(score), 3), box.round(3).tolist())
```"""


def _tensorflow_lite_note(lite: Sequence[str]) -> str:
    if "tflite_int8" not in lite:
        return ""
    return (
        "`model_int8.tflite` takes uint8 pictures as they are; the other .tflite files take float32 from "
        "-1 to 1."
    )


SAVED_MODEL = """### TensorFlow

```python
import sys

import numpy as np
import tensorflow as tf
from PIL import Image

names = open("labels.txt", encoding="utf-8").read().splitlines()
detect = tf.saved_model.load("saved_model").signatures["serving_default"]
picture = np.asarray(Image.open(sys.argv[1]).convert("RGB"))
found = detect(inputs=tf.constant(picture[None]))
boxes, classes, scores = (found[f"detection_{key}"][0].numpy() for key in ("boxes", "classes", "scores"))
for box, class_id, score in zip(boxes, classes, scores):
    if score >= 0.5:
        print(names[int(class_id) - 1], round(float(score), 3), box.round(3).tolist())
```"""

FROZEN_GRAPH = """### The frozen graph

`frozen_inference_graph.pb` is for programs written for the TensorFlow 1 Object Detection API: input
`image_tensor:0` (uint8 pictures), outputs `detection_boxes:0`, `detection_scores:0`, `detection_classes:0` (ids
from 1) and `num_detections:0`. TensorFlow 1.15 and 2 load it."""


def _limits(metrics: Mapping[str, float], class_names: Sequence[str]) -> str:
    unseen = [each for each in class_names if metrics and f"eval/AP/{each}" not in metrics]
    said = [
        "It was measured on pictures like those of the dataset alone; on others, measure it: "
        "`odtrain evaluate source=FILE data.images=DIR data.annotations=DIR`.",
        "A score is not a probability: choose the threshold on pictures of your own.",
    ]
    if unseen and len(unseen) < len(class_names):
        said.append(f"Not measured, for want of test pictures: {', '.join(unseen)}.")
    return "\n".join(f"- {line}" for line in said)


CHECK = """## Is it whole?

`sha256sum --check SHA256SUMS` in this folder."""
