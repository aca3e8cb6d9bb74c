"""`odtrain import`: a pipeline.config, with its label map and records, as an experiment of odtrain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from odtrain.config.compose import compose_config, shipped_model
from odtrain.config.schema import keys
from odtrain.errors import CheckpointError, ConfigError, DataError, told_if_not_written
from odtrain.io.archives import locate
from odtrain.io.atomic import write_text
from odtrain.labels.formats.tfrecords import RECORD_NAME, SPLIT_WORDS, record_files
from odtrain.labels.label_map import read_label_map
from odtrain.tf1_import.imported import PLACEHOLDER, Imported
from odtrain.tf1_import.pipeline_config import read_pipeline
from odtrain.zoo.catalog import model_names

WIDTH = 108
"""Of the lines that are written."""


@dataclass
class Experiment:
    """An experiment to be written.

    Attributes:
        name: of it and of its data set.
        model: the choice `model=` that it is built on.
        values: dotted key -> value.
        found: what the pipeline.config says.
    """

    name: str
    model: str
    values: dict[str, Any] = field(default_factory=dict)
    found: Imported = field(default_factory=lambda: Imported(Path()))


def import_pipeline(file: Path, folder: Path, name: str | None = None) -> str:
    """Write `folder/experiment/NAME.yaml`, which trains what `file` trains, and say what differs.

    Args:
        file: a pipeline.config.
        folder: of the user's own configs, as `--config-dir` takes it; made if it is not there.
        name: of the experiment; without it that of the file, or of its folder for a file whose own
            name says nothing.

    Raises:
        DataError: the file or its label map cannot be read, has a typo, or is of another network.
        ConfigError: the name cannot be one, or is taken.
    """
    experiment = _experiment(file, _name(file, name))
    target = folder / "experiment" / f"{experiment.name}.yaml"
    text = _yaml(experiment)
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise ConfigError(
            target,
            "is there already, and says something else.",
            "Give another name, --name NAME, or move it away.",
        )
    with told_if_not_written(target, "Give another folder: --to DIR.", ConfigError):
        write_text(target, text)
    try:
        compose_config([f"experiment={experiment.name}"], str(folder))
    except ConfigError:  # a number that no network can have
        target.unlink()
        raise
    return _report(experiment, target, folder)


def network_overrides(file: Path) -> list[str]:
    """`model=NAME` and what a pipeline.config says of the network besides, as overrides.

    Raises:
        DataError: as of `import_pipeline`.
    """
    found = read_pipeline(file)
    own = {key: value for key, value in found.values.items() if key.startswith("model.")}
    return [f"model={_model(found)[0]}", *(f"{key}={json.dumps(own[key])}" for key in own)]


def _name(file: Path, given: str | None) -> str:
    stem = file.stem if file.stem != "pipeline" else file.absolute().parent.name
    name = given or re.sub(r"[^\w.-]+", "_", stem).strip("._") or "imported"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"--name {name}", "cannot be a name.", "Use letters, digits, - and _.")
    return name


def _experiment(file: Path, name: str) -> Experiment:
    found = read_pipeline(file)
    values: dict[str, Any] = {"data.name": name, "data.validation_fraction": 0.0}
    values |= _data(found) | found.values
    model, is_published = _model(found)
    values["train.checkpoint"] = _checkpoint(found, model, is_published)
    _check_classes(found)
    return Experiment(name, model, values, found)


# ---- pictures and labels


def _data(found: Imported) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if found.label_map and PLACEHOLDER not in found.label_map:
        values["data.label_map"] = found.label_map
    records = found.train_records or [f"{PLACEHOLDER}/train.record"]
    folder = Path(records[0]).parent
    values |= {"data.images": str(folder), "data.format": "tfrecord"}
    if PLACEHOLDER in str(folder):
        found.lost.append(
            "input_path of train_input_reader is not filled in: give data.images=FOLDER of the records, "
            "or of pictures, and then data.format=auto."
        )
    else:
        _check_records(found, folder)
    return values


def _check_records(found: Imported, folder: Path) -> None:
    """Say where the records in the folder are not those that the file names."""
    everything = [*found.train_records, *found.eval_records]
    elsewhere = [each for each in everything if Path(each).parent != folder]
    for each in elsewhere:
        found.lost.append(
            f"{each} is in another folder than the training records: put it into {folder}, whose "
            "records are all read."
        )
    if not folder.is_dir():
        found.lost.append(f"{folder} is not here: no records could be looked at.")
        return
    named = {file for each in everything for file in _files(each)}
    for each in everything:
        if each not in elsewhere and not _files(each):
            found.lost.append(f"{each} is not here.")
    others = sorted(set(record_files(sorted(folder.iterdir()))) - named)
    if others:
        shown = ", ".join(file.name for file in others[:5])
        found.lost.append(
            f"{folder} holds records that the file does not name, and odtrain reads all: {shown}."
        )
    _check_split(found)


def _files(path: str) -> list[Path]:
    """The files that a path, perhaps with `?` and `*` in its last part, means."""
    pattern = Path(path)
    return sorted(pattern.parent.glob(pattern.name)) or [pattern] * pattern.is_file()


def _check_split(found: Imported) -> None:
    """Records are trained on, validated or tested by their names."""
    for records, wanted in ((found.train_records, "train"), (found.eval_records, "test")):
        for each in records:
            match = RECORD_NAME.fullmatch(Path(each).name)
            stem = match["part"].lower() if match else Path(each).stem.lower()
            words = [word for word in re.split(r"[^a-z]+", stem) if word in SPLIT_WORDS]
            if not words:
                found.lost.append(
                    f'{each}: its name does not say "{wanted}", so that its pictures are drawn for '
                    f"training and test. Name it {wanted}.record to keep the split."
                )
            elif wanted == "test" and words[-1].startswith("val"):
                found.changed.append(
                    f"{each}: by its name these pictures are for validation; they decide which weights "
                    "are kept, and there are none for the test. Name it test.record to have them tested."
                )


def _check_classes(found: Imported) -> None:
    """`num_classes` against the label map, which is what counts here."""
    if not found.label_map or PLACEHOLDER in found.label_map:
        found.lost.append("label_map_path is not filled in: classes are those of the labels.")
        return
    try:
        count = len(read_label_map(Path(found.label_map)))
    except DataError as error:
        if Path(found.label_map).exists():
            raise
        found.lost.append(f"label_map_path: {error.args[0]} {error.args[1]}")
        return
    if found.num_classes not in (None, count):
        found.changed.append(
            f"num_classes: {found.num_classes}, but the label map has {count}; the label map counts."
        )


# ---- network and first weights


def _model(found: Imported) -> tuple[str, bool]:
    """The choice of `model=` to build on, and whether the checkpoint is the one published with it."""
    models = {name: shipped_model(name) for name in model_names()}
    place = PurePosixPath((found.checkpoint or "").replace("\\", "/")).parent
    folder = (
        place.parent if place.name == "checkpoint" else place
    ).name  # as TensorFlow 2's have it
    architecture = found.values["model.architecture"]
    same = [name for name, model in models.items() if model["architecture"] == architecture]
    for name in same:
        sources = (models[name]["zoo"] or {}).get("sources", [])
        if folder in (PurePosixPath(each).name.removesuffix(".tar.gz") for each in sources):
            return name, True
    depth = found.values["model.depth_multiplier"]
    return max(same, key=lambda name: _likeness(name, models[name], depth)), False


def _likeness(name: str, model: Mapping[str, Any], depth: object) -> tuple[bool, bool, bool]:
    return (
        model["zoo"] is not None,
        model["depth_multiplier"] == depth,
        "quantized" not in name,
    )


def _checkpoint(found: Imported, model: str, is_published: bool) -> str | None:
    path = found.checkpoint
    if path is None:
        return None
    if PLACEHOLDER in path:
        beside = found.file.parent / "model.ckpt"
        if beside.with_name("model.ckpt.index").is_file():
            found.changed.append(f"fine_tune_checkpoint is not filled in: {beside} is taken.")
            return str(beside)
        found.changed.append(
            f"fine_tune_checkpoint is not filled in: the published weights of {model} are taken."
        )
        return "zoo"
    try:
        locate(path)
    except CheckpointError:
        if not is_published:
            found.lost.append(f"fine_tune_checkpoint: {path} is not here.")
            return path
        found.changed.append(
            f"fine_tune_checkpoint: {path} is not here: the same weights come from the zoo, as {model}."
        )
        return "zoo"
    return path


# ---- what is written and said


def _yaml(experiment: Experiment) -> str:
    head = [
        "# @package _global_",
        f"# Imported from {experiment.found.file.name} by odtrain import. To run it:",
        f"#   odtrain train --config-dir DIR experiment={experiment.name}",
    ]
    for title, notes in _notes(experiment.found):
        head += [f"# {title}:", *(f"#   {line}" for note in notes for line in _wrapped(note))]
    lines = [*head, "defaults:", f"  - override /model: {experiment.model}", "  - _self_"]
    return "\n".join([*lines, *_settings(experiment.values)]) + "\n"


def _settings(values: Mapping[str, Any]) -> Iterator[str]:
    """Lines of YAML, in the order of the typed keys."""
    written: list[str] = []
    for key in keys():
        if key not in values:
            continue
        *sections, last = key.split(".")
        for depth, section in enumerate(sections):
            if written[depth : depth + 1] != [section]:
                written[depth:] = [section]
                yield f"{'  ' * depth}{section}:"
        written = sections
        scalar = yaml.safe_dump(
            values[key], default_flow_style=True, allow_unicode=True, width=1000
        )
        yield f"{'  ' * len(sections)}{last}: {scalar.removesuffix('...' + chr(10)).strip()}"


def _notes(found: Imported) -> list[tuple[str, list[str]]]:
    ignored = [", ".join(dict.fromkeys(found.ignored)) + "."] if found.ignored else []
    notes = [
        ("Could not be carried over", found.lost),
        ("Done in another way", found.changed),
        ("Left out, since it does not change what is learned", ignored),
    ]
    return [(title, lines) for title, lines in notes if lines]


def _wrapped(note: str) -> list[str]:
    lines = [""]
    for word in note.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) > WIDTH:
            lines.append("  ")
        lines[-1] += f"{word} "
    return [line.rstrip() for line in lines]


def _report(experiment: Experiment, target: Path, folder: Path) -> str:
    size = experiment.values["model.input_size"]
    shown = "x".join(map(str, size)) if isinstance(size, list) else f"{size}x{size}"
    steps = experiment.values.get("train.steps", "train.steps")
    lines = [
        f"{target}: {experiment.values['model.architecture']} at {shown}, "
        f"{experiment.values['train.optimizer']}, batch {experiment.values['train.batch_size']}, "
        f"{steps} steps, from {experiment.values['train.checkpoint'] or 'random weights'}",
    ]
    for title, notes in _notes(experiment.found):
        lines += [f"{title}:", *(f"  {line}" for note in notes for line in _wrapped(note))]
    if not experiment.found.lost:
        lines.append("Everything was carried over.")
    lines.append(f"To run it: odtrain train --config-dir {folder} experiment={experiment.name}")
    return "\n".join(lines)
