"""A text embedding model in ONNX form, from a folder in the layout of Hugging Face, run by ONNX Runtime.

model.onnx, or onnx/model.onnx   the network
tokenizer.json                   how a text is cut into the network's tokens
tokenizer_config.json            optional: `model_max_length`, the tokens that the network takes at most
modules.json, 1_Pooling/         optional: how sentence-transformers makes one vector of those of the tokens
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from journal.records import Vectors

INSTALL = "pip install 'vecraft[embed]'"

MAX_TOKENS = 8192
"""The bound of a model's tokens, whatever its files say."""

DEFAULT_TOKENS = 512
_NETWORKS = ("model.onnx", "onnx/model.onnx")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_PADDINGS = ("[PAD]", "<pad>")


class InvalidModel(Exception):
    """The folder has no model that can be used; the text gives the reason."""


def is_installed() -> bool:
    """Whether the libraries of the extra `embed` are installed. Does not load them."""
    return find_spec("onnxruntime") is not None and find_spec("tokenizers") is not None


def is_model(folder: Path) -> bool:
    """Whether the folder has the files that a model needs."""
    return _network(folder) is not None and (folder / "tokenizer.json").is_file()


class OnnxModel:
    """A loaded model. Not thread-safe. Raises InvalidModel when it cannot be loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._session = _session(folder)
            self._tokenizer = _tokenizer(folder)
            self._by_first_token, self._normalises = _pooling(folder)
        except Exception as error:  # the libraries' errors have no common class
            raise InvalidModel(f"the model in {folder} cannot be loaded: {error}") from error
        self._inputs = [given.name for given in self._session.get_inputs()]
        if "input_ids" not in self._inputs or not {*self._inputs} <= {*_INPUTS}:
            raise InvalidModel(f"the model in {folder} needs the inputs {self._inputs}, known are {', '.join(_INPUTS)}")
        outputs = [made.name for made in self._session.get_outputs()]
        self._output = "sentence_embedding" if "sentence_embedding" in outputs else outputs[0]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, shape (texts, dimensions). Of a text with more tokens than the network takes, the first count.

        Raises InvalidModel when the network fails, or its output is no vector, neither of the text nor of its tokens.
        """
        tokens = self._tokenizer.encode_batch(list(texts))
        given = {
            "input_ids": np.array([one.ids for one in tokens], np.int64),
            "attention_mask": np.array([one.attention_mask for one in tokens], np.int64),
            "token_type_ids": np.array([one.type_ids for one in tokens], np.int64),
        }
        try:
            (output,) = self._session.run([self._output], {name: given[name] for name in self._inputs})
        except Exception as error:  # as when the tokenizer is that of another network
            raise InvalidModel(f"the model in {self._folder} fails: {error}") from error
        vectors: Vectors = self._pooled(output, given["attention_mask"]).astype(np.float32)
        if self._normalises:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors

    def _pooled(self, output: Any, mask: Any) -> Any:
        if output.ndim == 2:
            return output
        if output.ndim != 3:
            raise InvalidModel(
                f"the output {self._output} of the model in {self._folder} has {output.ndim} dimensions, must have 2 or 3"
            )
        if self._by_first_token:
            return output[:, 0]
        weights = mask[:, :, np.newaxis].astype(np.float32)
        return (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


def _network(folder: Path) -> Path | None:
    return next((folder / name for name in _NETWORKS if (folder / name).is_file()), None)


def _session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // 2)  # the rest is for requests
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait cost nothing
    return onnxruntime.InferenceSession(str(_network(folder)), options, providers=["CPUExecutionProvider"])


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_max_tokens(folder, tokenizer))
    known = [(token, number) for token in _PADDINGS if (number := tokenizer.token_to_id(token)) is not None]
    token, number = known[0] if known else (_PADDINGS[0], 0)
    tokenizer.enable_padding(pad_id=number, pad_token=token)
    return tokenizer


def _max_tokens(folder: Path, tokenizer: Any) -> int:
    if tokenizer.truncation is not None:
        most = tokenizer.truncation["max_length"]
    else:
        most = _json(folder / "tokenizer_config.json", {}).get("model_max_length", DEFAULT_TOKENS)
    return most if 0 < most <= MAX_TOKENS else DEFAULT_TOKENS  # some files say 10**30, for "no bound"


def _pooling(folder: Path) -> tuple[bool, bool]:
    """Whether the vector is that of the first token, not the mean, and whether it gets unit length."""
    pooling = _json(folder / "1_Pooling" / "config.json", {})
    modules = _json(folder / "modules.json", None)
    is_normalised = modules is None or any(module["type"].endswith(".Normalize") for module in modules)
    return bool(pooling.get("pooling_mode_cls_token")), is_normalised


def _json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else missing
