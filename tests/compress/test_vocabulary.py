"""Tokenizers with fewer tokens: what stays is taken apart as before."""

from __future__ import annotations

import json
from functools import cache

import pytest
from tokenizers import Tokenizer

from compress.drawn_clip import clip_vocabulary
from compress.tokenizer_json import fixed
from compress.vocabulary import fewer_tokens
from runtimes import RecipeError
from sdk.text import Tokenizer as DeviceTokenizer
from tests.checkpoints import LINES, WORDS, clip_tokenizer, siglip2_tokenizer, siglip_tokenizer

OWN = ("a photo of a purple submarine", "кошка на крыше", "zebra crossing, 3.99 €", "naïve café 猫")
ASCII = [
    token.removesuffix("</w>")
    for token in clip_vocabulary()[0]
    if token.isascii() and token.removesuffix("</w>").isalpha()
]
TEXTS = (
    *OWN,
    *(f"{one} {two}" for one, two in zip(WORDS, ASCII[5000::1500], strict=False)),
    *(
        "the quick brown fox jumps over the lazy dog",
        "An UNREADABLE qwxzy, isn't it?",
        "สวัสดี 🐈 ½",
        "photographers' umbrellas",
    ),
    *(" ".join(ASCII[at : at + 4]) for at in range(300, 48000, 400)),
)


@cache
def clip() -> str:
    return fixed(clip_tokenizer().backend_tokenizer.to_str(), 77, 49407, "<|endoftext|>")


@cache
def siglip2() -> str:
    return fixed(siglip2_tokenizer().backend_tokenizer.to_str(), 16, 0, "<pad>")


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> str:
    from compress.siglip_tokenizer import siglip_tokenizer as ours

    return fixed(ours(siglip_tokenizer(tmp_path_factory.mktemp("siglip"))).to_str(), 16, 1, "</s>")


def ids(text: str, texts: tuple[str, ...]) -> list[list[int]]:
    tokenizer = Tokenizer.from_str(text)
    return [code.ids for code in tokenizer.encode_batch(list(texts))]


def check(whole: str, size: int, own: tuple[str, ...], texts: tuple[str, ...], length: int) -> float:
    """The share of texts that keep all tokens, and so their pieces."""
    made, kept = fewer_tokens(whole, size, own, ())
    assert len(kept) <= size
    assert kept == sorted(set(kept))
    DeviceTokenizer(made, length, "the tokenizer")
    stays, same = set(kept), 0
    for text, before, after in zip(texts, ids(whole, texts), ids(made, texts), strict=True):
        found = [kept[number] for number in after]
        if stays.issuperset(before):
            assert found == before, text
            same += 1
        else:
            assert found != before
    assert ids(made, own) == [[kept.index(number) for number in each] for each in ids(whole, own)]
    one, two = (Tokenizer.from_str(each) for each in (whole, made))
    assert [two.id_to_token(new) for new in range(len(kept))] == [one.id_to_token(old) for old in kept]
    return same / len(texts)


@pytest.mark.parametrize("size", [1000, 8000, 30000, 49408])
def test_clips_tokens(size: int) -> None:
    share = check(clip(), size, OWN, TEXTS, 77)
    assert share == 1 if size == 49408 else share < 1


def test_open_clips_tokens() -> None:
    import open_clip

    from compress.open_clip_tokenizer import open_clip_tokenizer

    whole = open_clip_tokenizer(open_clip.SimpleTokenizer(), 77)
    check(whole, 5000, OWN, TEXTS, 77)


@pytest.mark.parametrize("size", [330, 400])
def test_tokens_that_may_fall_into_bytes(size: int) -> None:
    """Gemma's manner, in which a token may come of several merges."""
    table = json.loads(siglip2())
    assert table["model"]["byte_fallback"]
    check(siglip2(), size, ("zebra crossing",), (*TEXTS, *LINES[::7]), 16)


def test_likeliest_pieces(unigram: str) -> None:
    share = check(unigram, 60, ("zebra crossing", "a photo of"), (*TEXTS, *LINES[::7]), 16)
    assert 0.2 < share < 1


def test_older_files_write_merges_as_one_text() -> None:
    table = json.loads(clip())
    table["model"]["merges"] = [" ".join(pair) for pair in table["model"]["merges"]]
    assert fewer_tokens(json.dumps(table), 2000, OWN, ()) == fewer_tokens(clip(), 2000, OWN, ())


def test_numbers_that_must_stay() -> None:
    _, kept = fewer_tokens(clip(), 1000, (), (40000, 49407))
    assert {40000, 49406, 49407} <= set(kept)


@pytest.mark.parametrize("size", [300, 49409])
def test_a_size_that_cannot_be_had(size: int) -> None:
    says = r"the tokenizer has 49408 tokens, of which \d+ must stay for single characters and the data's own"
    with pytest.raises(RecipeError, match=rf"{says} texts; vocab lies between, got {size}"):
        fewer_tokens(clip(), size, OWN, ())


@pytest.mark.parametrize("kind", ["WordPiece", "WordLevel"])
def test_other_kinds_are_not_cut(kind: str) -> None:
    table = json.loads(siglip2())
    table["model"]["type"] = kind
    with pytest.raises(
        RecipeError, match=f"the vocabulary of a {kind} tokenizer cannot be cut, only those of BPE and Unigram; leave"
    ):
        fewer_tokens(json.dumps(table), 300, (), ())
