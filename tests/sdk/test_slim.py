from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
import sdk
from runtimes import BundleError, Unavailable
from sdk import open_bundle
from sdk.card import read_card
from sdk.choose import PRECISIONS, fits
from sdk.golden import verify
from sdk.manifest import TOWERS, PortSpec
from sdk.slim import slim
from tests.bundles import BANK, CARD, IMAGE_TOKENS, THRESHOLD, WIDTH, colour_frame, damage

HERE = [str(target) for target in runtimes.targets()]


@pytest.mark.parametrize("target", ["ov:cpu", "ort:cpu", "ov:gpu.1"])
def test_keeps_the_smallest_variant_of_each_tower(colours: Path, tmp_path: Path, target: str) -> None:
    """A bundle is slimmed on any machine for any other: the target need not be here."""
    made = slim(open_bundle(colours), target, tmp_path / "slim")
    size = {v: (colours / f"image.{v}.onnx").stat().st_size for v in ("fp32", "int8")}
    smallest = min(size, key=size.__getitem__)
    assert list(made.manifest.graphs["image"]) == [smallest]
    assert list(made.manifest.graphs["text"]) == ["int8"]
    assert sorted(path.name for path in made.path.iterdir()) == [
        "bundle.json",
        "card.md",
        "fusion.fp32.onnx",
        "golden.npz",
        f"image.{smallest}.onnx",
        "labels.npy",
        "text.int8.onnx",
        "tokenizer.json",
    ]
    provenance = made.manifest.provenance
    assert (provenance["slimmed_for"], provenance["slimmed_from"]) == (target, open_bundle(colours).hash)
    assert provenance["made_by"] == "tests"
    assert made.manifest.space == "colours-1"


@pytest.mark.parametrize(("precision", "variant"), [("fp32", "fp32"), ("bf16", "fp32"), ("int8", "int8")])
def test_keeps_the_variant_of_a_precision(colours: Path, tmp_path: Path, precision: str, variant: str) -> None:
    made = slim(open_bundle(colours), "ov:cpu", tmp_path / "slim", precision=precision)
    assert {t: list(graphs) for t, graphs in made.manifest.graphs.items()} == {t: [variant] for t in TOWERS}
    wanted = {f"out/{tower}/{variant}/{port}" for tower in ("image", "text") for port in ("embedding", "tokens")}
    assert {name for name in made.golden if name.startswith("out/")} == wanted | {f"out/fusion/{variant}/logits"}
    assert list(made.manifest.tolerance["image"]) == [variant]


def test_half_weights_are_as_good_as_the_arithmetic(colours: Path) -> None:
    """Which variants give a precision, by the weights they store."""
    graph = open_bundle(colours).graph("image", "int8")
    stored = {name: replace(graph, stored=name) for name in ("fp32", "fp16", "int8")}
    found = {wish: [name for name, each in stored.items() if fits(wish, each)] for wish in (None, *PRECISIONS)}
    floats = {"fp32": ["fp32"], "bf16": ["fp32"], "fp16": ["fp32", "fp16"]}
    assert found == {None: ["fp32", "fp16", "int8"], **floats, "int8": ["int8"]}


@pytest.mark.parametrize("text", [True, False])
def test_a_slim_bundle_verifies_and_answers_as_the_whole(colours: Path, tmp_path: Path, text: bool) -> None:
    made = slim(open_bundle(colours), HERE[0], tmp_path / "slim", text=text, precision="int8")
    assert made.manifest.files.keys() < open_bundle(colours).manifest.files.keys()
    verdicts = verify(made)
    assert all(verdict.passed for verdict in verdicts)
    assert {verdict.subject for verdict in verdicts} == {"frames", "image int8"} | (
        {"tokens", "text int8", "fusion int8"} if text else set()
    )
    with sdk.load(colours, on=HERE[0], precision="int8") as whole, sdk.load(made.path, on=HERE[0]) as slimmed:
        for label in BANK:
            frame = colour_frame(label, size=30)
            assert slimmed.classify(frame, k=4) == whole.classify(frame, k=4)
            if text:
                assert slimmed.ask(frame, "what is it?") == whole.ask(frame, "what is it?")


