"""A model that is small enough to compute by hand: a table of vectors, one for each word, in the files of a real model."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORDS = ["[PAD]", "[UNK]", "red", "fox", "dog", "hen"]
SIZE = 3
MAX_TOKENS = 4
TABLE = np.random.default_rng(5).normal(size=(len(WORDS), SIZE)).astype(np.float32)


def need_embed() -> None:
    """Skips the tests of a module where the extra `embed` is not installed; in CI they fail."""
    missing = [name for name in ("onnx", "onnxruntime", "tokenizers") if find_spec(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)}: not installed")
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed", allow_module_level=True)


def rows_of(text: str) -> Any:
    """The vectors of a text's words, as many as the model takes."""
    return TABLE[[WORDS.index(word) if word in WORDS else 1 for word in text.split()[:MAX_TOKENS]]]


def unit(vector: Any) -> list[float]:
    """The vector with length 1."""
    return list(map(float, vector / np.linalg.norm(vector)))


def mean(text: str) -> list[float]:
    """The vector of a text: the mean of those of its words, with length 1."""
    return unit(rows_of(text).mean(axis=0))


def write_model(folder: Path, pooling: str = "", normalises: bool = True, rank: int = 3, network: str = "model.onnx") -> Path:
    """Writes the files of the model: `pooling` "cls" for that of the first token; `rank` 2 for a network that pools itself."""
    (folder / network).parent.mkdir(parents=True, exist_ok=True)
    _write_network(folder / network, rank)
    _write_tokenizer(folder)
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}_token": True}))
    modules = ["Transformer", "Pooling"] + ["Normalize"] * normalises
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{name}"} for name in modules]))
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": MAX_TOKENS}))


def _write_network(path: Path, rank: int) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "tokens"])
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    tables = [numpy_helper.from_array(TABLE, "table")]
    output, shape = "last_hidden_state", ["batch", "tokens", SIZE]
    if rank == 2:  # the greatest of each dimension, which no pooling from outside would make
        nodes.append(helper.make_node("ReduceMax", ["last_hidden_state", "axes"], ["sentence_embedding"], keepdims=0))
        output, shape = "sentence_embedding", ["batch", SIZE]
        tables.append(numpy_helper.from_array(np.array([1]), "axes"))
    made = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "tiny", [ids, mask], [made], tables)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
