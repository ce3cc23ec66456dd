"""A tiny shop of photos through quantize, gate and pack: product texts, groups and "none of these" on the way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sdk
from benchmarks.evalset import read_evalset
from compress.augment import Augment
from compress.data import open_dataset
from compress.deploy import GOLDEN_PHRASES
from compress.draft import DatasetSpec, Draft
from compress.recipe import load_recipe, step_name
from compress.report import write_report
from compress.steps.gate import Gate
from compress.steps.pack import Pack
from compress.steps.quantize import Quantize
from compress.store import Header, identity
from sdk.bundle import open_bundle
from tests.photos import GROCERIES, grocery_shop
from tests.small_models import SHAPE, save_small, small_model
from tests.stores import write_store

COUNTS = {"train": 8, "val": 6, "test": 6}  # photos of each of three classes
SHARE = 0.25
STEPS = (
    Quantize(quantizers=("ort_static",), samples=16, held_out=8),
    Gate(max_drop=100.0, max_map_drop=1.0, alpha=0.0, golden=2, unknown=SHARE),
    Pack(seconds=0.05),
)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Draft:
    """What the steps made of a teacher that nobody taught, and of a student that is the same. It is read, never
    written."""
    out = tmp_path_factory.mktemp("shop")
    shape = dataclasses.replace(SHAPE, fusion_options={}, width=0, answers=())
    teacher, student = (save_small(small_model(shape), out / who, shape) for who in ("a", "b"))
    data = DatasetSpec("photos", {"root": str(grocery_shop(out / "photos", COUNTS))})
    corpus = open_dataset(data.name, data.fields).load()
    texts = (*GOLDEN_PHRASES, *(prompt for label in corpus.labels for prompt in label.prompts))
    header = Header(identity(teacher), corpus.fingerprint, 0, shape.size, Augment(), 10.0, texts, len(GOLDEN_PHRASES))
    vectors = np.eye(shape.dim, dtype=np.float32)
    write_store(out / "store", header, {"train": vectors[None], "val": vectors, "texts": vectors})
    draft = Draft(out, out, 0, data, teacher=teacher, student=student, store=out / "store", recipe="shop")
    for step in STEPS:
        folder = out / ".work" / step_name(step)
        folder.mkdir(parents=True)
        draft = step.run(dataclasses.replace(draft, folder=folder))
    write_report(draft, load_recipe("grocery"))
    return draft


@pytest.fixture(scope="module")
def report(draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((draft.out / "report.json").read_text(encoding="utf-8"))
    return found


def test_the_gate_calibrates_none_of_these_on_validation_photos(draft: Draft) -> None:
    for who in ("teacher", "student"):
        manifest = open_bundle(draft.out / who).manifest
        assert manifest.unknown_threshold == draft.metrics[f"gate.{who}_threshold"]
        assert (manifest.name, manifest.provenance["recipe"]) == (f"shop-{who}", "shop")
    photos = sorted((Path(draft.dataset.fields["root"]) / "val").rglob("*.jpg"))
    with sdk.load(draft.out / "student", on="ov:cpu") as student:
        refused = [not student.classify(photo, k=1)[0].known for photo in photos]
    assert len(photos) == 18
    assert 0 < np.mean(refused) <= SHARE, "those below the quantile, and not the photo at it"


def test_the_card_tells_of_it(draft: Draft) -> None:
    bundle = open_bundle(draft.out / "student")
    text = bundle.file("card.md").read_text(encoding="utf-8")
    assert text.startswith("# shop-student\n")
    said = (
        f'- Below a cosine of {bundle.manifest.unknown_threshold:.3f} it says "none of these"; how often that is right'
    )
    assert said in text
    assert "24 images to train, 18 to choose, 18 to test" in text


def test_the_evaluation_set_has_texts_and_groups(draft: Draft) -> None:
    asked = read_evalset(draft.out / "eval")
    assert len(asked.images) == 18 and not asked.questions
    assert dict(zip(asked.labels, asked.texts, strict=True)) == {
        name.lower().replace("-", " "): text for name, (_, _, text) in GROCERIES.items()
    }
    assert asked.groups == ("apple", "apple", "oat milk")


def test_the_report_has_search_coarse_classes_and_what_was_refused(draft: Draft, report: dict[str, Any]) -> None:
    for row in report["accuracy"]:
        assert {"coarse.accuracy", "search.map", "unknown.auroc"} <= row["shop"].keys()
    assert {each["name"] for each in report["classes"]} == {"royal gala", "granny smith", "oatly oat milk"}
    assert {row["teacher_on"] for row in report["speed"]} == {"ov:cpu", "ort:cpu", "pt:cpu"}
    text = (draft.out / "report.md").read_text(encoding="utf-8")
    assert "## Coarse classes, product search, none of these" in text and "## Which classes lost" in text
    quality = open_bundle(draft.out / "student").manifest.quality
    assert quality["unknown.auroc"].keys() == {"teacher", "student"}


def test_report_and_bundle_are_of_one_size(draft: Draft, report: dict[str, Any]) -> None:
    assert report["size"]["bytes"]["student_all_variants"] == open_bundle(draft.out / "student").size
