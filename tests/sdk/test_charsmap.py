"""The table of a Precompiled normalizer: made here as SentencePiece lays it out, read by the library, and damaged."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from runtimes import BundleError
from sdk.charsmap import MAX_BYTES, MAX_REPLACEMENT, check_charsmap
from sdk.text import Tokenizer
from tests.bundles import LENGTH, tokenizer_json

RULES = {"\u2126": "Ω", "ﬁ": "fi", "①": "1", "\x01": "", "㎏": "kg", "Ⅷ": "VIII", "A": "a"}


def charsmap(rules: dict[str, str]) -> tuple[list[int], bytes]:
    """The words of a double-array trie, the children of each node in 256 words of their own, and the replacements."""
    words, replacements = [0] * 256, b""
    tree: dict[int, Any] = {}
    for key, value in rules.items():
        node = tree
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(replacements)
        replacements += value.encode() + b"\0"

    def place(at: int, label: int, node: dict[int, Any]) -> None:
        first = len(words)
        words.extend([0] * 256)
        words[at] = (at ^ first) << 10 | (0 in node) << 8 | label
        for byte, child in node.items():
            if byte == 0:
                words[first] = 1 << 31 | child
            else:
                place(first ^ byte, byte, child)

    place(0, 0, tree)
    return words, replacements


def encoded(words: list[int], replacements: bytes, size: int | None = None) -> str:
    count = 4 * len(words) if size is None else size
    return base64.b64encode(struct.pack(f"<{len(words) + 1}I", count, *words) + replacements).decode()


def tokenizer(table: object) -> str:
    """As SigLIP's and T5's: a table, then a Unigram model."""
    normalizer = {"type": "Precompiled", "precompiled_charsmap": table}
    vocabulary = [["<pad>", 0.0], ["<unk>", 0.0], *([letter, -1.0] for letter in "Ωfikg1VIab")]
    model = {"type": "Unigram", "unk_id": 1, "vocab": vocabulary}
    spaces = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True}
    return json.dumps(
        json.loads(tokenizer_json()) | {"normalizer": normalizer, "model": model, "pre_tokenizer": spaces}
    )


def test_the_table_of_a_whole_one_is_used() -> None:
    tokens = Tokenizer(tokenizer(encoded(*charsmap(RULES))), LENGTH, "t")(["ﬁg\x01", "㎏①", "\u2126A", "x"])
    pieces = ["<pad>", "<unk>", *"Ωfikg1VIab"]
    said = ["".join(pieces[i] for i in row if i) for row in tokens.ids]
    assert said == ["fig", "kg1", "Ωa", "<unk>"]
    assert tokens.unknown == (0, 0, 0, 1)


WORDS, REPLACEMENTS = charsmap(RULES)
FULL = len(WORDS) * 4
LEAF = next(at for at, word in enumerate(WORDS) if word >> 8 & 1 and word < 1 << 31)
VALUE = LEAF ^ (WORDS[LEAF] >> 10)


def changed(at: int, word: int) -> list[int]:
    return [*WORDS[:at], word, *WORDS[at + 1 :]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, f"wanted a charsmap in base64 of at most {MAX_BYTES} bytes, got None"),
        ("A" * (MAX_BYTES * 3 // 2), "wanted a charsmap in base64 of at most 1048576 bytes, got 'AAAA"),
        ("AAA*", "wanted a charsmap in base64, got 'AAA\\*' \\("),
        ("", "wanted a charsmap with a trie inside its 0 bytes, got one of 0"),
        ("/////wAA", "wanted a charsmap with a trie inside its 6 bytes, got one of 4294967295"),
        (encoded([], b"a\0"), "wanted a charsmap with a trie inside its 6 bytes, got one of 0"),
        (encoded(WORDS, REPLACEMENTS, FULL + 400), f"with a trie inside its .* bytes, got one of {FULL + 400}"),
        (encoded(WORDS, REPLACEMENTS, FULL - 2), f"with a trie inside its .* bytes, got one of {FULL - 2}"),
        (encoded(WORDS[:-256], REPLACEMENTS), "wanted a charsmap whose trie stays in its .* words, got a step beyond"),
        (encoded(changed(0, WORDS[0] | 1 << 31), REPLACEMENTS), "whose trie begins with its root, got a value"),
        (
            encoded(changed(LEAF, WORDS[LEAF] | 512), REPLACEMENTS),
            "whose trie stays in its .* words, got a step beyond",
        ),
        (
            encoded(changed(VALUE, 1 << 31 | 400), REPLACEMENTS),
            f"to its {len(REPLACEMENTS)} bytes of replacements, got another",
        ),
        (
            encoded(changed(VALUE, 1 << 31 | 1), REPLACEMENTS),
            f"to its {len(REPLACEMENTS)} bytes of replacements, got another",
        ),
        (encoded(WORDS, REPLACEMENTS[:-3]), f"to its {len(REPLACEMENTS) - 3} bytes of replacements, got another"),
        (encoded(WORDS, b"\xff" + REPLACEMENTS), "'utf-8' codec can't decode byte 0xff"),
        (
            encoded(WORDS, REPLACEMENTS + b"a" * (MAX_REPLACEMENT + 1)),
            "wanted replacements of at most 32 characters in a charsmap, got 33",
        ),
    ],
    ids=range(16),
)
def test_a_damaged_one_does_not_reach_the_library(table: object, message: str) -> None:
    with pytest.raises(BundleError, match=f"^t is not a tokenizer: .*{message}.*; do not use this bundle$"):
        Tokenizer(tokenizer(table), LENGTH, "t")


def test_what_passes_does_not_panic() -> None:
    """Bits turned at random: either the check refuses them, or the library reads whatever text comes."""
    rng = np.random.default_rng(0)
    data = base64.b64decode(encoded(WORDS, REPLACEMENTS))
    used = [4 * at + 4 for at, word in enumerate(WORDS) if word] + list(range(FULL + 4, len(data)))
    texts = [*RULES, "".join(RULES), "".join(map(chr, range(1, 2000))), "\u2126\u0301ﬁ\u200d"]
    passed = 0
    for _ in range(400):
        turned = bytearray(data)
        turned[rng.choice(used) + rng.integers(0, 4) * bool(rng.integers(2)) - len(data)] ^= 1 << int(rng.integers(8))
        table = base64.b64encode(bytes(turned)).decode()
        try:
            check_charsmap(table)
        except ValueError:
            continue
        passed += 1
        Tokenizer(tokenizer(table), LENGTH, "t")(texts)
    assert 0 < passed < 400


def test_one_table_at_most() -> None:
    table = {"type": "Precompiled", "precompiled_charsmap": encoded(WORDS, REPLACEMENTS)}
    text = json.dumps(json.loads(tokenizer_json()) | {"normalizer": {"type": "Sequence", "normalizers": [table] * 2}})
    with pytest.raises(BundleError, match="wanted one Precompiled at most, since each lengthens a text, got 2"):
        Tokenizer(text, LENGTH, "t")
