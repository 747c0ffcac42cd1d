"""The parts of TurboQuant (Zandieh et al., 2025) that are used here: a rotation, and codes of four bits per number.

After a rotation the numbers of a vector are distributed nearly as normal ones, whatever they were before, so that one table of
levels suits all vectors and nothing is trained. Each vector keeps its length, as in RaBitQ (Gao and Long, 2024).

Only additions, multiplications and tables, always in the same order: every machine makes the same codes of the same vector.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from journal.records import Vectors

Codes = NDArray[np.uint8]
"""uint8, shape (n, code_width(size)): two numbers per byte, the first in the lower four bits; then the scale as float32."""

_ROUNDS = 2
_SCALE_BYTES = 4
_STEPS_PER_UNIT = 128
_RANGE = 4.0
"""Numbers are looked up in a table of the levels for -_RANGE to _RANGE, in steps of 1 / _STEPS_PER_UNIT."""

_POSITIVE = np.array([0.1284, 0.38805, 0.65676, 0.94234, 1.25623, 1.61805, 2.06902, 2.73259], np.float32)
_LEVELS = np.concatenate([-_POSITIVE[::-1], _POSITIVE])
"""The sixteen levels with the least squared error for normally distributed numbers (Max, 1960)."""

_STEPS = (np.arange(int(2 * _RANGE * _STEPS_PER_UNIT)) + 0.5) / _STEPS_PER_UNIT - _RANGE
_LEVEL_OF_STEP = np.abs(_STEPS[:, np.newaxis] - _LEVELS).argmin(axis=1).astype(np.uint8)
_PAIRS = np.stack([_LEVELS[np.arange(256) & 15], _LEVELS[np.arange(256) >> 4]], axis=1).view(np.complex64)[:, 0]
"""The two numbers of each byte, as one complex number, so that both are looked up at once."""


class Rotation:
    """A rotation of vectors of up to `width` numbers; shorter ones are filled with zeros.

    Each round permutes the numbers, and twice changes half of the signs and multiplies a block of 2^k numbers by a Walsh-Hadamard
    matrix: the first numbers, then the last. So it takes `width` log `width` steps, and no matrix of `width`^2 numbers.
    """

    def __init__(self, width: int) -> None:
        chance = np.random.default_rng(width)
        self.width = width
        block, either = 1 << (width.bit_length() - 1), np.array([-1, 1], np.float32)
        self._blocks = [slice(0, block), slice(width - block, width)]
        self._rounds = [(chance.permutation(width), chance.choice(either, (2, width))) for _ in range(_ROUNDS)]

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, width: int) -> Rotation:
        """The rotation of that width, which is always the same."""
        return cls(width)

    def apply(self, vectors: Vectors) -> Vectors:
        """The rotated vectors: shape (n, size) becomes (n, width)."""
        if vectors.shape[1] < self.width:
            vectors = np.hstack([vectors, np.zeros((len(vectors), self.width - vectors.shape[1]), np.float32)])
        for order, signs in self._rounds:
            vectors = vectors[:, order]
            for block, some in zip(self._blocks, signs, strict=True):
                vectors *= some
                vectors[:, block] = _mixed(vectors[:, block])
        return vectors

    def undo(self, vectors: Vectors) -> Vectors:
        """The vectors before the rotation. Shape (n, width)."""
        vectors = vectors.copy()
        for order, signs in reversed(self._rounds):
            for block, some in zip(reversed(self._blocks), signs[::-1], strict=True):
                vectors[:, block] = _mixed(vectors[:, block])
                vectors *= some
            before = np.empty_like(vectors)
            before[:, order] = vectors
            vectors = before
        return vectors


def _mixed(vectors: Vectors) -> Vectors:
    """Vectors of 2^k numbers times the normalised Walsh-Hadamard matrix, which is its own inverse."""
    count, width = vectors.shape
    half = 1
    while half < width:
        pairs = vectors.reshape(count, -1, 2, half)
        mixed = np.empty_like(pairs)
        np.add(pairs[:, :, 0], pairs[:, :, 1], out=mixed[:, :, 0])
        np.subtract(pairs[:, :, 0], pairs[:, :, 1], out=mixed[:, :, 1])
        vectors = mixed.reshape(count, width)
        half *= 2
    return vectors * np.float32(1 / np.sqrt(width))


def code_width(size: int) -> int:
    """The bytes of a vector of `size` numbers."""
    return (size + 1) // 2 + _SCALE_BYTES


def encode(vectors: Vectors) -> Codes:
    """The codes of vectors, shape (n, size)."""
    count, size = vectors.shape
    rotated = Rotation.of(size).apply(vectors)
    lengths = _lengths(rotated)
    units = np.sqrt(np.float32(size)) / np.where(lengths > 0, lengths, np.float32(1))
    steps = (rotated * units[:, np.newaxis] + np.float32(_RANGE)) * np.float32(_STEPS_PER_UNIT)
    levels = _LEVEL_OF_STEP[np.clip(steps, 0, len(_LEVEL_OF_STEP) - 1).astype(np.int16)]
    codes = np.zeros((count, code_width(size)), np.uint8)
    codes[:, : size // 2] = levels[:, : size - size % 2 : 2] | levels[:, 1::2] << 4
    if size % 2:
        codes[:, size // 2] = levels[:, -1]
    scales = lengths / _lengths(_LEVELS[levels])
    codes[:, -_SCALE_BYTES:] = scales.astype("<f4")[:, np.newaxis].view(np.uint8)
    return codes


def decode_rotated(codes: Codes, size: int) -> Vectors:
    """The vectors that the codes stand for, rotated. Shape (n, size)."""
    scales = np.ascontiguousarray(codes[:, -_SCALE_BYTES:]).view("<f4")
    numbers = _PAIRS.take(codes[:, :-_SCALE_BYTES]).view(np.float32)[:, :size]
    return numbers * scales  # type: ignore[no-any-return]


def decode(codes: Codes, size: int) -> Vectors:
    """The vectors that the codes stand for. Shape (n, size)."""
    return Rotation.of(size).undo(decode_rotated(codes, size))


def _lengths(vectors: Vectors) -> Vectors:
    squares = vectors * vectors
    return np.sqrt(squares.sum(axis=1, dtype=np.float64)).astype(np.float32)  # type: ignore[no-any-return]
