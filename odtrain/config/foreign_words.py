"""What people type who know other programs (their names are below), and what it is called here."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_VALUE = 40
EXAMPLE_PICTURES, EXAMPLE_BATCH = 1000, 24
STEPS = "{epochs}"
"""Stands for steps that follow from epochs."""
SPLITS = (
    "data.images=DIR with train/ and test/ in it, or data.train_list=FILE and data.test_list=FILE"
)
CLASSES = "nothing: classes are those of the labels; data.label_map=FILE fixes their order"
DEVICE = "nothing: TensorFlow takes what it finds; CUDA_VISIBLE_DEVICES=-1 keeps it off a GPU"
FLIP = "augment.flip=true, or false"
NO_SUCH = "nothing: augment.crop, flip, colours, mosaic and others are what there is"
CHECKPOINT = (
    "train.checkpoint={}, a path, a URL, zoo or runs:/RUN_ID; null starts from random weights"
)
FOLDER = "outputs={} and tracking.experiment=NAME"
SEED = "train.seed={}, and data.seed={} for the drawn split"
WARM_UP = "train.warmup_steps=N, in steps"
EVERY = "evaluate.every=N, in steps"
SCORE = "predict.threshold={}"
IOU = "model.nms_iou={}"
MOST = "model.max_detections={}"
FORMATS = "export.formats=[saved_model,tflite_fp32,tflite_int8], or some of them"
RATE = "train.learning_rate={}"
BATCH = "train.batch_size={}"
SIZE = "model.input_size={}, or [HEIGHT,WIDTH]"
OWN_DATA = "data.images=DIR data.annotations=DIR data.name=NAME"

WORDS: dict[str, str] = {
    # Ultralytics
    **dict.fromkeys(("epochs", "epoch", "num_epochs", "n_epochs", "max_epochs"), STEPS),
    **dict.fromkeys(("batch", "batch_size", "bs", "batchsize", "per_device_batch_size"), BATCH),
    **dict.fromkeys(("imgsz", "img", "img_size", "image_size", "imagesize", "input_shape"), SIZE),
    **dict.fromkeys(("image_resizer", "fixed_shape_resizer", "target_size", "size"), SIZE),
    **dict.fromkeys(("lr", "lr0", "learning_rate", "learning_rate_base", "base_lr"), RATE),
    **dict.fromkeys(("initial_learning_rate", "max_lr", "eta"), RATE),
    "lrf": "train.schedule=cosine, which ends at 0",
    "cos_lr": "train.schedule=cosine, or constant, step, exponential, manual",
    "lr_scheduler": "train.schedule=cosine, or constant, step, exponential, manual",
    "weight_decay": "model.l2={}",
    "warmup_epochs": WARM_UP,
    "warmup": WARM_UP,
    "patience": "train.patience={}, in validations",
    "early_stopping": "train.patience=N, in validations",
    "time": "train.max_minutes=N",
    "optimizer": "train.optimizer=momentum, rmsprop or adam",
    "momentum": "train.momentum={}",
    "loss": "train.loss=hard_mining, focal, retinanet or efficientdet",
    "seed": SEED,
    "random_state": SEED,
    "random_seed": SEED,
    "freeze": "train.freeze={}, in stages of the backbone",
    "resume": "train.resume=auto, or a run id",
    "cache": "train.cache_mb=N",
    "amp": "train.precision=bf16, fp32 or auto",
    "half": "export.formats=[tflite_fp16]",
    "fp16": "export.formats=[tflite_fp16]",
    "int8": "export.formats=[tflite_int8]",
    "quantize": "export.formats=[tflite_int8]",
    "format": f"{FORMATS}; of labels: data.format={{}}",
    "include": FORMATS,
    "nms": "export.nms=builtin, fast or regular",
    "save_period": "train.checkpoint_every=N, in steps",
    "val": EVERY,
    "val_period": EVERY,
    "conf": SCORE,
    "confidence": SCORE,
    "iou": IOU,
    "max_det": MOST,
    "fraction": "data.train_list=FILE with the pictures to take",
    "project": FOLDER,
    "name": "tracking.run_name={}; of the data set: data.name={}",
    "run_name": "tracking.run_name={}",
    "experiment_name": "tracking.experiment={}",
    "exist_ok": "nothing: each run has a folder of its own",
    "device": DEVICE,
    "gpus": DEVICE,
    "gpu": DEVICE,
    "workers": "data.workers={} for preparing, predict.workers={} for predicting",
    "weights": CHECKPOINT,
    "pretrained": CHECKPOINT,
    "cfg": "model=NAME; odtrain zoo lists them",
    "arch": "model=NAME; odtrain zoo lists them",
    "backbone": "model=NAME; odtrain zoo lists them",
    "nc": CLASSES,
    "names": CLASSES,
    "classes": CLASSES,
    "single_cls": CLASSES,
    "path": OWN_DATA,
    "dataset": OWN_DATA,
    "split": "evaluate.split={}",
    "fliplr": FLIP,
    "flip": FLIP,
    **{word: f"augment.{word}={{}}" for word in ("mosaic", "mixup", "translate", "scale")},
    "copy_paste": "augment.copy_paste={}",
    "multi_scale": "train.multi_scale=0.5",
    "close_mosaic": "augment.off_last=0.1, a fraction of the steps",
    "erasing": "augment.erase={}",
    "degrees": "augment.rotate={}",
    "rotation": "augment.rotate={}",
    "hsv_h": "augment.hue={}",
    **dict.fromkeys(("flipud", "shear", "perspective"), NO_SUCH),
    **dict.fromkeys(("augment_policy", "auto_augment"), NO_SUCH),
    "label_smoothing": "train.label_smoothing={}",
    "accumulate": "train.accumulate={}",
    "nbs": "train.batch_size=N with train.accumulate=M: passes of a step",
    "hsv_s": "augment.saturation={}",
    "hsv_v": "augment.brightness={}",
    "box": "model.localization_weight={}",
    "cls": "model.classification_weight={}",
    "save_txt": "nothing: predictions.csv and .json are always written; predict.xml=true for VOC",
    "show": "odtrain webcam",
    # the Object Detection API
    **dict.fromkeys(("num_steps", "num_train_steps", "train_steps", "max_steps"), "train.steps={}"),
    "steps": "train.steps={}",
    "iterations": "train.steps={}",
    "max_iter": "train.steps={}",
    "pipeline_config_path": "odtrain import {}, which writes an experiment of it",
    "pipeline_config": "odtrain import {}, which writes an experiment of it",
    "model_dir": FOLDER,
    "train_dir": FOLDER,
    "logdir": FOLDER,
    "output_dir": FOLDER,
    "output_directory": "output={}",
    "fine_tune_checkpoint": CHECKPOINT,
    "from_detection_checkpoint": "train.restore=all, or backbone",
    "fine_tune_checkpoint_type": "train.restore=all, or backbone",
    "trained_checkpoint_prefix": "source={}",
    "checkpoint_dir": "source={}",
    "num_classes": CLASSES,
    "label_map_path": "data.label_map={}",
    "input_path": "data.images=FOLDER of the records, data.format=tfrecord",
    "tf_record_input_reader": "data.images=FOLDER of the records, data.format=tfrecord",
    "eval_interval_secs": EVERY,
    "eval_every": EVERY,
    "checkpoint_every_n": "train.checkpoint_every={}",
    "save_checkpoints_steps": "train.checkpoint_every={}",
    "log_step_count_steps": "train.log_every={}",
    "score_threshold": SCORE,
    "min_score_thresh": SCORE,
    "iou_threshold": IOU,
    "max_total_detections": MOST,
    "max_detections_per_class": MOST,
    "data_augmentation_options": NO_SUCH,
    "warmup_learning_rate": "train.warmup_learning_rate={}",
    "use_moving_average": "train.ema_decay=0.999",
    "gradient_clipping_by_norm": "train.clip_norm={}",
    "clipnorm": "train.clip_norm={}",
    # Model Maker
    "model_spec": "model=NAME; odtrain zoo lists them",
    "supported_model": "model=NAME; odtrain zoo lists them",
    "train_whole_model": "train.freeze=0, or more: in stages of the backbone",
    "train_data": SPLITS,
    "test_data": SPLITS,
    "quantization_config": "export.formats=[tflite_int8]",
    "export_dir": FOLDER,
    # Keras
    "steps_per_epoch": "nothing: a training has steps alone, train.steps=N",
    "validation_split": "data.validation_fraction={}",
    "validation_data": SPLITS,
    "test_size": "data.test_fraction={}",
    "test_split": "data.test_fraction={}",
    "validation_freq": EVERY,
    "train": SPLITS,
    "mixed_precision": "train.precision=bf16, fp32 or auto",
    "dropout": "model.l2=X, or train.ema_decay=0.999",
    "decay": "train.schedule=exponential with train.decay_steps and train.decay_factor",
    "directory": OWN_DATA,
    "images": OWN_DATA,
    "annotations": OWN_DATA,
}
"""A word, without its section -> what to write here; {} is the value that was given."""
CHOICES = {
    "model": (
        r"yolo|rcnn|detr|efficientdet|efficientnet|centernet|nanodet|rtmdet|fcos|\.(pt|yaml|h5|onnx)$",
        "odtrain builds SSDs, RetinaNets and EfficientDet-Lite alone; docs/zoo.md says which for what. ",
    ),
    "data": (r"[./\\]", f"Your own pictures: {OWN_DATA}. "),
}
"""Where a group has no such choice: which values are of another program, and what is said of them."""


def in_our_words(key: str, value: str, overrides: Sequence[str]) -> str | None:
    """What a key of another program is called here, as a remedy; None where it is not known.

    Args:
        key: as typed.
        value: that it was given.
        overrides: all that was typed, for the size of a batch.
    """
    told = WORDS.get(key.rpartition(".")[2].lower().replace("-", "_"))
    if told is None:
        return None
    shown = value if len(value) <= SHOWN_VALUE else f"{value[:SHOWN_VALUE]}..."
    if told == STEPS:
        return _steps(shown, overrides)
    return f"Here that is {told.replace('{}', shown or 'VALUE')}."


def _steps(epochs: str, overrides: Sequence[str]) -> str:
    """How many steps so many epochs are."""
    sizes = [
        value for key, _, value in (each.partition("=") for each in overrides) if _is_batch(key)
    ]
    batch = int(sizes[-1]) if sizes and sizes[-1].isdecimal() and int(sizes[-1]) else EXAMPLE_BATCH
    formula = f"{epochs or 'EPOCHS'} x training pictures / train.batch_size"
    if not epochs.isdecimal() or len(epochs) > 9:
        return f"Here that is train.steps=N, N = {formula}."
    steps = -(-int(epochs) * EXAMPLE_PICTURES // batch)
    return (
        f"Here that is train.steps=N, N = {formula}: train.steps={steps} for {EXAMPLE_PICTURES:,} pictures in "
        f"batches of {batch}. odtrain prepare says how many training pictures there are."
    )


def _is_batch(key: str) -> bool:
    return key.lstrip("+~").rpartition(".")[2] in ("batch", "batch_size")
