"""compose.yaml: what it holds, and its whole path: a server, a training, a promotion, a served model."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import TINY_RUN
from support.compose import FILE, ROOT, Composed, made_settings, read

from odtrain.cli.parse import parse
from odtrain.config.compose import compose_config
from odtrain_runtime.__main__ import _parser

AS_TINY = (*TINY_RUN, "export.formats=[tflite_fp32]", "evaluate.every=0", "registry.name=panels")
NO_PICTURE = '{"message": "This server wants its token: Authorization: Bearer TOKEN."}'


@pytest.fixture(scope="module")
def services():
    return read(made_settings())


def test_it_has_all_that_a_team_needs(services):
    assert list(services) == ["postgres", "store", "bucket", "mlflow", "train", "fetch", "serve"]


def test_no_secret_stands_in_it():
    text = FILE.read_text()
    for line in text.splitlines():
        name, _, value = line.strip().partition(":")
        if name.endswith(("PASSWORD", "SECRET_KEY", "ACCESS_KEY_ID", "AUTH_TOKEN")):
            assert value.strip().startswith("${"), line


def test_every_secret_is_made_by_the_first_command_and_is_new_each_time():
    first, second = made_settings(), made_settings()
    assert all(len(text) == 48 for text in first.values())
    assert not set(first.values()) & set(second.values())
    assert "(umask 077; deploy/secrets > .env)" in FILE.read_text()


def test_its_commands_are_understood(services):
    for service in services.values():
        if service["image"] == "odtrain":
            words = [word for word in service["command"] if not word.startswith("--artifacts=")]
            compose_config(parse(words).invocation().overrides)
        elif service["image"] == "odtrain-serve":
            _parser().parse_args(service["command"])


def test_what_a_service_waits_for_can_be_waited_for(services):
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert healthy <= ("healthcheck" in services[name])


def test_the_images_that_are_built_are_stages_of_the_dockerfile(services):
    stages = [
        line.split()[-1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if " AS " in line
    ]
    built = [one["build"]["target"] for one in services.values() if "build" in one]
    assert built == ["odtrain", "serve"]
    assert set(built) <= set(stages)


@pytest.fixture(scope="module")
def composed() -> Iterator[Composed]:
    with tempfile.TemporaryDirectory(prefix="odtrain-compose-") as folder:
        Path(folder).chmod(0o755)
        composed = Composed(Path(folder))
        try:
            yield composed
        finally:
            composed.end()


@pytest.mark.long
def test_a_training_is_registered_promoted_and_served_and_nothing_keeps_a_secret(composed, shapes):
    composed.start("postgres")
    composed.start("store")
    composed.run("bucket")
    composed.run("bucket")  # as when all of it is brought up again
    composed.start("mlflow")
    first = [f"data.images={shapes}", *AS_TINY]
    said = composed.run("train", *first)
    assert "Registered models:/panels/1 is @champion." in said
    again = composed.run("train", *first, "train.seed=7", "registry.promote=never")
    assert "models:/panels/2 is @challenger" in again
    promote = (
        "models",
        "promote",
        "panels",
        "2",
        "registry.max_map_loss=1",
        "registry.min_recall=0",
    )
    said = composed.run("train", instead=promote)
    assert "models:/panels/2 is @champion now (before: version 1)." in said
    assert "model.tflite" in composed.run("fetch")
    composed.start("serve")
    address = "http://serve:8766"
    wait = ("--retry", "60", "--retry-delay", "1", "--retry-connrefused")
    assert json.loads(composed.curl(*wait, f"{address}/health")) == {"status": "ok"}
    picture = next(iter(sorted(shapes.rglob("*.jpg"))))
    post = ("--data-binary", f"@{picture}", f"{address}/detect")
    assert composed.curl(*post) == NO_PICTURE
    shown = f"Authorization: Bearer {composed.settings['SERVE_TOKEN']}"
    found = json.loads(composed.curl("--header", shown, *post))
    assert {"boxes", "scores", "class_names"} <= set(found)
    assert not (composed.folder / "srv/odtrain/artifacts").exists()
    assert list((composed.folder / "srv/store").rglob("*.dat"))
    check_secrets(composed)


def check_secrets(composed: Composed) -> None:
    """No log, no file of a run, the server, the store or the database, and no list of processes has one."""
    # The id of the store's key is its user's name: each request has it, and SeaweedFS logs it.
    secrets = [text for name, text in composed.settings.items() if name != "STORE_ACCESS_KEY"]
    files = [file for file in composed.folder.rglob("*") if file.is_file()]
    assert len(files) > 100
    contents = ((file, file.read_bytes()) for file in files)
    assert [
        str(file) for file, content in contents for one in secrets if one.encode() in content
    ] == []
    command = ["ps", "axww", "-o", "args"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not [one for one in secrets if one in listed.stdout]
