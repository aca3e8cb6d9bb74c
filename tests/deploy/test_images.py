"""The images: what they are made of, and that they build and serve where no engine is at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from support.stores import free_port
from support.tiny_models import model

__all__ = ["model"]

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
HASHED = (
    "requirements.hashed.txt",
    *(f"deploy/{one}.hashed.txt" for one in ("build", "gpu", "serve")),
)
PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>\S+?)(?: ; (?P<where>.*?))? \\$")
BASE = "docker.io/library/python:3.11-slim-bookworm"
MOST_MEGABYTES = 400
"""Of the image that serves."""
FROM_HERE = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""By which pip reaches its index on this machine."""


def pins(file: Path) -> dict[tuple[str, str], str]:
    """(package, where it is for) -> version."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [PIN.match(line if line.endswith("\\") else f"{line} \\") for line in lines]
    return {
        (one["name"].lower(), one["where"] or ""): one["version"]
        for one in found
        if one is not None
    }


@pytest.mark.parametrize("file", DOCKERFILES)
def test_hadolint_has_nothing_to_say(file):
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / file], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", HASHED)
def test_every_pin_has_digests_and_names_no_index(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert all(PIN.match(entry.splitlines()[0]) for entry in entries)
    assert "://" not in text and "index" not in text


@pytest.mark.parametrize("name", HASHED)
def test_its_versions_are_those_of_the_requirements(name):
    """Made anew by .ci/hash_requirements where this fails."""
    wanted = pins(ROOT / "requirements.txt")
    there = {(package, version) for (package, _), version in wanted.items()}
    names = {package for package, _ in wanted}
    for (package, _), version in pins(ROOT / name).items():
        assert package not in names or (package, version) in there


def test_the_image_that_trains_has_all_of_the_requirements_and_what_a_server_needs():
    found = pins(ROOT / "requirements.hashed.txt")
    assert pins(ROOT / "requirements.txt").items() <= found.items()
    assert {"flask-wtf", "psycopg2-binary"} <= {name for name, _ in found}


@pytest.mark.parametrize("file", DOCKERFILES)
def test_everything_from_an_index_is_held_against_its_digest(file):
    lines = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    commands = [part for line in lines if line.startswith("RUN") for part in line.split("&&")]
    installs = [one for one in commands if re.search(r"pip\S* .*\b(install|wheel)\b", one)]
    assert installs
    for one in installs:
        assert "--require-hashes" in one or "--no-deps" in one


@pytest.mark.parametrize("file", DOCKERFILES)
def test_no_image_runs_as_root(file):
    stages = re.split(r"(?m)^FROM ", (ROOT / file).read_text(encoding="utf-8"))
    for stage in stages:
        if "ENTRYPOINT" in stage:
            assert "\nUSER 1000:1000\n" in stage


def test_what_an_image_copies_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for folder in re.findall(r'"([\w/]+)" = "odtrain/', project):
        assert any(folder.startswith(line[1:]) for line in ignored.splitlines() if line[:1] == "!")


def test_the_workflow_publishes_the_stages_that_are_there():
    told = yaml.safe_load((ROOT / ".github/workflows/images.yml").read_text(encoding="utf-8"))
    for one in told["jobs"]["image"]["strategy"]["matrix"]["include"]:
        assert f" AS {one['target']}\n" in (ROOT / one["file"]).read_text(encoding="utf-8")


# ---- built


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


class Images:
    """buildah's, in a store of their own in `folder`: no daemon, no registry, no namespace of users."""

    def __init__(self, folder: Path) -> None:
        missing = [one for one in ("buildah", "mmdebstrap") if shutil.which(one) is None]
        if os.geteuid() != 0 or missing:
            pytest.skip(f"needs root, and the programs {', '.join(missing)}")
        self._store = ["buildah", f"--root={folder}/store", f"--runroot={folder}/run"]
        self._base(folder)

    def _base(self, folder: Path) -> None:
        """What stands in for Docker's `python`: Debian with its own Python."""
        packages = "python3-minimal,python3-venv,python-is-python3,ca-certificates"
        made = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"]
        run(*made, "bookworm", folder / "base.tar")
        container = self.buildah("from", "scratch")
        self.buildah("add", container, folder / "base.tar", "/")
        self.buildah(
            "config", "--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container
        )
        self.buildah("commit", "--rm", container, BASE)
        (folder / "base.tar").unlink()

    def buildah(self, *words: object) -> str:
        return run(*self._store, *words, cwd=ROOT)

    def build(self, target: str) -> None:
        mounts = [f"--volume={one}:{one}:ro" for one in FROM_HERE if Path(one).exists()]
        kind = ("--isolation=chroot", "--pull-never", "--format=docker")
        self.buildah("bud", *kind, *mounts, f"--target={target}", f"--tag={target}", ".")

    def megabytes(self, name: str) -> float:
        told = json.loads(self.buildah("images", "--json", name))[0]["size"]
        number, unit = told.split()
        return float(number) * {"MB": 1, "GB": 1000, "KB": 0.001}[unit]

    def started(
        self, name: str, *words: str, volumes: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        container = self.buildah("from", "--pull-never", name)
        mounts = [f"--volume={one}" for one in volumes]
        command = [*self._store, "run", "--isolation=chroot", *mounts, container, "--", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    with tempfile.TemporaryDirectory(
        prefix="odtrain-images-", ignore_cleanup_errors=True
    ) as folder:
        yield Images(Path(folder))


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_image_that_serves_is_small_and_serves(images, model, tmp_path):
    images.build("serve")
    assert images.megabytes("serve") < MOST_MEGABYTES
    told = json.loads(images.buildah("inspect", "--type=image", "serve"))["Docker"]["config"]
    assert told["User"] == "1000:1000"
    check = told["Healthcheck"]["Test"]
    (tmp_path / "model").mkdir()
    shutil.copy(model, tmp_path / "model/model.tflite")
    port = free_port()
    words = [
        *told["Entrypoint"],
        "serve",
        "/model/model.tflite",
        "--host=0.0.0.0",
        f"--port={port}",
    ]
    process = images.started("serve", *words, volumes=(f"{tmp_path}/model:/model:ro",))
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert (
                    requests.get(f"http://127.0.0.1:{port}/health", timeout=5).json()["status"]
                    == "ok"
                )
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.3)
        healthy = [word.replace("8766", str(port)) for word in check[1:]]
        asked = images.started("serve", *healthy)
        assert asked.wait(60) == 0, asked.stdout.read()
        uid = images.started("serve", "python", "-c", "import os; print(os.getuid())")
        assert uid.communicate(timeout=60)[0].strip() == b"1000"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_image_that_trains_trains(images):
    images.build("odtrain")
    tiny = ["train", "train.steps=2", "train.batch_size=2", "export.formats=[tflite_fp32]"]
    words = [*tiny, "evaluate.bootstrap=20", "benchmark.runs=2", "registry.min_recall=0"]
    process = images.started("odtrain", "odtrain", *words)
    said = process.communicate(timeout=900)[0].decode()
    assert process.returncode == 0, said[-4000:]
    assert "Registered models:/panels/1" in said
