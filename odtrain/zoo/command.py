"""`odtrain zoo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Invocation, flag, with_config
from odtrain.errors import ConfigError

if TYPE_CHECKING:
    from odtrain.config.schema import Config


def _of_named(run: Callable[[Config, Invocation], int]) -> Callable[[Invocation], int]:
    """A model that is named is composed with its own settings, so that overrides can change those."""

    def composed(invocation: Invocation) -> int:
        from odtrain.zoo.catalog import model_names

        if invocation.flags.name in model_names(invocation.flags.config_dir):
            invocation.overrides.insert(0, f"model={invocation.flags.name}")
        return with_config(run)(invocation)

    return composed


def _list(config: Config, invocation: Invocation) -> int:
    from odtrain.zoo.catalog import catalog_table

    print(catalog_table(invocation.flags.sort, invocation.flags.config_dir))
    return 0


def _fetch(config: Config, invocation: Invocation) -> int:
    from odtrain.zoo.catalog import model_names

    models, name = model_names(invocation.flags.config_dir), invocation.flags.name or ""
    if name not in models:
        raise _no_model(f"zoo fetch {name}", "no such model.", models)
    from odtrain.zoo.verify import fetch_weights

    print(fetch_weights(config))
    return 0


def _verify(config: Config, invocation: Invocation) -> int:
    from odtrain.zoo.catalog import model_names

    models, name = model_names(invocation.flags.config_dir), invocation.flags.name or ""
    path = Path(name).expanduser()
    if name not in models and (not name or not path.exists()):
        raise _no_model(f"zoo verify {name}", "no such model, and no such path.", models)
    from odtrain.zoo.verify import fetch_weights, verify_weights

    print(verify_weights(config, fetch_weights(config) if name in models else path))
    return 0


def _no_model(where: str, problem: str, models: list[str]) -> ConfigError:
    return ConfigError(where.rstrip(), problem, f"Models: {', '.join(models)}.")


LIST = Action(
    with_config(_list),
    "the models: size, cost, published accuracy and speed",
    flags=(
        flag(
            "--sort",
            "name, input, depth, parameters, macs, map, ms or weights",
            default="name",
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
COMMANDS = {"zoo": Command({"list": LIST, "fetch": FETCH, "verify": VERIFY}, default="list")}