def test_without_text_the_bank_works_and_a_new_phrase_says_why_not(colours: Path, tmp_path: Path) -> None:
    made = slim(open_bundle(colours), HERE[0], tmp_path / "slim", text=False)
    assert (made.manifest.text, made.manifest.fusion) == (None, None)
    assert made.manifest.tasks == ("classify", "embed_images", "search")
    assert made.manifest.labels == open_bundle(colours).manifest.labels
    assert (made.manifest.unknown_threshold, made.manifest.card) == (THRESHOLD, "card.md")
    assert read_card(made.file("card.md")) == CARD
    assert not [name for name in made.golden if "text" in name or "fusion" in name]
    assert not [name for name in made.manifest.files if name.startswith(("text", "fusion", "tokenizer"))]
    (image,) = made.manifest.graphs["image"].values()
    assert image.outputs["tokens"] == PortSpec("float32", (None, IMAGE_TOKENS, WIDTH))  # left over, and ignored
    with pytest.raises(Unavailable, match="has no fusion tower: it was slimmed with --no-text; use the maker's bundle"):
        made.variants("fusion")
    reason = "has no text tower: it was slimmed with --no-text; use the maker's bundle"
    with sdk.load(made.path, budget_s=0) as student:
        assert student.labels.list() == list(BANK)
        answers = student.classify(colour_frame("green"), labels=["red", "green"])
        assert answers[0].label == "green"
        student.labels.remove("green")
        student.labels.add("green")
        for use in (
            lambda: student.labels.add("purple"),
            lambda: student.labels.add("purple", ["a purple wall"]),
            lambda: student.labels.replace(["purple"]),
            lambda: student.classify(colour_frame("red"), labels=["red", "purple"]),
        ):
            with pytest.raises(Unavailable, match=reason):
                use()
        with pytest.raises(
            Unavailable, match="was not made for the task 'embed_texts'; it does: classify, embed_images"
        ):
            student.embed_texts(["red"])
        with pytest.raises(Unavailable, match="was not made for the task 'ask'; it does: classify, embed_images"):
            student.ask(colour_frame("red"), "is it red?")
        with pytest.raises(Unavailable, match=reason):
            student.search("red", student.labels.current.vectors)
        assert student.search(colour_frame("red"), student.embed_images([colour_frame("blue"), colour_frame("red")]))
        assert sorted(student.labels.list()) == sorted(BANK)


def test_side_files_come_along_and_count(colours: Path, tmp_path: Path) -> None:
    heavy = damage(
        colours,
        tmp_path / "heavy",
        {"weights.bin": bytes(10_000)},
        lambda table: table["graphs"]["image"]["fp32"].update(external=["weights.bin"]),
    )
    assert list(slim(open_bundle(heavy), "ov:cpu", tmp_path / "a").manifest.graphs["image"]) == ["int8"]
    kept = slim(open_bundle(heavy), "ov:cpu", tmp_path / "b", precision="fp32")
    assert (kept.path / "weights.bin").read_bytes() == bytes(10_000)


def test_what_cannot_be_slimmed(colours: Path, tmp_path: Path) -> None:
    bundle, out = open_bundle(colours), tmp_path / "slim"
    with pytest.raises(Unavailable, match=r"holds no image graph for 'trt'; it holds: ort, ov$"):
        slim(bundle, "trt:cuda.0", out)
    with pytest.raises(Unavailable, match="'ov' is not a target"):
        slim(bundle, "ov", out)
    with pytest.raises(Unavailable, match="precision='int3' is not known; choose one of: fp32, bf16, fp16, int8"):
        slim(bundle, "ov:cpu", out, precision="int3")
    floats = damage(colours, tmp_path / "floats", change=lambda table: table["graphs"]["image"].pop("int8"))
    with pytest.raises(Unavailable, match="holds no int8 image graph for 'ov'"):
        slim(open_bundle(floats), "ov:cpu", out, precision="int8")
    assert not out.exists()
    out.mkdir()
    with pytest.raises(BundleError, match="slim exists; remove it or choose another folder"):
        slim(bundle, "ov:cpu", out)
    with pytest.raises(BundleError, match="colours exists; remove it or choose another folder"):
        slim(bundle, "ov:cpu", colours)


def test_slimming_again_changes_nothing_but_the_provenance(colours: Path, tmp_path: Path) -> None:
    once = slim(open_bundle(colours), "ov:cpu", tmp_path / "once")
    twice = slim(once, "ov:cpu", tmp_path / "twice")
    assert twice.manifest.files == once.manifest.files
    np.testing.assert_array_equal(twice.label_vectors, once.label_vectors)


@pytest.mark.parametrize("text", [True, False])
def test_a_bundle_that_does_not_ask_is_slimmed_as_ever(plain: Path, tmp_path: Path, text: bool) -> None:
    made = slim(open_bundle(plain), HERE[0], tmp_path / "slim", text=text)
    assert list(made.manifest.graphs) == (["image", "text"] if text else ["image"])
    assert all(verdict.passed for verdict in verify(made))
