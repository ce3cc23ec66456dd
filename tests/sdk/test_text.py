from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from runtimes import BundleError, FeedError, Unavailable
from sdk import open_bundle
from sdk.text import Tokenizer
from tests.bundles import LENGTH, WORDS, damage, tokenizer_json


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
    assert caplog.messages == [f"a text is longer than {LENGTH} tokens and was cut (said once)"]


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
    textless = damage(colours, tmp_path / "a", change=lambda t: (t.update(text=None), t["graphs"].pop("text")))
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
