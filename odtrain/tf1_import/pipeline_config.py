"""The TensorFlow 1 Object Detection API's pipeline.config, as settings of odtrain that do the same.

Every field is asked for by name. What has no counterpart here, and what nobody asked for, is told with its
line: nothing is dropped in silence. Names and defaults are those of the API's files in `protos/`.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from odtrain.errors import DataError
from odtrain.io.textproto import Field, Message, Token, parse
from odtrain.tf1_import.imported import EXAMPLE, Imported, pass_over
from odtrain.tf1_import.model_settings import read_model
from odtrain.tf1_import.training_settings import read_training

WITHOUT_INFLUENCE = frozenset(
    "use_matmul_gather inplace_batchnorm_update batch_norm_trainable use_static_shapes sync_replicas "
    "startup_delay_steps replicas_to_aggregate keep_checkpoint_every_n_hours batch_queue_capacity "
    "num_batch_queue_threads prefetch_queue_capacity max_number_of_boxes unpad_groundtruth_tensors "
    "num_readers shuffle shuffle_buffer_size filenames_shuffle_buffer_size num_epochs queue_capacity "
    "min_after_dequeue num_parallel_batches num_prefetch_batches read_block_length prefetch_size "
    "num_parallel_map_calls anchorwise_output op name include_source_id eval_config "
    "dropout_keep_probability".split()
)
"""Fields about speed, queues, several machines and when to evaluate: they do not change what is learned."""

QUANTIZATION_DELAY = 500000
"""Steps before quantisation is simulated where a file does not say: `graph_rewriter.proto`'s default."""


def read_pipeline(file: Path) -> Imported:
    """Read a pipeline.config.

    Raises:
        DataError: it cannot be read, has a typo (told with line and column), or is of a network that
            odtrain does not build.
    """
    pipeline = parse(file, EXAMPLE)
    found = Imported(file)
    read_model(_ssd(pipeline), found)
    read_training(pipeline, found)
    _readers(pipeline, found)
    _rewriter(pipeline, found)
    pipeline.message("eval_config")
    _leftovers(pipeline, found)
    return found


def _ssd(pipeline: Message) -> Message:
    model = pipeline.message("model")
    if model is None:
        raise DataError(pipeline.reader.file, "holds no model { }.", EXAMPLE)
    ssd = model.message("ssd")
    if ssd is None:
        other = model.fields[0].token if model.fields else model.start
        remedy = "Start from an SSD: odtrain zoo lists them."
        raise model.reader.fail(other, f"{other.text}: odtrain builds SSDs alone.", remedy)
    return ssd


def _readers(pipeline: Message, found: Imported) -> None:
    training, evaluation = (pipeline.messages(f"{n}_input_reader") for n in ("train", "eval"))
    for readers, records in ((training, found.train_records), (evaluation, found.eval_records)):
        for reader in readers:
            found.label_map = found.label_map or reader.text("label_map_path") or None
            reader.all("label_map_path")
            source = reader.message("tf_record_input_reader")
            if source is not None:
                records += [source.text_of(each) for each in source.all("input_path")]
            found.expect(reader, "sample_1_of_n_examples", 1, 1)


def _rewriter(pipeline: Message, found: Imported) -> None:
    """Simulated quantisation, where the training gets as far as it."""
    rewriter, given = pipeline.message("graph_rewriter"), pipeline.one("graph_rewriter")
    quantization = rewriter.message("quantization") if rewriter else None
    if quantization is None or given is None:
        return
    delay, steps = quantization.whole("delay"), found.values.get("train.steps")
    delay = QUANTIZATION_DELAY if delay is None else delay
    for bits in ("weight_bits", "activation_bits"):
        found.expect(quantization, bits, 8, 8)
    if isinstance(steps, int) and delay >= steps:
        what = f"quantisation is simulated from step {delay} on, behind the last of {steps}."
        found.lose(given.token, f"graph_rewriter: {what}")
        return
    found.values["train.quantize_from"] = delay


def _leftovers(pipeline: Message, found: Imported) -> None:
    """Tell every field that nobody asked for."""
    evaluation = pipeline.message("eval_config")
    if evaluation is not None:
        pass_over(Field(evaluation.start, evaluation))
    asked = _names(pipeline)
    for each in pipeline.left():
        if each.name in WITHOUT_INFLUENCE:
            found.ignored.append(each.name)
            continue
        near = difflib.get_close_matches(each.name, sorted(asked - {each.name}), n=1, cutoff=0.8)
        hint = f" Did you mean {near[0]}?" if near else ""
        shown = f": {each.value.text}" if isinstance(each.value, Token) else ""
        found.lose(each.token, f"{each.name}{shown} is not known here.{hint}")


def _names(message: Message) -> set[str]:
    """Every name that was asked for, at any depth."""
    inner = [each.value for each in message.fields if isinstance(each.value, Message)]
    return message.asked.union(*(_names(each) for each in inner))
