"""A real S3 server for tests: versitygw over a folder. Go builds it once; without Go the tests are skipped, in CI they fail."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn, Self

import pytest

from tests.conftest import until

VERSION = "v1.8.0"
REPO = Path(__file__).resolve().parent.parent
PROGRAM = REPO / ".cache" / f"versitygw-{VERSION}"
BUILD_TIMEOUT_S, START_S, STOP_S = 600, 30, 10
USER, PASSWORD, REGION = "tester", "tester-password", "us-east-1"


class S3Server:
    """The server at `url`, with the bucket `bucket`. Its data is in `folder`: `<folder>/<bucket>/…`."""

    bucket = "bucket"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        (self.folder / self.bucket).mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [str(PROGRAM), "--port", f"127.0.0.1:{port}", "--access", USER, "--secret", PASSWORD, "--region", REGION]
        sidecar = self.folder.with_name("sidecar")
        sidecar.mkdir()
        command += ["posix", "--sidecar", str(sidecar), str(self.folder)]
        log = (self.folder.parent / "s3.log").open("wb")
        self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        until(lambda: self._listens(port), START_S)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)

    def environment(self) -> dict[str, str]:
        """The variables by which a client reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": USER,
            "AWS_SECRET_ACCESS_KEY": PASSWORD,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
        }

    def _listens(self, port: int) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder.parent / "s3.log").read_text(errors="replace")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0


def s3_or_skip(folder: Path) -> S3Server:
    """A started server for a fixture, which must stop it."""
    if not PROGRAM.exists():
        _build()
    return S3Server(folder).start()


def _build() -> None:
    if shutil.which("go") is None:
        _skip("no go on PATH: the tests of S3 build versitygw with it")
    PROGRAM.parent.mkdir(exist_ok=True)
    with PROGRAM.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=PROGRAM.parent) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if PROGRAM.exists():
            return
        (PROGRAM.parent / ".gitignore").write_text("*\n")
        package = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
        environment = os.environ | {"GOBIN": scratch, "CGO_ENABLED": "0"}
        done = subprocess.run(
            ["go", "install", package], env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            _skip(f"go cannot build versitygw {VERSION}: {done.stderr[-300:]}")
        (Path(scratch) / "versitygw").rename(PROGRAM)


def _skip(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
