"""The models of a folder: found at the start, loaded on first use, run one batch at a time by a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gateway.http.errors import BadRequest, TooManyRequests, Unavailable
from gateway.inference.bm25 import MODEL
from gateway.inference.onnx_model import INSTALL, InvalidModel, OnnxModel, is_installed, is_model
from journal.records import Vectors

log = logging.getLogger(__name__)

MAX_TEXTS = 1000
"""The bound of one request's documents for a model of the folder."""

MAX_WAITING = 64
"""The bound of requests that wait for the thread; more are refused."""

BATCH = 16
"""Texts that the network takes at once."""

RETRY_S = 60.0
"""After this time a client may ask again for a model that cannot be used: somebody has to mend its files."""

MAX_DEPTH = 2
"""A model's name may have an owner before a slash; so its folder may lie in one of the owner."""


class NoModels(Exception):
    """The folder of models cannot be used; the text gives the reason."""


def models_in(folder: Path) -> dict[str, Path]:
    """The folders of models, by the model's name: the path below `folder`. Raises NoModels."""
    if not folder.is_dir():
        raise NoModels(f"models_dir {folder} is not a folder")
    if not is_installed():
        raise NoModels(f"models_dir {folder} needs what runs models: {INSTALL}")
    found: dict[str, Path] = {}
    for depth in range(1, MAX_DEPTH + 1):
        for one in sorted(folder.glob("/".join("*" * depth))):
            name = one.relative_to(folder).as_posix()
            if not is_model(one):
                continue
            if name.lower() in {MODEL, *(other.lower() for other in found)}:
                raise NoModels(f"models_dir {folder} has {name!r}, which is the name of another model, but for its case")
            found[name] = one
    if not found:
        raise NoModels(f"models_dir {folder} has no model: a sub-folder with model.onnx, or onnx/model.onnx, and tokenizer.json")
    return found


class Models:
    """Makes vectors with models; shared by all event loops. Thread-safe. `folders` are the models by name."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = {name.lower(): folder for name, folder in folders.items()}
        self._names = list(folders)
        self._loaded: dict[Path, OnnxModel] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._stopping = threading.Event()
        self._waiting = threading.Semaphore(MAX_WAITING)

    def check(self, name: str, place: str) -> None:
        """Raises BadRequest when there is no model of that name, in any case."""
        if name.lower() in self._folders:
            return
        offered = ", ".join([MODEL, *self._names])
        advice = "" if self._folders else f"; for dense vectors {INSTALL} and set --models-dir, or send the vector"
        raise BadRequest(f"{place}.model {name[:64]!r} is not offered, this server has {offered}{advice}")

    def embed(self, name: str, texts: Sequence[str]) -> Future[Vectors]:
        """The vectors of texts by a model that there is, shape (texts, dimensions).

        The future raises Unavailable when the model cannot be used. Raises BadRequest for too many texts, and
        TooManyRequests when too many requests wait.
        """
        if len(texts) > MAX_TEXTS:
            raise BadRequest(f"{len(texts)} documents for the model {name!r} are in one request, must be at most {MAX_TEXTS}")
        if not self._waiting.acquire(blocking=False):
            raise TooManyRequests(f"{MAX_WAITING} requests wait for models already", retry_after_s=1.0)
        future = self._thread.submit(self._embed, name, texts)
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def stop(self) -> None:
        """Ends the thread after the batch that it works on; must be the last call."""
        self._stopping.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, name: str, texts: Sequence[str]) -> Vectors:
        try:
            model = self._model(self._folders[name.lower()])
            return np.concatenate([self._batch(model, texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)])
        except InvalidModel as error:
            log.error("%s", error)
            raise Unavailable(f"the model {name!r} cannot be used, the node's log says why", RETRY_S) from error

    def _batch(self, model: OnnxModel, texts: Sequence[str]) -> Vectors:
        if self._stopping.is_set():
            raise Unavailable("this node is stopping", retry_after_s=1.0)
        return model.embed(texts)

    def _model(self, folder: Path) -> OnnxModel:
        if (model := self._loaded.get(folder)) is None:
            model = self._loaded[folder] = OnnxModel(folder)
            log.info("the model in %s is loaded", folder)
        return model
