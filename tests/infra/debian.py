"""Programs from Debian's packages for tests, unpacked into the cache without being installed, so without root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache"
FETCH_TIMEOUT_S, CHECK_TIMEOUT_S = 300, 30


def variables_or_skip(program: str, *check: str, libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """The variables to run `program` with: none where it is on PATH, else those that lead to Debian's package of its name.

    `libraries` are the packages it needs that may be missing here. Skips the test where `program check` does not run either.
    """
    if shutil.which(program):
        return {}
    try:
        root = unpacked(program, *libraries)
        folders = {path.parent for path in root.rglob("*.so*")}
        variables = {
            "PATH": f"{root / 'usr/bin'}{os.pathsep}{os.environ['PATH']}",
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, sorted(folders))),
        }
        _run(str(root / "usr/bin" / program), *check, timeout_s=CHECK_TIMEOUT_S, env=os.environ | variables)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        pytest.skip(f"no {program} on PATH, and Debian's package does not do: {error}")
    return variables


def unpacked(*packages: str) -> Path:
    """The folder with what the packages hold, named after the first; fetched on first use.

    Processes that ask at once wait for the one that fetches. Raises OSError, SubprocessError or RuntimeError where it cannot.
    """
    folder = CACHE / packages[0]
    if folder.exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{packages[0]}.lock").open("w") as lock, tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not folder.exists():
            (CACHE / ".gitignore").write_text("*\n")
            _run("apt-get", "download", *packages, cwd=scratch)
            for package in Path(scratch).glob("*.deb"):
                _run("dpkg-deb", "-x", package.name, "unpacked", cwd=scratch)
            (Path(scratch) / "unpacked").rename(folder)  # all of it or nothing
    return folder


def _run(*command: str, timeout_s: float = FETCH_TIMEOUT_S, cwd: str | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-300:]}")
