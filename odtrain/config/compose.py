"""How values come together: `conf/`, then overrides; and how a configuration is written and read again."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Optional, TypeVar, cast, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from odtrain.config.checks import check_values, choices_of
from odtrain.config.data_name import name_own_data
from odtrain.config.foreign_words import CHOICES, in_our_words
from odtrain.config.schema import Config, ZooEntry, keys, section_in, sections
from odtrain.config.shipped import choices, conf, conf_folders, shipped
from odtrain.errors import ConfigError, first_line, taken_from
from odtrain.secrets import without_secrets

SHOWN_KEYS = 12
"""Of those that may be meant, so that a message stays within a few lines."""
SHOWN_LENGTH = 200
WITHOUT_CHOICES = ("~model", "~data", "~sweep")
"""The groups whose choices each say what to work on: `conf/*_defaults.yaml` has what holds for all of them."""
NOTHING_CHOSEN = ("experiment=null",)
"""What says that nothing of a group is chosen, as is the default: Hydra would not read it."""
NEWER = {
    **{
        f"augment.{key}": 0.0
        for key in ("hue", "grey", "scale", "translate", "rotate", "mosaic", "mixup")
    },
    **{
        f"augment.{key}": 0.0
        for key in ("copy_paste", "erase", "blur", "noise", "jpeg", "off_last")
    },
    "data.crowd": "ignore",
    "data.faulty": "error",
    "data.tiles.size": None,
    "data.tiles.overlap": 0.2,
    "data.tiles.whole": True,
    "data.tiles.min_visible": 0.5,
    "data.tiles.empty": 1.0,
    "predict.track": False,
    "predict.lines": None,
    **{
        f"{section}.tiles.{key}": value
        for section in ("evaluate", "predict")
        for key, value in (("size", "stored"), ("overlap", 0.2), ("whole", True))
    },
    "export.int8_ladder": True,
    "export.int8_ladder_minutes": 10,
    "model.last_channels": None,
    "model.pyramid.cells": 1,
    "model.pyramid.from_smoothed": False,
    "model.repeat_multiplier": 1.0,
    "model.survival_probability": 1.0,
    "registry.min_recall": 0.1,
    "registry.min_pictures": 20,
    "registry.min_objects": 10,
    "serve.log": None,
    "serve.log_pictures": 0.0,
    "serve.log_megabytes": 200,
    "train.accumulate": 1,
    "train.assigner": "iou",
    "train.box_loss": "huber",
    "train.clip_each": None,
    "train.ema_warmup": False,
    "train.jit": False,
    "train.label_smoothing": 0.0,
    "train.multi_scale": 0.0,
    "train.overlap_weight": 2.0,
    "train.quantize_from": None,
}
"""Keys that runs and data sets of older versions do not have, and the value that says what was done then."""
FORMER = {"export.nms": ("builtin", "regular")}
"""Keys whose default changed without changing what a run learns: today's, and the older one.
Files that suppress by the detection operator lose a class with several threads."""
FORMER_KEY, TODAYS_KEY = "model.zoo.url", "model.zoo.sources"
"""What was one address is a list of them now: in runs and YAML of before it is read as a list of one."""
NOT_SETTINGS = ("model.zoo.closed", "model.zoo.instead")
"""What is told of a model's weights, and changes nothing of what is learned."""
Section = TypeVar("Section")


