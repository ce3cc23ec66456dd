"""Texts to feeds: the bundle's tokenizer.json does all of it (lower-casing, truncation, padding)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes import BundleError, FeedError, Unavailable
from sdk.bundle import Bundle
from sdk.tokenizer_scan import check_tokenizer

_LOG = logging.getLogger(__name__)
_MAX_CHARACTERS = 10_000
_MAX_FILE = 64 << 20


@dataclass(frozen=True)
class Tokens:
    """`ids` and `mask`: int64 (N, L). For each text, `unknown`: how many of its own tokens the tokenizer did not know;
    `cut`: how many tokens more the text has than fit into L, special tokens not counted."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    unknown: tuple[int, ...]
    cut: tuple[int, ...]


class Tokenizer:
    """The tokenizer of one bundle. Imports `tokenizers` when made, so a box that never sees a phrase never does."""

    def __init__(self, text: str, length: int, where: str) -> None:
        """`text` is a tokenizer.json, `length` the tokens L it pads and cuts to, `where` names it in errors.

        Raises BundleError when it is no tokenizer, or one that may not be opened.
        """
        model = check_tokenizer(text, length, where)
        from tokenizers import Tokenizer as Inner

        try:
            self._inner: Any = Inner.from_str(text)
            token = model.get("unk_token")
            # Unigram models (SigLIP, T5) give the number, the others the token.
            self._unknown_id = model.get("unk_id") if token is None else self._inner.token_to_id(token)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # Rust raises plain Exception, and its panics are no Exception at all
            raise BundleError(f"{where} is not a tokenizer: {error}; copy the bundle again") from error
        self._length = length
        self._where = where
        self._said_truncated = False

    @classmethod
    def of(cls, bundle: Bundle) -> Tokenizer:
        """The bundle's own. Raises Unavailable when it has no text side, BundleError when it cannot be used."""
        spec = bundle.manifest.text
        if spec is None:
            raise Unavailable(f"{bundle.path} has no text tower: it was slimmed with --no-text; use the maker's bundle")
        where = f"{spec.tokenizer} of {bundle.path}"
        try:
            path = bundle.file(spec.tokenizer)
            if path.stat().st_size > _MAX_FILE:
                raise BundleError(f"{where} is larger than {_MAX_FILE} bytes; make a bundle with a smaller vocabulary")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{where} cannot be read: {error}; copy the bundle again") from error
        return cls(text, spec.length, where)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize N texts. Raises FeedError for what is no text, or empty; a text longer than L is cut, said once."""
        for text in texts:
            if not isinstance(text, str):
                raise FeedError(f"a text must be a str, but a {type(text).__name__} came")
            if not text.strip():
                raise FeedError("a text is empty; write a word or a phrase")
            if len(text) > _MAX_CHARACTERS:
                raise FeedError(f"a text has {len(text)} characters; at most {_MAX_CHARACTERS}")
        try:
            encodings = self._inner.encode_batch(list(texts))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # as above; and a lone surrogate, which a file name may bring
            raise FeedError(f"the tokenizer cannot read one of {list(texts)!a:.200}: {error}") from error
        if any(len(e.ids) != self._length for e in encodings):
            raise BundleError(f"{self._where} does not pad and cut to {self._length} tokens; the bundle is damaged")
        # Padding counts as special too, so what is left is what the text itself says.
        cut = tuple(sum(over.special_tokens_mask.count(0) for over in e.overflowing) for e in encodings)
        if not self._said_truncated and any(cut):
            self._said_truncated = True
            _LOG.warning("a text is longer than %d tokens and was cut (said once)", self._length)
        ids = np.array([e.ids for e in encodings], np.int64).reshape(-1, self._length)
        mask = np.array([e.attention_mask for e in encodings], np.int64).reshape(-1, self._length)
        # CLIP ends every text with the token that also stands for what it does not know.
        added = np.array([e.special_tokens_mask for e in encodings], np.int64).reshape(-1, self._length)
        strange = (ids == self._unknown_id) & (mask == 1) & (added == 0)
        unknown = strange.sum(axis=1) if self._unknown_id is not None else ids[:, 0] * 0
        return Tokens(ids, mask, tuple(int(n) for n in unknown), cut)
