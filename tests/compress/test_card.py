"""What a model card says of its student's limits."""

import dataclasses

from compress.card import limits
from compress.data import open_dataset
from sdk.bundle import open_bundle
from tests.conftest import ROOT


def test_texts_that_are_cut_are_counted() -> None:
    bundle, corpus = open_bundle(ROOT / "bundles/grocery"), open_dataset("easy_vqa", {}).load()

    def said(*captions: tuple[str, ...]) -> list[str]:
        lines = limits(bundle, dataclasses.replace(corpus, captions=captions), {})
        return [line for line in lines if "tokens of a text" in line]

    assert said(("red apple", "an apple"), ("milk",)) == []
    long = "sweet and sour " * 40
    assert said(("red apple", long), (long,), ("milk",)) == [
        "It reads the first 64 tokens of a text: 1 of the 3 of its data are longer."
    ]