def compose_config(
    overrides: Sequence[str], config_dir: str | None = None, *, aloud: bool = False
) -> Config:
    """Compose `conf/` and the overrides, check every key, type and choice, return typed values.

    Args:
        overrides: Hydra's `key=value`; a text value may hold any character without quoting.
        config_dir: a folder of the user's own configs, searched beside `conf/`.
        aloud: say what the user's pictures are called, where that follows from their folder.

    Raises:
        ConfigError: an override cannot be read, names an unknown key or choice, or has a wrong type.
    """
    overrides = [_in_todays_key(override) for override in overrides]
    quoted = [_quoted(override) for override in overrides if override not in NOTHING_CHOSEN]
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(
            f"--config-dir {config_dir}",
            f"no such folder{taken_from(config_dir)}.",
            "Give a folder.",
        )
    _check_names(overrides, conf_folders(config_dir))
    if config_dir is not None:
        quoted.append(f'hydra.searchpath=["file://{Path(config_dir).resolve()}"]')
    try:
        node = _composed(quoted)
        name_own_data(node, aloud)
        config = _typed(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(error, overrides) from error
    except AssertionError as error:  # OmegaConf's, about a key inside a section that is null
        remedy = "Choose one that has it: model=NAME for model.zoo."
        raise ConfigError(" ".join(overrides), "a section of a key is null.", remedy) from error
    check_values(config)
    return config


def section(kind: type[Section], **values: object) -> Section:
    """One section made in code: these values, and what `conf/` gives the keys besides.

    Args:
        kind: one of `schema`'s.
        values: of its keys; sections that are part of it as such.

    Raises:
        ConfigError: a key is unknown or has no value, a type or value is wrong.
    """
    key = next(name for name, of in sections() if of is kind)
    stated: dict[str, Any] = {
        name: asdict(each) if is_dataclass(each) and not isinstance(each, type) else each
        for name, each in values.items()
    }
    for name in reversed(key.split(".")):
        stated = {name: stated}
    try:
        node = OmegaConf.merge(_given(conf(), WITHOUT_CHOICES), stated)
        made = _made(kind, _plain(OmegaConf.select(node, key)))
    except OmegaConfBaseException as error:
        raise ConfigError(key, first_line(error), "Give each key a value of its type.") from error
    check_values(made, f"{key}.")
    return made


def as_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, in the order of the dataclasses."""
    return asdict(config)


def as_yaml(config: Config) -> str:
    """The configuration as YAML that `from_yaml` reads back, without passwords and tokens of addresses."""
    return OmegaConf.to_yaml(OmegaConf.create(without_secrets(as_dict(config))))


def from_yaml(text: str) -> Config:
    """Read what `as_yaml` wrote; what `conf/` gives for keys that are newer than the text.

    Raises:
        ConfigError: it was written by a version whose keys differ.
    """
    try:
        stated = OmegaConf.merge(OmegaConf.structured(_open(Config)), OmegaConf.create(text))
        _forget_former_defaults(cast(DictConfig, stated))
        model = OmegaConf.select(stated, "model.name")
        shipped_one = (conf() / "model" / f"{model}.yaml").is_file()
        others = (f"model={model}" if shipped_one else "~model", *WITHOUT_CHOICES[1:])
        return _typed(cast(DictConfig, stated), others)
    except OmegaConfBaseException as error:
        remedy = "Use the odtrain version named in the run's tag odtrain.version."
        raise ConfigError("config.yaml of the run", first_line(error), remedy) from error


def _forget_former_defaults(stated: DictConfig) -> None:
    """Let `conf/` say what a text from before `registry.min_recall` has only because it was the default."""
    if OmegaConf.is_missing(stated.registry, "min_recall"):
        for key, (_, former) in FORMER.items():
            if OmegaConf.select(stated, key) == former:
                OmegaConf.update(stated, key, MISSING)


def shipped_model(name: str) -> dict[str, Any]:
    """The `model` section of a choice of `conf/model`, read alone: composing takes a tenth of a second."""
    given = OmegaConf.load(shipped("conf") / "model_defaults.yaml")
    own = cast(DictConfig, OmegaConf.load(shipped("conf/model") / f"{name}.yaml"))
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(given, own["model"])))


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"steps": 5}}` as `{"train.steps": 5}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def given_keys(overrides: Sequence[str]) -> set[str]:
    """The keys and choices that overrides name."""
    return {override.lstrip("+~").partition("=")[0] for override in overrides}


def names_section(overrides: Sequence[str], name: str) -> bool:
    """Whether overrides name a choice of a section, or a key of it."""
    return any(key.partition(".")[0] == name for key in given_keys(overrides))


def without_newer(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat values as an older version had them: without `NEWER` keys that change nothing, by `FORMER`."""
    older = {key: each for key, each in values.items() if key not in NEWER or NEWER[key] != each}
    older = {key: each for key, each in older.items() if key not in NOT_SETTINGS}
    renamed = {key: old for key, (now, old) in FORMER.items() if older.get(key) == now}
    if len(older.get(TODAYS_KEY, ())) == 1:
        renamed[FORMER_KEY] = older.pop(TODAYS_KEY)[0]
    return {**older, **renamed}


def _composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of `conf/`; keys that no file states are missing, interpolations as they stand."""
    ConfigStore.instance().store(name="base_config", node=_open(Config))
    resolvers: dict[str, Callable[..., Any]] = {
        "shipped": lambda name: str(shipped(name)),
        "variable": _variable,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True, use_cache=False)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def _in_todays_key(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{TODAYS_KEY}=[{value}]" if key.lstrip("+") == FORMER_KEY and value else override


def _variable(name: str, otherwise: str) -> str:
    """An environment variable; one that is empty is none."""
    return os.environ.get(name) or otherwise


@cache
def _given(folder: Path, overrides: tuple[str, ...]) -> DictConfig:
    """As `_composed`, once a process, to merge into; `folder` tells one folder's from another's."""
    given = _composed(overrides)
    OmegaConf.set_struct(given, False)
    return given


@cache
def _open(kind: type) -> type:
    """The same keys in a class that is not frozen: OmegaConf merges nothing into what is made of one."""
    hints = get_type_hints(kind)
    keys = [
        (each.name, _open_hint(hints[each.name]), field(default=each.default))
        for each in fields(kind)
    ]
    if kind is ZooEntry:
        keys.append(("url", Optional[str], field(default=None)))  # noqa: UP045
    return make_dataclass(kind.__name__, keys)


def _open_hint(hint: Any) -> Any:
    kind = section_in(hint)
    if kind is None:
        return hint
    return _open(kind) if hint is kind else Optional[_open(kind)]  # noqa: UP045


def _typed(node: DictConfig, others: Sequence[str] = WITHOUT_CHOICES) -> Config:
    """The values as dataclasses; those of keys that are missing as composing `others` gives them."""
    if (url := OmegaConf.select(node, FORMER_KEY)) is not None:
        OmegaConf.update(node, TODAYS_KEY, [url])
    if OmegaConf.missing_keys(node):
        given = OmegaConf.to_container(_given(conf(), tuple(others)))
        filled = _filled(OmegaConf.to_container(node), Config, given)
        node = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(_open(Config)), filled))
    return _made(Config, _plain(node))


def _plain(node: DictConfig) -> Any:
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        raise MissingMandatoryValue(f"{missing[0]} has no value.")
    return OmegaConf.to_container(node, resolve=True)


def _filled(values: Any, kind: type, given: Any) -> dict[str, Any]:
    own = {}
    for name, hint in get_type_hints(kind).items():
        value = values.get(name, MISSING)
        if value == MISSING:
            value = given.get(name, MISSING)
        elif isinstance(hint, type) and is_dataclass(hint):
            value = _filled(value, hint, given[name])
        own[name] = value
    return own


def _made(kind: type[Section], values: Any) -> Section:
    """A section, with those that are part of it, of plain values."""
    own = {name: each for name, each in values.items() if kind is not ZooEntry or name != "url"}
    for name, hint in get_type_hints(kind).items():
        part = section_in(hint)
        if part is not None and own[name] is not None:
            own[name] = _made(part, own[name])
    return kind(**own)


def _quoted(override: str) -> str:
    """Quote the value of an override that Hydra's grammar cannot read as it stands."""
    if "=" not in override:
        remedy = "Settings are given as key=value, for example train.steps=500."
        raise ConfigError(override, "not a setting.", remedy)
    key, value = override.split("=", 1)
    try:
        parsed = OverridesParser.create().parse_override(override)
        readable = not (parsed.is_sweep_override() and _is_text(key))
    except HydraException:
        readable = False
    if _is_list(key) and value not in ("null", "") and not value.startswith(("[", "$")):
        raise ConfigError(override, "is one value where a list belongs.", f"Give {key}=[{value}]")
    if readable:
        return override
    return f"{key}={_quoted_list(value) if _is_list(key) else _in_quotes(value)}"


def _in_quotes(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _quoted_list(value: str) -> str:
    """`[train.steps=4,[a=1,b=2]]` with each text in quotes, as Hydra reads a list with = in its texts."""
    if not (value.startswith("[") and value.endswith("]")):
        return value if value[:1] + value[-1:] in ('""', "''") else _in_quotes(value)
    parts, depth, start = [], 0, 1
    for i, sign in enumerate(value[:-1]):
        depth += (sign in "[{(") - (sign in "]})")
        if sign == "," and depth == 1:
            parts.append(value[start:i].strip())
            start = i + 1
    parts.append(value[start:-1].strip())
    return f"[{','.join(_quoted_list(part) for part in parts if part)}]"


def _is_list(key: str) -> bool:
    key = key.lstrip("+~")
    return key == TODAYS_KEY or get_origin(keys().get(key)) is list


def _is_text(key: str) -> bool:
    """True for a key of one value: what has commas is no list there."""
    hint = keys().get(key.lstrip("+~"))
    return hint is not None and get_origin(hint) not in (list, dict)


def _check_names(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Check that every override names a known key or group, and a choice that exists.

    Raises:
        ConfigError: it does not.
    """
    known = sorted(keys())
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        shown = override if len(override) <= SHOWN_LENGTH else f"{override[:SHOWN_LENGTH]}..."
        given = choices(key, folders) if len(key) < SHOWN_LENGTH else []
        if given and value not in given and override not in NOTHING_CHOSEN:
            pattern, said = CHOICES.get(key, ("", ""))
            remedy = (said if re.search(pattern, value.lower()) else "") + choices_of(given)
            raise ConfigError(shown, "no such choice.", remedy)
        if not given and not any(_within(key, name) for name in known):
            remedy = in_our_words(key, value, overrides) or _nearest(key, known)
            raise ConfigError(shown, "no such key.", remedy)


def _nearest(key: str, known: Sequence[str]) -> str:
    """The keys that look most like `key`, else those of its section, else the sections."""
    tail = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    near = near or [name for name in known if len(tail) > 2 and tail in name.rpartition(".")[2]]
    if near:
        return f"Did you mean: {', '.join(near[:SHOWN_KEYS])}"
    section = [name for name in known if name.startswith(key.partition(".")[0] + ".")]
    if section:
        more = f" and {len(section) - SHOWN_KEYS} more" if len(section) > SHOWN_KEYS else ""
        return f"Known keys: {', '.join(section[:SHOWN_KEYS])}{more}"
    sections = dict.fromkeys(name.partition(".")[0] for name in known)
    return f"Keys begin with: {', '.join(sections)}. odtrain train --help lists them."


def _within(key: str, name: str) -> bool:
    """True where one of two dotted keys is, or lies inside, the other."""
    return f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.")


def _explained(error: BaseException, overrides: Sequence[str]) -> ConfigError:
    """Hydra's error in our form: the override at fault where its value is named in the reasons."""
    reasons = [first_line(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        reasons.append(first_line(error))
    remedy = "odtrain COMMAND --cfg shows what was composed."
    for override in overrides:
        value = override.partition("=")[2]
        if any(f"'{value}'" in reason or override in reason for reason in reasons):
            remedy = "Give a value of that type; odtrain --help names where every key is explained."
            return ConfigError(override, reasons[-1], remedy)
    return ConfigError("configuration", reasons[-1], remedy)
