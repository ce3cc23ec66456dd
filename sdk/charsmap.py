"""Whether the table of a `Precompiled` normalizer may reach the library that follows it.

SentencePiece writes it: the bytes of a double-array trie (little-endian: how many, then words of 32 bits), then the
replacements as UTF-8, each ended by a zero. The trie maps byte strings to where a replacement begins. The library goes
from word to word without looking where it ends up, and panics outside.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 1 << 20  # nmt_nfkc, which most models have, is 240 KB
MAX_REPLACEMENT = 32  # characters; NFKC's longest is 18


def check_charsmap(encoded: object) -> None:
    """`encoded`: base64 of the table. Raises ValueError where the library could leave it, or a text would explode."""
    if not isinstance(encoded, str) or len(encoded) > MAX_BYTES * 4 // 3 + 4:
        raise ValueError(f"wanted a charsmap in base64 of at most {MAX_BYTES} bytes, got {encoded!r:.40}")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"wanted a charsmap in base64, got {encoded!r:.40} ({error})") from None
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or not 0 < size <= len(data) - 4:
        raise ValueError(f"wanted a charsmap with a trie inside its {len(data)} bytes, got one of {size}")
    replacements = data[4 + size :]
    longest = max(len(each) for each in replacements.decode("utf-8").split("\0"))
    if longest > MAX_REPLACEMENT:
        raise ValueError(f"wanted replacements of at most {MAX_REPLACEMENT} characters in a charsmap, got {longest}")
    _check_trie(np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64), np.frombuffer(replacements, np.uint8))


def _check_trie(words: NDArray[np.int64], replacements: NDArray[np.uint8]) -> None:
    """Every word that can be stepped to: `at ^ offset` is where its 255 children and, under byte 0, its value lie."""
    at = np.flatnonzero(words < 1 << 31)  # the others are values
    if not len(at) or at[0] != 0:
        raise ValueError("wanted a charsmap whose trie begins with its root, got a value")
    steps = words[at]
    children = at ^ ((steps >> 10) << ((steps & 512) >> 6))
    if (children | 255).max() >= len(words):
        raise ValueError(f"wanted a charsmap whose trie stays in its {len(words)} words, got a step beyond")
    starts = words[children[(steps >> 8) & 1 == 1]] & ((1 << 31) - 1)
    # A replacement may begin at the end (empty), and anywhere but inside a character.
    firsts = np.append(replacements, np.uint8(0))[np.minimum(starts, len(replacements))]
    if (starts > len(replacements)).any() or (firsts & 0xC0 == 0x80).any():
        raise ValueError(f"wanted a charsmap that points to its {len(replacements)} bytes of replacements, got another")
