"""Tokenizers of the `tokenizers` library: as bundles want them, and the words that they know."""

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

WORD = re.compile("[a-z]{3,}")


def fixed(text: str, length: int, pad: int, pad_token: str) -> str:
    """The tokenizer.json `text`, padding at the end to `length` tokens with the id `pad`, and cutting to it."""
    table: dict[str, Any] = json.loads(text)
    table["truncation"] = {"direction": "Right", "max_length": length, "strategy": "LongestFirst", "stride": 0}
    table["padding"] = {
        "strategy": {"Fixed": length},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": pad,
        "pad_type_id": 0,
        "pad_token": pad_token,
    }
    model = table["model"]
    if model["type"] == "BPE" and model.get("end_of_word_suffix") == "</w>":
        # CLIP's has a token for every byte, so nothing is unknown; it names its end, which every text has.
        model["unk_token"] = None
    return json.dumps(table, ensure_ascii=False)


def whole_words(tokenizer: Tokenizer) -> Sequence[str]:
    """The tokens that are whole lower-case English words of three letters or more, in the order of their numbers, which
    is about that of their frequency."""
    tokens = sorted(tokenizer.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
    names = [token for token, _ in tokens]
    if any(name.endswith("</w>") for name in names):  # CLIP
        names = [name.removesuffix("</w>") for name in names if name.endswith("</w>")]
    elif any(name.startswith("▁") for name in names):  # SentencePiece
        names = [name.removeprefix("▁") for name in names if name.startswith("▁")]
    return [name for name in names if WORD.fullmatch(name)]
