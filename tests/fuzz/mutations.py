"""Damaged copies of a file, as disks, transfers and editors make them: seeded, so that a failure can be had again."""

from collections.abc import Iterator

import numpy as np


def damaged(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` damaged copies of ``data``, the plainest (empty, one byte, cut in half, doubled) first."""
    plain = [b"", data[:1], data[: len(data) // 2], data + data, b"\0" * len(data), data[::-1]]
    yield from plain[:count]
    rng = np.random.default_rng(seed)
    for _ in range(count - len(plain)):
        yield mutate(data, rng)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with one to three kinds of damage."""
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            return bytes(rng.integers(0, 256, 16, dtype=np.uint8))
        data = _KINDS[int(rng.integers(len(_KINDS)))](data, rng)
    return data


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes, most often near the start, where headers stand, become others."""
    values = bytearray(data)
    reach = len(values) if rng.random() < 0.4 else min(len(values), 96)
    for place in rng.integers(0, reach, int(rng.integers(1, 6))):
        values[place] = int(rng.integers(256))
    return bytes(values)


def _bit(data: bytes, rng: np.random.Generator) -> bytes:
    values = bytearray(data)
    values[int(rng.integers(len(values)))] ^= 1 << int(rng.integers(8))
    return bytes(values)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _extend(data: bytes, rng: np.random.Generator) -> bytes:
    return data + bytes(rng.integers(0, 256, int(rng.integers(1, 64)), dtype=np.uint8))


def _drop(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 32)) :]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    part = data[start : start + int(rng.integers(1, 64))]
    return data[:start] + part + data[start:]


def _blank(data: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    return data[:start] + bytes([int(rng.choice([0, 255]))]) * len(data[start : start + length]) + data[start + length :]


def _token(data: bytes, rng: np.random.Generator) -> bytes:
    """Text that is well formed and means something else than expected."""
    token = _TOKENS[int(rng.integers(len(_TOKENS)))]
    start = int(rng.integers(len(data)))
    return data[:start] + token + data[start + int(rng.integers(0, 12)) :]


_TOKENS = (
    b"null",
    b"[]",
    b"{}",
    b"-1",
    b"1e999",
    b"NaN",
    b'"x"',
    b"9" * 40,
    b"\n",
    b"\r",
    b"[[[",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b",",
    b":",
    b"true",
)
_KINDS = (_flip, _flip, _bit, _cut, _extend, _drop, _repeat, _blank, _token)
