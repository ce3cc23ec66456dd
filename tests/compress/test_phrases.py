"""Texts to calibrate with, where there is no store."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models

from compress.data import open_dataset
from compress.phrases import phrases
from compress.tokenizer_json import whole_words
from tests.photos import folder_shop

VOCAB = ["<s>", "tea</w>", "the</w>", "te", "a</w>", "Milk</w>", "milk</w>", "cup</w>", "quokka</w>"]


def tokenizer(words: list[str]) -> Tokenizer:
    return Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[0]))


def test_whole_words_of_every_kind_of_tokenizer() -> None:
    assert whole_words(tokenizer(VOCAB)) == ["tea", "the", "milk", "cup", "quokka"]
    assert whole_words(tokenizer(["<unk>", "▁tea", "the", "▁x", "▁milk"])) == ["tea", "milk"]
    assert whole_words(tokenizer(["[UNK]", "tea", "##the", "milk", "猫"])) == ["tea", "milk"]


def test_known_and_fresh_phrases_differ(tmp_path: Path) -> None:
    corpus = open_dataset("photos", {"root": str(folder_shop(tmp_path / "shop", {"apple": 20, "pear": 20}))}).load()
    known, fresh = phrases(corpus, tokenizer(VOCAB), 30, 10, seed=0)
    assert len(fresh) == 10
    assert not set(known) & set(fresh)
    assert "a photo of apple" in known
    assert len(known) > 30
    assert not any("quokka" in text for text in (*known, *fresh)), "held out words are in no phrase"
    assert phrases(corpus, tokenizer(VOCAB), 30, 10, seed=0) == (known, fresh)


def test_without_words_the_datas_own_texts_do(tmp_path: Path) -> None:
    corpus = open_dataset("photos", {"root": str(folder_shop(tmp_path / "shop", {"apple": 20, "pear": 20}))}).load()
    known, fresh = phrases(corpus, tokenizer(["<s>", "x"]), 30, 4, seed=0)
    assert fresh == known[:4]
