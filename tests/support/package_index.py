"""Packages made for tests, and indexes of them on this machine that the real pip and npm are pointed at."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from support.file_server import listening


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel for any Python in a folder that pip can take as --find-links."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    own = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, **own}.items():
            archive.writestr(path, content)
    return wheel


def npm_tarball(name: str, version: str, files: Mapping[str, bytes], **more: object) -> bytes:
    """What npm publishes; `more` goes into its package.json."""
    package = json.dumps({"name": name, "version": version, **more}).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path, content in {"package.json": package, **files}.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@contextmanager
def npm_registry(name: str, version: str, tarball: bytes) -> Iterator[str]:
    """A registry with one package; `npm_config_registry` takes its address."""
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = f"http://{self.headers['Host']}"
            dist = {"tarball": f"{address}/{name}.tgz", "integrity": integrity}
            known = {version: {"name": name, "version": version, "dist": dist}}
            about = {"name": name, "dist-tags": {"latest": version}, "versions": known}
            bodies = {f"/{name}": json.dumps(about).encode(), f"/{name}.tgz": tarball}
            if self.path not in bodies:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(bodies[self.path])))
            self.end_headers()
            self.wfile.write(bodies[self.path])

        def log_message(self, *_: object) -> None:
            pass

    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address
