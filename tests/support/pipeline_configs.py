"""Writes what the Object Detection API's samples look like, for any model of conf/model."""

from __future__ import annotations

from odtrain.config.schema import Config

TYPES = {
    "ssd_mobilenet_v1": "ssd_mobilenet_v1",
    "ssd_mobilenet_v2": "ssd_mobilenet_v2",
    "ssdlite_mobilenet_v2": "ssd_mobilenet_v2",
    "ssd_mobilenet_v1_fpn": "ssd_mobilenet_v1_fpn",
    "ssd_resnet50_v1_fpn": "ssd_resnet50_v1_fpn",
    "ssd_mobilenet_v1_ppn": "ssd_mobilenet_v1_ppn",
    "ssd_inception_v2": "ssd_inception_v2",
    "ssdlite_mobilenet_v3_large": "ssd_mobilenet_v3_large",
    "ssdlite_mobilenet_v3_small": "ssd_mobilenet_v3_small",
    "ssdlite_mobilenet_edgetpu": "ssd_mobilenet_edgetpu",
    "ssdlite_mobiledet_cpu": "ssd_mobiledet_cpu",
    "ssdlite_mobiledet_dsp": "ssd_mobiledet_dsp",
    "ssdlite_mobiledet_edgetpu": "ssd_mobiledet_edgetpu",
    "ssdlite_mobiledet_gpu": "ssd_mobiledet_gpu",
    "ssd_mobilenet_v2_fpnlite": "ssd_mobilenet_v2_fpn",
    "ssd_mobilenet_v2_mnasfpn": "ssd_mobilenet_v2_mnasfpn",
}


def pipeline_text(config: Config, num_classes: int = 90, reader: str = "") -> str:
    """The pipeline.config of a configuration, as its publishers would have written it.

    `reader` replaces the readers of the samples, whose paths are not filled in.
    """
    height, width = config.model.size
    return f"""# As the samples begin.
model {{
  ssd {{
    num_classes: {num_classes}
    box_coder {{
      faster_rcnn_box_coder {{
        y_scale: 10.0
        x_scale: 10.0
        height_scale: 5.0
        width_scale: 5.0
      }}
    }}
    matcher {{
      argmax_matcher {{
        matched_threshold: {config.model.matched_iou}
        unmatched_threshold: {config.model.matched_iou}
        ignore_thresholds: false
        negatives_lower_than_unmatched: true
        force_match_for_each_row: true
      }}
    }}
    similarity_calculator {{
      iou_similarity {{
      }}
    }}
    {"encode_background_as_zeros: true" if config.model.encode_background_as_zeros else ""}
    anchor_generator {{
{_anchors(config)}
    }}
    image_resizer {{
      fixed_shape_resizer {{
        height: {height}
        width: {width}
      }}
    }}
    box_predictor {{
{_predictor(config)}
    }}
    feature_extractor {{
      type: '{TYPES[config.model.architecture]}{"_keras" if config.model.last_channels else ""}'
      min_depth: {config.model.min_depth}
      depth_multiplier: {config.model.depth_multiplier}
      use_depthwise: {str(_split_extras(config)).lower()}
{_hyperparameters(config)}
{_pyramid(config)}
      override_base_feature_extractor_hyperparams: {str(config.model.batch_norm_decay != 0.9997).lower()}
    }}
    loss {{
{_loss(config)}
    }}
    normalize_loss_by_num_matches: true
    normalize_loc_loss_by_codesize: {str(config.train.loss == "focal").lower()}
    post_processing {{
      batch_non_max_suppression {{
        score_threshold: 1e-8
        iou_threshold: {config.model.nms_iou}
        max_detections_per_class: {config.model.max_detections}
        max_total_detections: {config.model.max_detections}
      }}
      score_converter: SIGMOID
    }}
  }}
}}

train_config: {{
  batch_size: {config.train.batch_size}
  optimizer {{
{_optimizer(config)}
  }}
  fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/model.ckpt"
  from_detection_checkpoint: true
  num_steps: {config.train.schedule_steps or config.train.steps}
  data_augmentation_options {{
    random_horizontal_flip {{
    }}
  }}
  data_augmentation_options {{
    ssd_random_crop {{
    }}
  }}
}}
{reader or READER}
eval_config: {{
  num_examples: 8000
  # Note: The line below limits the evaluation process to 10 evaluations.
  max_evals: 10
}}
"""


READER = """
train_input_reader: {
  tf_record_input_reader {
    input_path: "PATH_TO_BE_CONFIGURED/mscoco_train.record"
  }
  label_map_path: "PATH_TO_BE_CONFIGURED/mscoco_label_map.pbtxt"
}

eval_input_reader: {
  tf_record_input_reader {
    input_path: "PATH_TO_BE_CONFIGURED/mscoco_val.record"
  }
  label_map_path: "PATH_TO_BE_CONFIGURED/mscoco_label_map.pbtxt"
  shuffle: false
  num_readers: 1
}
"""


def _is_lite(config: Config) -> bool:
    return config.model.architecture.startswith("ssdlite")


def _has_pyramid(config: Config) -> bool:
    return "fpn" in config.model.architecture


def _has_split_pyramid(config: Config) -> bool:
    return config.model.architecture.endswith(("_fpnlite", "_mnasfpn"))


