from __future__ import annotations

import json
import logging
import re
import string
from pathlib import Path
from typing import Any

import pytest

from runtimes import BundleError, FeedError, Unavailable
from sdk import open_bundle
from sdk.text import Tokenizer
from tests.bundles import LENGTH, WORDS, damage, tokenizer_json, without_text


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(tokenizer_json(), LENGTH, "tokenizer.json")


def test_pads_cuts_and_lower_cases(tokenizer: Tokenizer) -> None:
    tokens = tokenizer(["A Red wall", "blue"])
    assert tokens.ids.tolist() == [
        [WORDS.index("a"), WORDS.index("red"), WORDS.index("wall"), 0, 0, 0],
        [WORDS.index("blue"), 0, 0, 0, 0, 0],
    ]
    assert tokens.mask.tolist() == [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert (tokens.ids.dtype, tokens.mask.dtype, tokens.unknown) == ("int64", "int64", (0, 0))


def test_counts_unknown_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer(["a red wall", "a strange red thing", "qwerty"]).unknown == (0, 2, 1)


def _model(**model: Any) -> str:
    table = json.loads(tokenizer_json())
    return json.dumps(table | {"model": model})


def test_counts_unknown_tokens_of_a_unigram_model() -> None:
    """SentencePiece models (SigLIP, T5) name the unknown token by number."""
    vocabulary = [["<pad>", 0.0], ["<unk>", 0.0], ["red", -1.0], ["wall", -1.0]]
    tokenizer = Tokenizer(_model(type="Unigram", unk_id=1, vocab=vocabulary), LENGTH, "tokenizer.json")
    assert tokenizer(["red wall", "red zzz"]).unknown[0] == 0
    assert tokenizer(["red wall", "red zzz"]).unknown[1] > 0


def test_a_model_that_knows_every_byte_has_no_unknown_tokens() -> None:
    vocabulary = {letter: i for i, letter in enumerate("[PAD]abcdefghijklmnopqrstuvwxyz", start=1)} | {"[PAD]": 0}
    text = _model(type="BPE", vocab=vocabulary, merges=[], unk_token=None)
    assert Tokenizer(text, LENGTH, "tokenizer.json")(["ab"]).unknown == (0,)


def test_a_long_text_is_cut_and_said_once(tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sdk"):
        tokenizer(["red"])
        assert not caplog.messages
        long = tokenizer(["a " * 20 + "red"])
        tokenizer(["a " * 30])
    assert long.ids.shape == (1, LENGTH)
    assert long.cut == (21 - LENGTH,)
    assert caplog.messages == [f"a text is longer than {LENGTH} tokens and was cut (said once)"]


@pytest.mark.parametrize("words", [1, 4, 5, LENGTH, LENGTH + 1, 2 * LENGTH, 25])
@pytest.mark.parametrize("special", [0, 2])
@pytest.mark.parametrize("direction", ["Right", "Left"])
def test_what_is_cut_is_counted_without_special_tokens(words: int, special: int, direction: str) -> None:
    table = json.loads(tokenizer_json())
    table["truncation"]["direction"] = direction
    if special:
        table["post_processor"] = {"type": "BertProcessing", "sep": ["[UNK]", 1], "cls": ["[UNK]", 1]}
    tokens = Tokenizer(json.dumps(table), LENGTH, "tokenizer.json")(["red " * words, "blue"])
    assert tokens.cut == (max(0, words + special - LENGTH), 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a text is empty; write a word or a phrase"),
        (" \n\t", "a text is empty; write a word or a phrase"),
        (5, "a text must be a str, but a int came"),
        (None, "a text must be a str, but a NoneType came"),
        (b"red", "a text must be a str, but a bytes came"),
        ("a" * 10_001, "a text has 10001 characters; at most 10000"),
        ("wall \ud800", r"the tokenizer cannot read one of \['red', 'wall \\ud800'\]: "),
    ],
)
def test_refuses_what_is_no_text(tokenizer: Tokenizer, text: Any, message: str) -> None:
    with pytest.raises(FeedError, match=message) as caught:
        tokenizer(["red", text])
    str(caught.value).encode()  # and can be printed


@pytest.mark.parametrize("text", ["", "garbage", "{}", "[]", '{"model": {}}', '{"model": []}', "null"])
def test_refuses_what_is_no_tokenizer(text: str) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer: "):
        Tokenizer(text, LENGTH, "tokenizer.json")


@pytest.mark.parametrize("part", ["padding", "truncation"])
def test_refuses_one_that_does_not_make_rows_of_the_length(part: str) -> None:
    """The length is in two places, the tokenizer and bundle.json; both must say the same."""
    text = json.dumps(json.loads(tokenizer_json()) | {part: None})
    with pytest.raises(BundleError, match=f"t does not pad and cut to {LENGTH} tokens; the bundle is damaged"):
        Tokenizer(text, LENGTH, "t")(["red", "a " * 20])
    with pytest.raises(BundleError, match="t does not pad and cut to 7 tokens"):
        Tokenizer(tokenizer_json(), 7, "t")(["red"])


def test_a_bundles_own(colours: Path, tmp_path: Path) -> None:
    assert Tokenizer.of(open_bundle(colours))(["red"]).unknown == (0,)
    textless = damage(colours, tmp_path / "a", change=without_text)
    with pytest.raises(Unavailable, match="has no text tower: it was slimmed with --no-text; use the maker's bundle"):
        Tokenizer.of(open_bundle(textless))
    binary = damage(colours, tmp_path / "b", {"tokenizer.json": b"\xff\xff"})
    with pytest.raises(BundleError, match=r"tokenizer\.json of .* cannot be read: .*; copy the bundle again"):
        Tokenizer.of(open_bundle(binary))


def test_a_bundle_removed_while_it_was_open(colours: Path, tmp_path: Path) -> None:
    bundle = open_bundle(damage(colours, tmp_path / "b"))
    (bundle.path / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json of .* cannot be read: "):
        Tokenizer.of(bundle)


# A tokenizer.json is data from outside, and its library runs what it says.


def _changed(**parts: Any) -> str:
    return json.dumps(json.loads(tokenizer_json()) | parts)


def _replace(content: str, pattern: object = None) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}


def _template(single: object, ids: tuple[int, ...] = (2,)) -> dict[str, Any]:
    special = {"[CLS]": {"id": "[CLS]", "ids": list(ids), "tokens": ["[CLS]"] * len(ids)}}
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special}


