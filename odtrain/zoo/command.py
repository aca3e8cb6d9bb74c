"""`odtrain zoo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from odtrain.command import Action, Command, Composed, Invocation, flag, prints
from odtrain.errors import ConfigError


def _of_named(text_of: Callable[[Composed], str]) -> Callable[[Invocation], int]:
    """A model that is named is composed with its own settings, so that overrides can change those."""

    def composed(invocation: Invocation) -> int:
        from odtrain.zoo.catalog import model_names

        if invocation.flags.name in model_names(invocation.flags.config_dir):
            invocation.overrides.insert(0, f"model={invocation.flags.name}")
        return prints(text_of)(invocation)

    return composed


def _list(given: Composed) -> str:
    from odtrain.zoo.catalog import catalog_table

    return catalog_table(given.flags.sort, given.flags.config_dir)


def _fetch(given: Composed) -> str:
    from odtrain.zoo.catalog import model_names

    models, name = model_names(given.flags.config_dir), given.flags.name or ""
    if name not in models:
        raise _no_model(f"zoo fetch {name}", "no such model.", models)
    from odtrain.zoo.verify import fetch_weights

    return str(fetch_weights(given.config))


def _verify(given: Composed) -> str:
    from odtrain.zoo.catalog import model_names

    models, name = model_names(given.flags.config_dir), given.flags.name or ""
    path = Path(name).expanduser()
    if name not in models and (not name or not path.exists()):
        raise _no_model(f"zoo verify {name}", "no such model, and no such path.", models)
    from odtrain.zoo.verify import fetch_weights, verify_weights

    return verify_weights(given.config, fetch_weights(given.config) if name in models else path)


def _no_model(where: str, problem: str, models: list[str]) -> ConfigError:
    return ConfigError(where.rstrip(), problem, f"Models: {', '.join(models)}.")


LIST = Action(
    prints(_list),
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
