"""Whether a tokenizer.json may be opened.

It is hostile input like a graph: the library that reads it allocates what the file asks for, runs the regular
expressions the file brings, and panics or aborts where a field is nonsense. So only parts of known cost pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from runtimes import BundleError
from sdk.charsmap import check_charsmap
from sdk.schema import read_json

_MAX_DEPTH = 8
_MAX_PARTS = 64  # SigLIP's normalizers may take away the 32 marks of ASCII one by one
_MAX_PIECES = 32
_MAX_TEXT = 16  # characters of a replacement, a prefix, a pattern
_MAX_GROWTH = 16  # times a text may grow through all replacements: ten of them in a row grow by the tenth power
_MAX_WORD = 1_000  # characters of a word: WordPiece tries the square of it
_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Any other regular expression may take exponential time. These are CLIP's, open_clip's and SentencePiece's, and sets of
# single characters written out; they take linear time.
_REGEXES = frozenset(
    {r"\s+", " {2,}", _CLIP, rf"<\|startoftext\|>|<\|endoftext\|>|{_CLIP}", f"<start_of_text>|<end_of_text>|{_CLIP}"}
)
_SET = re.compile(r"\[(?:[^\\\[\]^-]|\\[^\w\s]){1,64}\]\+?")
_TYPES = {
    "model": ("BPE", "Unigram", "WordLevel", "WordPiece"),
    "normalizer": (
        *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Precompiled", "Prepend", "Replace"),
        *("Sequence", "Strip", "StripAccents"),
    ),
    "pre_tokenizer": (
        *("BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Sequence", "Split"),
        *("Whitespace", "WhitespaceSplit"),
    ),
    "post_processor": ("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"),
    "decoder": ("BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "WordPiece"),
}
# Where a Sequence keeps its parts.
_PARTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}


def check_tokenizer(text: str, length: int, where: str) -> dict[str, Any]:
    """Parse a tokenizer.json and refuse what must not reach the `tokenizers` library; returns the parsed model.

    `length` is what it must pad and cut to, `where` names it in errors. Raises BundleError.
    """
    try:
        table = scan_tokenizer(text)
    except ValueError as error:
        raise BundleError(f"{where} is not a tokenizer: {error}; do not use this bundle") from error
    _check_length(table, length, where)
    model: dict[str, Any] = table["model"]
    return model


def scan_tokenizer(text: str) -> dict[str, Any]:
    """Parse a tokenizer.json of any length; raises ValueError for what must not reach the `tokenizers` library."""
    try:
        table = read_json(text)
        if not isinstance(table, dict):
            raise ValueError(f"wanted a JSON object, got {type(table).__name__}")
        _check_model(table.get("model"))
        for kind in _PARTS:
            _check_parts(kind, table.get(kind))
    except RecursionError as error:
        raise ValueError(f"wanted a flat JSON object, got a deep one ({error})") from error
    return table


def _check_length(table: dict[str, Any], length: int, where: str) -> None:
    """Fixed lengths only, for the library allocates what `padding` says before anybody can look at a row."""
    pad, cut = table.get("padding"), table.get("truncation")
    pads = isinstance(pad, dict) and _same(pad.get("strategy"), {"Fixed": length}) and not pad.get("pad_to_multiple_of")
    cuts = isinstance(cut, dict) and _same(cut.get("max_length"), length) and _same(cut.get("stride", 0), 0)
    if not (pads and cuts):
        raise BundleError(f"{where} does not pad and cut to {length} tokens; the bundle is damaged")


def _same(value: object, wanted: object) -> bool:
    """Equal as JSON text is: 16.0 and true are not 16 and 1."""
    return repr(value) == repr(wanted)


def _check_model(model: object) -> None:
    table = _typed("model", model)
    for name, value in table.items():
        if isinstance(value, str) and len(value) > 64:
            raise ValueError(f"wanted a short model.{name}, got {len(value)} characters")
    if table.get("dropout") not in {None, 0}:
        raise ValueError(f"wanted a model without dropout, which gives chance answers, got {table['dropout']!r:.40}")
    word = table.get("max_input_chars_per_word", 100)
    if not isinstance(word, int) or not 0 < word <= _MAX_WORD:
        raise ValueError(f"wanted max_input_chars_per_word of 1 to {_MAX_WORD}, got {word!r:.40}")


def _typed(kind: str, part: object) -> dict[str, Any]:
    found = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(found, str) or found not in _TYPES[kind]:
        raise ValueError(f"wanted a {kind} of the types {', '.join(_TYPES[kind])}, got {found!r:.40}")
    return part


def _check_parts(kind: str, root: object) -> None:
    growth, tables = 1, 0
    for count, part in enumerate(_flat(kind, root, 0), start=1):
        if count > _MAX_PARTS:
            raise ValueError(f"wanted at most {_MAX_PARTS} parts in its {kind}, got more")
        if part["type"] in {"Replace", "Split"}:
            pattern = _pattern(part)
            content = _short(part.get("content", ""), f"{part['type']}.content")
            growth *= max(1, -(-len(content) // len(pattern)))
        elif part["type"] == "Prepend":
            _short(part.get("prepend"), "Prepend.prepend")
        elif part["type"] == "Precompiled":
            tables += 1
            check_charsmap(part.get("precompiled_charsmap"))
        elif part["type"] == "TemplateProcessing":
            _check_template(part)
    if tables > 1:
        raise ValueError(f"wanted one Precompiled at most, since each lengthens a text, got {tables}")
    if growth > _MAX_GROWTH:
        raise ValueError(f"wanted replacements that lengthen a text {_MAX_GROWTH} times at most, got {growth} times")


def _flat(kind: str, part: object, depth: int) -> Iterator[dict[str, Any]]:
    """The parts of a kind, Sequences taken apart."""
    if part is None and depth == 0:
        return
    table = _typed(kind, part)
    if table["type"] != "Sequence":
        yield table
        return
    inner = table.get(_PARTS[kind])
    if depth >= _MAX_DEPTH or not isinstance(inner, list):
        raise ValueError(f"wanted a list {_PARTS[kind]!r} at most {_MAX_DEPTH} deep, got {inner!r:.40}")
    for each in inner:
        yield from _flat(kind, each, depth + 1)


def _pattern(part: dict[str, Any]) -> str:
    """What a pattern surely consumes. A regular expression counts as one character."""
    pattern = part.get("pattern")
    if not isinstance(pattern, dict) or len(pattern) != 1:
        raise ValueError(f"wanted a {part['type']} with one pattern, got {pattern!r:.60}")
    if "Regex" in pattern:
        regex = pattern["Regex"]
        if not isinstance(regex, str) or not (regex in _REGEXES or _SET.fullmatch(regex)):
            raise ValueError(f"wanted a plain String or a regular expression of CLIP, got {regex!r:.60}")
        return " "
    text = _short(pattern.get("String"), f"{part['type']}.pattern")
    if not text:
        raise ValueError(f"wanted a {part['type']} with a pattern, got an empty one")
    return text


def _short(text: object, what: str) -> str:
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise ValueError(f"wanted a {what} of at most {_MAX_TEXT} characters, got {text!r:.40}")
    return text


def _check_template(part: dict[str, Any]) -> None:
    """The text once, between a few special tokens: a template may also double it, and the next one again."""
    single, special = part.get("single"), part.get("special_tokens")
    if not isinstance(single, list) or not isinstance(special, dict):
        raise ValueError("wanted a template with 'single' and 'special_tokens', got something else")
    ids = [len(token["ids"]) for token in special.values() if isinstance(token, dict) and "ids" in token]
    texts = sum(isinstance(piece, dict) and "Sequence" in piece for piece in single)
    named = [piece.get("SpecialToken", {}) for piece in single if isinstance(piece, dict)]
    lacking = [token for token in named if token and (not isinstance(token, dict) or token.get("id") not in special)]
    if lacking:
        raise ValueError(f"wanted a template whose tokens are in 'special_tokens', got {lacking[0]!r:.60}")
    if texts != 1 or len(single) > _MAX_PIECES or max(ids, default=0) > 1:
        raise ValueError(f"wanted a template with the text once and up to {_MAX_PIECES} pieces, got {single!r:.60}")
