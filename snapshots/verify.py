"""Verifies a snapshot: reads each of its contents again, and compares size and digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from snapshots.manifest import Manifest, State, content_path, new_digest
from snapshots.place import Place, PlaceError


def faults(place: Place, manifest: Manifest, pause: Callable[[int], bool] = lambda size: True) -> Iterator[str]:
    """What is wrong with a snapshot; nothing when it can be restored. Reads all of it.

    After each part it calls `pause` with the number of bytes read, and ends early when that returns False.
    """
    if manifest.state is not State.COMMITTED:
        yield "it was never committed"
        return
    names = {file.digest: file.path for file in manifest.files}
    for digest, size in manifest.contents().items():
        found, total = new_digest(), 0
        try:
            for chunk in place.chunks(content_path(manifest.node, digest)):
                found.update(chunk)
                total += len(chunk)
                if not pause(len(chunk)):
                    return
        except PlaceError as error:
            yield f"{names[digest]} cannot be read: {error}"
            continue
        if total != size:
            yield f"{names[digest]} has {total} bytes, {size} were written"
        elif found.hexdigest() != digest:
            yield f"{names[digest]} has another content than was written"
