"""SipHash-2-4 with a zero key, which spreads ids over slices. From Aumasson and Bernstein, "SipHash: a fast short-input PRF"."""

from __future__ import annotations

import struct

_BITS = (1 << 64) - 1
_START = struct.unpack(">4Q", b"somepseudorandomlygeneratedbytes")


def siphash(data: bytes) -> int:
    """64 bits."""
    v0, v1, v2, v3 = _START
    tail = len(data) % 8
    padded = data + bytes(7 - tail) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v0, v1, v2, v3 = _rounds(2, v0, v1, v2, v3 ^ word)
        v0 ^= word
    v0, v1, v2, v3 = _rounds(4, v0, v1, v2 ^ 0xFF, v3)
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(count: int, v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = (v0 + v1) & _BITS
        v2 = (v2 + v3) & _BITS
        v1 = _turned(v1, 13) ^ v0
        v3 = _turned(v3, 16) ^ v2
        v0 = (_turned(v0, 32) + v3) & _BITS
        v2 = (v2 + v1) & _BITS
        v1 = _turned(v1, 17) ^ v2
        v3 = _turned(v3, 21) ^ v0
        v2 = _turned(v2, 32)
    return v0, v1, v2, v3


def _turned(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _BITS