def _is_shared(config: Config) -> bool:
    return _has_pyramid(config) or config.model.architecture.endswith("_ppn")


def _split_extras(config: Config) -> bool:
    if config.model.separable_extras is not None:
        return config.model.separable_extras
    return _is_lite(config) or config.model.architecture.endswith("_fpnlite")


def _pyramid(config: Config) -> str:
    if not _has_pyramid(config):
        return ""
    return f"""      fpn {{
        min_level: {config.model.pyramid.min_level}
        max_level: {config.model.pyramid.max_level}
        additional_layer_depth: {config.model.pyramid.depth}
      }}"""


def _anchors(config: Config) -> str:
    if _has_pyramid(config):
        pyramid = config.model.pyramid
        return f"""      multiscale_anchor_generator {{
        min_level: {pyramid.min_level}
        max_level: {pyramid.max_level}
        anchor_scale: {pyramid.anchor_scale}
        aspect_ratios: {pyramid.aspect_ratios}
        scales_per_octave: {pyramid.scales_per_octave}
      }}"""
    anchors = config.model.anchors
    ratios = "\n".join(f"        aspect_ratios: {ratio}" for ratio in anchors.aspect_ratios)
    reduced = str(anchors.reduce_boxes_in_lowest_layer).lower()
    return f"""      ssd_anchor_generator {{
        num_layers: {anchors.num_layers}
        min_scale: {anchors.min_scale}
        max_scale: {anchors.max_scale}
{ratios}
        reduce_boxes_in_lowest_layer: {reduced}
      }}"""


def _predictor(config: Config) -> str:
    kernel = config.model.predictor_kernel or (3 if _is_lite(config) else 1)
    if config.model.architecture == "ssd_inception_v2":
        kernel = config.model.predictor_kernel or 3
    if _is_shared(config):
        shared = config.model.shared_predictor
        pooled = "" if _has_pyramid(config) else "kernel_size: 1 share_prediction_tower: true"
        if _has_split_pyramid(config):
            pooled = "share_prediction_tower: true use_depthwise: true"
        return f"""      weight_shared_convolutional_box_predictor {{
        depth: {shared.depth}
        num_layers_before_predictor: {shared.layers} {pooled}
        class_prediction_bias_init: {config.model.class_bias}
{_hyperparameters(config)}
      }}"""
    return f"""      convolutional_box_predictor {{
        min_depth: 0
        max_depth: 0
        num_layers_before_predictor: 0
        use_dropout: false
        dropout_keep_probability: 0.8
        kernel_size: {kernel}
        use_depthwise: {str(_is_lite(config)).lower()}
        box_code_size: 4
        apply_sigmoid_to_scores: false
        class_prediction_bias_init: {config.model.class_bias}
{_hyperparameters(config)}
      }}"""


def _hyperparameters(config: Config) -> str:
    return f"""      conv_hyperparams {{
        activation: RELU_6,
        regularizer {{
          l2_regularizer {{
            weight: {config.model.l2:.10f}
          }}
        }}
        initializer {{
          {config.model.initializer}_initializer {{
            stddev: {config.model.initializer_stddev}
            mean: 0.0
          }}
        }}
        batch_norm {{
          train: true,
          scale: true,
          center: true,
          decay: {config.model.batch_norm_decay},
          epsilon: {config.model.batch_norm_epsilon},
        }}
      }}"""


def _loss(config: Config) -> str:
    model = config.model
    weights = f"      classification_weight: {model.classification_weight}\n"
    if config.train.loss == "focal":
        return f"""      classification_loss {{
        weighted_sigmoid_focal {{
          alpha: {model.focal_alpha},
          gamma: {model.focal_gamma}
        }}
      }}
      localization_loss {{
        weighted_smooth_l1 {{
          delta: 1.0
        }}
      }}
{weights}      localization_weight: {4 * model.localization_weight}"""
    return f"""      classification_loss {{
        weighted_sigmoid {{
        }}
      }}
      localization_loss {{
        weighted_smooth_l1 {{
        }}
      }}
      hard_example_miner {{
        num_hard_examples: {model.num_hard_examples}
        iou_threshold: {model.mining_iou}
        loss_type: CLASSIFICATION
        max_negatives_per_positive: {model.max_negatives_per_positive:g}
        min_negatives_per_image: {model.min_negatives_per_image}
      }}
{weights}      localization_weight: {model.localization_weight}"""


def _optimizer(config: Config) -> str:
    train = config.train
    if train.optimizer == "rmsprop":
        return f"""    rms_prop_optimizer: {{
      learning_rate: {{
        exponential_decay_learning_rate {{
          initial_learning_rate: {train.learning_rate}
          decay_steps: {train.decay_steps}
          decay_factor: {train.decay_factor}
        }}
      }}
      momentum_optimizer_value: {train.momentum}
      decay: {train.rmsprop_decay}
      epsilon: {train.rmsprop_epsilon}
    }}"""
    return f"""    momentum_optimizer: {{
      learning_rate: {{
        cosine_decay_learning_rate {{
          learning_rate_base: {train.learning_rate}
          total_steps: {train.schedule_steps}
          warmup_learning_rate: .013333
          warmup_steps: {train.warmup_steps}
        }}
      }}
      momentum_optimizer_value: {train.momentum}
    }}
    use_moving_average: false"""