def _sequence(key: str, parts: list[Any], deep: int = 1) -> dict[str, Any]:
    found = {"type": "Sequence", key: parts}
    return found if deep == 1 else _sequence(key, [found], deep - 1)


_SPLIT = {"type": "Split", "behavior": "Removed", "invert": True}
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}
_CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
_CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////wAA"}},
            "wanted a charsmap with a trie inside its 6 bytes, got one of 4294967295",
        ),
        ({"normalizer": "Lowercase"}, "wanted a normalizer of the types BertNormalizer, .*, got None"),
        ({"normalizer": {"type": ["NFC"]}}, r"wanted a normalizer of the types .*, got \['NFC'\]"),
        ({"normalizer": _replace("a" * 17)}, "wanted a Replace.content of at most 16 characters, got 'aaaaaaaaa"),
        (
            {"normalizer": _replace("b", {"Regex": "(a|aa)+$"})},
            r"wanted a plain String or a regular expression of CLIP",
        ),
        *(
            ({"normalizer": _replace("b", {"Regex": regex})}, "wanted a plain String or a regular expression of CLIP")
            for regex in ("[^a]", "[a-z]", "[[:alpha:]]", "[a]*", "[a]+b", "[]", r"[\d]", "[" + "," * 65 + "]", None)
        ),
        ({"normalizer": _replace("b", {"String": ""})}, "wanted a Replace with a pattern, got an empty one"),
        ({"normalizer": _replace("b", {"String": 5})}, "wanted a Replace.pattern of at most 16 characters, got 5"),
        ({"normalizer": _replace("b", {"String": "a", "Regex": "b"})}, "wanted a Replace with one pattern, got {"),
        (
            {"normalizer": _sequence("normalizers", [_replace("aa")] * 5)},
            "lengthen a text 16 times at most, got 32 times",
        ),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 17}}, "wanted a Prepend.prepend of at most 16 characters"),
        ({"normalizer": _sequence("normalizers", [], 9)}, "wanted a list 'normalizers' at most 8 deep, got"),
        ({"normalizer": {"type": "Sequence"}}, "wanted a list 'normalizers' at most 8 deep, got None"),
        (
            {"normalizer": _sequence("normalizers", [{"type": "NFC"}] * 65)},
            "at most 64 parts in its normalizer, got more",
        ),
        ({"normalizer": _sequence("normalizers", [None])}, "wanted a normalizer of the types .*, got None"),
        ({"pre_tokenizer": _SPLIT | {"pattern": {"Regex": "(a|aa)+$"}}}, r"a regular expression of CLIP, got '\(a\|aa"),
        ({"pre_tokenizer": {"type": "UnicodeScripts"}}, "wanted a pre_tokenizer of the types"),
        ({"post_processor": {"type": "x"}}, "wanted a post_processor of the types .*, got 'x'"),
        ({"post_processor": _template([_TEXT, _TEXT])}, "wanted a template with the text once and up to 32 pieces"),
        ({"post_processor": _template([_CLS])}, "wanted a template with the text once and up to 32 pieces"),
        (
            {"post_processor": _template([_TEXT] + [_CLS] * 32)},
            "wanted a template with the text once and up to 32 pieces",
        ),
        ({"post_processor": _template([_CLS, _TEXT], (1,) * 9)}, "wanted a template with the text once and up to 32 p"),
        (
            {"post_processor": _template([_TEXT, {"SpecialToken": {"id": "x"}}])},
            "whose tokens are in 'special_tokens', got",
        ),
        ({"post_processor": {"type": "TemplateProcessing"}}, "wanted a template with 'single' and 'special_tokens'"),
        (
            {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+"}, "content": ""}},
            "a regular expression of CLIP",
        ),
        ({"decoder": {"type": "CTC"}}, "wanted a decoder of the types"),
        ({"model": {"type": "Other"}}, "wanted a model of the types BPE, Unigram, WordLevel, WordPiece, got 'Other'"),
        (
            {"model": {"type": "BPE", "dropout": 0.5}},
            "wanted a model without dropout, which gives chance answers, got 0.5",
        ),
        ({"model": {"type": "WordPiece", "max_input_chars_per_word": 10**6}}, "max_input_chars_per_word of 1 to 1000"),
        ({"model": {"type": "WordPiece", "unk_token": "u" * 65}}, "wanted a short model.unk_token, got 65 characters"),
    ],
)
def test_refuses_a_tokenizer_that_may_cost_anything(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"^t is not a tokenizer: .*{message}.*; do not use this bundle$"):
        Tokenizer(_changed(**parts), LENGTH, "t")


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("padding", {"strategy": {"Fixed": 20_000_000}}),
        ("padding", {"strategy": "BatchLongest"}),
        ("padding", {"strategy": {"Fixed": float(LENGTH)}}),
        ("padding", {"pad_to_multiple_of": 20_000_000}),
        ("truncation", {"max_length": 0}),
        ("truncation", {"max_length": LENGTH + 1}),
        ("truncation", {"stride": 2}),
    ],
)
def test_refuses_a_length_that_is_not_the_bundles_before_it_is_used(part: str, changes: dict[str, Any]) -> None:
    table = json.loads(tokenizer_json())[part] | changes
    with pytest.raises(BundleError, match=f"^t does not pad and cut to {LENGTH} tokens; the bundle is damaged$"):
        Tokenizer(_changed(**{part: table}), LENGTH, "t")


