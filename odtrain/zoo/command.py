"""`odtrain zoo`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Composed, Invocation, flag, prints
from odtrain.errors import CheckpointError, ConfigError, DataError, told_if_not_written
from odtrain.io.free_names import is_taken

if TYPE_CHECKING:
    from odtrain.config.schema import Config

logger = logging.getLogger(__name__)


def _of_named(text_of: Callable[[Composed], str]) -> Callable[[Invocation], int]:
    """A model that is named is composed with its own settings, so that overrides can change those."""

    def composed(invocation: Invocation) -> int:
        from odtrain.zoo.catalog import model_names

        if invocation.flags.name in model_names(invocation.flags.config_dir):
            invocation.overrides.insert(0, f"model={invocation.flags.name}")
        return prints(text_of)(invocation)

    return composed


def _list(given: Composed) -> str:
    from odtrain.zoo.catalog import catalog

    return catalog(given.flags.sort, given.flags.config_dir)


def _fetch(given: Composed) -> str:
    from odtrain.zoo.catalog import model_names, no_model

    models, name = model_names(given.flags.config_dir), given.flags.name or ""
    if name not in models:
        raise no_model(f"zoo fetch {name}", "no such model.", models)
    from odtrain.zoo.verify import fetch_weights

    return str(fetch_weights(given.config))


def _verify(given: Composed) -> str:
    from odtrain.zoo.catalog import model_names, no_model

    models, name = model_names(given.flags.config_dir), given.flags.name or ""
    path = Path(name).expanduser()
    if name not in models and (not name or not path.exists()):
        raise no_model(f"zoo verify {name}", "no such model, and no such path.", models)
    from odtrain.zoo.verify import fetch_weights, verify_weights

    if name in models:
        return verify_weights(given.config, fetch_weights(given.config))
    from odtrain.zoo.adopt import adopted, is_graph

    archive = adopted(path) if is_graph(path) else path
    return verify_weights(_of_its_network(given, archive), archive)


def _of_its_network(given: Composed, archive: Path) -> Config:
    """The configuration with the network of an archive: that of `model=`, else what lies in it tells."""
    from odtrain.config.compose import compose_config, names_section
    from odtrain.io.archives import locate
    from odtrain.tf1_import.experiment import network_overrides
    from odtrain.zoo.recognise import model_overrides

    if names_section(given.overrides, "model"):
        return given.config
    pipeline = locate(archive).with_name("pipeline.config")
    try:
        network = network_overrides(pipeline)
    except DataError as error:  # there is none, or of a form that is not known: variables tell too
        if pipeline.is_file():
            logger.warning(f"{error}\n  Its variables tell which network it is of.")
        network = model_overrides(archive)
    logger.info(f"{archive}: {' '.join(network[:1])}")
    return compose_config([*network, *given.overrides], given.flags.config_dir)


def _status(given: Composed) -> str:
    from odtrain.zoo.status import status_table

    return status_table(given.flags.names, given.flags.config_dir)


def _adopt(given: Composed) -> str:
    file = Path(given.flags.file).expanduser()
    folder = Path(given.flags.to) if given.flags.to else Path(f"{file.stem}_checkpoint")
    if is_taken(folder):
        raise ConfigError(folder, "is there already.", "Give another folder: --to DIR.")
    from odtrain.zoo.adopt import FROZEN, adopt

    with told_if_not_written(folder, "Give another folder: --to DIR.", CheckpointError):
        count = adopt(file, folder)
    if not count:
        return (
            f"{folder}: the graph of {file}, of no network that can be trained here.\nTo run it: "
            f"source={folder / FROZEN}, with what source.yaml in that folder says (docs/other_models.md)"
        )
    return (
        f"{folder}: {count:,} variables of {file}.\nTo prove it: odtrain zoo verify {folder}\n"
        f"To train from it: odtrain train model=NAME train.checkpoint={folder}"
    )


LIST = Action(
    prints(_list),
    "the models: size, cost, published accuracy and speed",
    flags=(
        flag(
            "--sort",
            "one table by name, input, depth, parameters, macs, map, ms or weights; else one of each purpose",
            metavar="COLUMN",
        ),
    ),
    settings=("zoo",),
)
FETCH = Action(
    _of_named(_fetch),
    "download a model's weights, once",
    flags=(flag("name", "a model", nargs="?", metavar="NAME"),),
    settings=("zoo", "model"),
)
VERIFY = Action(
    _of_named(_verify),
    "prove weights equal to the frozen graph beside them",
    flags=(
        flag("name", "a model, or the path of a tarball or folder", nargs="?", metavar="NAME|PATH"),
    ),
    settings=("zoo", "model", "input"),
)
STATUS = Action(
    prints(_status),
    "ask each address of the weights whether they can be had",
    flags=(flag("names", "models; all without any", nargs="*", metavar="NAME"),),
    settings=("zoo",),
)
ADOPT = Action(
    prints(_adopt),
    "make a checkpoint of a frozen graph",
    flags=(
        flag("file", "a frozen .pb, or a TensorFlow.js graph model", metavar="FILE"),
        flag("--to", "the new folder; default FILE's name and _checkpoint", metavar="DIR"),
    ),
    settings=("zoo",),
    example="odtrain zoo adopt frozen_inference_graph.pb",
)
COMMANDS = {
    "zoo": Command(
        {"list": LIST, "fetch": FETCH, "verify": VERIFY, "status": STATUS, "adopt": ADOPT},
        default="list",
    )
}