def test_refuses_a_key_that_comes_twice() -> None:
    """Of two, the check might read one and the library the other."""
    text = tokenizer_json().rstrip("}") + '}, "padding": null}'
    with pytest.raises(BundleError, match="t is not a tokenizer: the key 'padding' comes twice"):
        Tokenizer(text, LENGTH, "t")


def test_opens_the_parts_of_clip_and_gemma() -> None:
    clean = _sequence("normalizers", [{"type": "NFC"}, _replace(" ", {"Regex": r"\s+"}), {"type": "Lowercase"}])
    split = _SPLIT | {"pattern": {"Regex": _CLIP}}
    clip = _changed(normalizer=clean, pre_tokenizer=_sequence("pretokenizers", [split]))
    assert Tokenizer(clip, LENGTH, "t")(["A  Red wall"]).unknown == (0,)
    gemma = _SPLIT | {"behavior": "MergedWithPrevious", "invert": False, "pattern": {"String": " "}}
    normalizer = _sequence(
        "normalizers", [_replace("\u2581", {"String": " "}), {"type": "Prepend", "prepend": "\u2581"}]
    )
    Tokenizer(_changed(normalizer=normalizer, pre_tokenizer=gemma), LENGTH, "t")(["a red wall"])
    Tokenizer(_changed(post_processor=_template([_CLS, _TEXT])), LENGTH, "t")(["a red wall"])


def test_opens_the_parts_of_siglip() -> None:
    """Punctuation goes, as a set or mark by mark, and spaces shrink."""
    marks = [_replace("", {"Regex": "[" + re.escape(string.punctuation) + "]"})]
    for gone in (marks, [_replace("", {"String": mark}) for mark in string.punctuation]):
        clean = [{"type": "Lowercase"}, *gone, _replace(" ", {"Regex": " {2,}"})]
        tokens = Tokenizer(_changed(normalizer=_sequence("normalizers", clean)), LENGTH, "t")(["A [Red], - wall!", "a"])
        assert tokens.ids[0].tolist() == [WORDS.index("a"), WORDS.index("red"), WORDS.index("wall"), 0, 0, 0]


def test_the_end_of_a_text_is_not_an_unknown_token() -> None:
    """CLIP's end token stands for what it does not know too."""
    ends = {"type": "RobertaProcessing", "sep": ["[UNK]", 1], "cls": ["a", 2], "trim_offsets": False}
    tokens = Tokenizer(_changed(post_processor=ends | {"add_prefix_space": False}), LENGTH, "t")(["red", "red qwerty"])
    assert (tokens.ids == 1).sum(axis=1).tolist() == [1, 2]
    assert tokens.unknown == (0, 1)


class _Panic(BaseException):
    """What a panic of the Rust side looks like: no Exception."""


class _Panicking:
    error: BaseException = _Panic("index out of bounds")

    @classmethod
    def from_str(cls, text: str) -> None:
        raise cls.error

    def encode_batch(self, texts: list[str]) -> None:
        raise self.error


def test_a_panic_is_an_error_of_ours(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_inner", _Panicking())
    monkeypatch.setattr("tokenizers.Tokenizer", _Panicking)
    with pytest.raises(BundleError, match="t is not a tokenizer: index out of bounds; copy the bundle again"):
        Tokenizer(tokenizer_json(), LENGTH, "t")
    with pytest.raises(FeedError, match=r"the tokenizer cannot read one of .*: index out of bounds"):
        tokenizer(["red"])
    monkeypatch.setattr(_Panicking, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Tokenizer(tokenizer_json(), LENGTH, "t")
    with pytest.raises(KeyboardInterrupt):
        tokenizer(["red"])


def test_a_huge_tokenizer_is_not_read(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdk.text._MAX_FILE", 100)
    with pytest.raises(
        BundleError, match=r"tokenizer\.json of .* is larger than 100 bytes; make a bundle with a smaller"
    ):
        Tokenizer.of(open_bundle(colours))


def test_says_what_came_in_place_of_a_tokenizer() -> None:
    with pytest.raises(
        BundleError, match="t is not a tokenizer: wanted a JSON object, got list; do not use this bundle"
    ):
        Tokenizer("[]", LENGTH, "t")
    with pytest.raises(BundleError, match="t is not a tokenizer: NaN is no number of JSON"):
        Tokenizer('{"model": NaN}', LENGTH, "t")
