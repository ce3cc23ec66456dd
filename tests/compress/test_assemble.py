from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from compress.assemble import Replayed, assemble, order_families, replay_everywhere, separation, tolerances
from compress.data import Label
from compress.draft import ImageSpec, ModelFiles, TextSpec
from compress.engines import FAMILIES, cpu_targets, parse_variant
from compress.export import export_model
from compress.golden_samples import Contents, gaps, golden_questions
from compress.quantizers import Job
from compress.trt_variants import make_variant
from runtimes import GateFailed, Unavailable
from sdk.golden import output_error, verify
from sdk.student import load
from sdk.text import Tokenizer
from tests.bundles import ANSWERS, COLOURS, DIM, LENGTH, SIZE, build, colour_frame, tokenizer_json
from tests.small_models import SHAPE, save_small, small_model

FRAMES = np.stack([colour_frame(c, SIZE) for c in ("red", "green", "blue", "white")])
FEEDS = {"image": FRAMES}


@pytest.fixture(scope="module", params=["fp32", "int8"])
def replayed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    path: Path = tmp_path_factory.mktemp("graph") / "image.onnx"
    path.write_bytes(build("image", request.param).SerializeToString())
    return replay_everywhere(path, FEEDS, cpu_targets())


def test_every_engine_and_arithmetic_is_measured(replayed: Replayed) -> None:
    assert {port: array.shape[0] for port, array in replayed.outputs.items()} == {"embedding": 4, "tokens": 4}
    assert set(replayed.milliseconds) == set(FAMILIES)
    assert len(replayed.distance) >= 1
    assert max(replayed.distance.values()) < 0.01


def test_tolerances_let_engines_pass_and_another_graph_fail(replayed: Replayed) -> None:
    allowed = tolerances("image", replayed, FEEDS)
    assert "*" in allowed
    for compute, distance in replayed.distance.items():
        assert distance <= allowed[compute] <= separation(replayed.outputs, FEEDS) / 2


def test_tolerance_never_reaches_another_sample() -> None:
    """Two samples 0.004 apart: however much room there is, one may not be answered for the other."""
    angle = np.arccos(1 - 0.004)
    outputs = {"embedding": np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)}
    feeds = {"image": np.arange(2)[:, None]}
    allowed = tolerances("image int8", Replayed(outputs, {"int8+f32": 0.0015}, {"ov": 1.0}), feeds)
    assert allowed["int8+f32"] == pytest.approx(0.002, rel=1e-3)
    assert allowed["*"] == pytest.approx(0.002, rel=1e-3)


def test_engines_that_disagree_too_much_are_refused() -> None:
    outputs = {"embedding": np.eye(3, dtype=np.float32)}
    feeds = {"image": np.arange(3)[:, None]}
    with pytest.raises(
        GateFailed, match=r"engines disagree on text int8 by 0\.6, more than half of what tells .* apart \(0\.5\)"
    ):
        tolerances("text int8", Replayed(outputs, {"int8+f32": 0.6}, {"ov": 1.0}), feeds)


def test_the_same_feed_twice_is_one_sample() -> None:
    rows = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert separation({"embedding": rows}, {"image": np.array([[1], [1], [2]])}) == pytest.approx(1)
    assert separation({"embedding": rows[:1], "tokens": rows[:1]}, {"image": np.array([[1]])}) == 2


def test_answers_are_told_apart_by_their_lead() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.3, 0.45, 0.25]], np.float32))
    assert gaps(logits) == pytest.approx([0.5, 0.15], abs=1e-6)
    assert separation({"logits": logits}, {}) == pytest.approx(0.15, abs=1e-6)
    allowed = tolerances("fusion int8", Replayed({"logits": logits}, {"int8": 0.07}, {"ov": 1.0}), {})
    assert allowed == {"int8": pytest.approx(0.075, abs=1e-6), "*": pytest.approx(0.075, abs=1e-6)}
    with pytest.raises(GateFailed, match=r"engines disagree on fusion int8 by 0\.08, more than half .* \(0\.075\)"):
        tolerances("fusion int8", Replayed({"logits": logits}, {"int8": 0.08}, {"ov": 1.0}), {})


def test_families_are_ordered_by_clear_differences_only() -> None:
    assert order_families(("ov", "ort"), {"ov": 1.0, "ort": 0.5}) == ("ort", "ov")
    assert order_families(("ov", "ort"), {"ov": 1.0, "ort": 0.95}) == ("ov", "ort")
    assert order_families(("ov", "trt"), {"ov": 1.0}) == ("ov", "trt")


def test_variant_names_say_precision_and_family() -> None:
    assert parse_variant("int8") == ("int8", FAMILIES)
    assert parse_variant("fp32") == ("fp32", (*FAMILIES, "trt"))
    assert parse_variant("fp16-trt") == ("fp16", ("trt",))


def test_without_an_engine_nothing_is_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtimes, "targets", tuple)
    with pytest.raises(Unavailable, match=r"need an engine; run: pip install 'edge-pupil\[openvino\]'"):
        cpu_targets()
    path = tmp_path / "image.onnx"
    path.write_bytes(build("image", "fp32").SerializeToString())
    with pytest.raises(Unavailable, match=r"no engine here opens image\.onnx"):
        replay_everywhere(path, FEEDS, [])


def colour_model(folder: Path) -> ModelFiles:
    """The towers of the colour bundle, which really answer questions about colours."""
    paths = {tower: folder / f"{tower}.onnx" for tower in ("image", "text", "fusion")}
    for tower, path in paths.items():
        path.write_bytes(build(tower, "fp32").SerializeToString())
    image = ImageSpec("x", {}, folder, 0, SIZE, (0.0,) * 3, (1.0,) * 3)
    text = TextSpec("x", {}, folder, 0, LENGTH, folder / "tokenizer.json")
    return ModelFiles(image, text, DIM, 1.0, graphs={tower: {"fp32": path} for tower, path in paths.items()})


def test_golden_questions_are_the_surest_with_as_many_answers_as_can_be(tmp_path: Path) -> None:
    images = np.stack([colour_frame(colour, SIZE, seed=n) for n, colour in enumerate(COLOURS)])
    texts = ("what color is it?", "is it red?", "is it blue?", "a strange wall")
    questions = Tokenizer(tokenizer_json(), LENGTH, "tokenizer.json")(texts)
    target, model = cpu_targets()[0], colour_model(tmp_path)
    feeds = golden_questions(model, images, questions, target)
    assert set(feeds) == {"feed/fusion/image", "feed/fusion/text", "feed/fusion/mask"}
    assert {len(array) for array in feeds.values()} == {len(images)}

    def answered(rows: dict[str, np.ndarray]) -> np.ndarray:
        with runtimes.open_session(target, model.graphs["fusion"]["fp32"], batch=None) as session:
            return session.run(rows)["logits"]

    logits = answered({name.removeprefix("feed/fusion/"): array for name, array in feeds.items()})
    with (
        runtimes.open_session(target, model.graphs["image"]["fp32"], batch=None) as image,
        runtimes.open_session(target, model.graphs["text"]["fp32"], batch=None) as text,
    ):
        seen = image.run({"image": images})["tokens"]
        read = text.run({"ids": questions.ids, "mask": questions.mask})["tokens"]
    pairs = [(i, q) for i in range(len(images)) for q in range(len(texts))]
    places = ([i for i, _ in pairs], [q for _, q in pairs])
    every = answered({"image": seen[places[0]], "text": read[places[1]], "mask": questions.mask[places[1]]})
    possible, lead = {ANSWERS[at] for at in every.argmax(1)}, gaps(every)
    chosen = [ANSWERS[at] for at in logits.argmax(1)]
    assert {"yes", "no", "red", "blue"} <= possible
    assert len(set(chosen)) == min(len(images), len(possible))
    for answer in set(chosen):
        of_answer = every.argmax(1) == ANSWERS.index(answer)
        found = gaps(logits)[logits.argmax(1) == ANSWERS.index(answer)]
        assert found.max() == pytest.approx(lead[of_answer].max(), abs=1e-5)


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model of random weights with a fusion, exported."""
    folder = tmp_path_factory.mktemp("answering")
    files = save_small(small_model(), folder / "m")
    graphs = {tower: {"fp32": path} for tower, path in export_model(files, folder).items()}
    return dataclasses.replace(files, graphs=graphs)


def contents() -> Contents:
    frames = [colour_frame(colour, 48, seed=n) for n, colour in enumerate(COLOURS)]
    labels = tuple(Label(name, (f"a {name} wall", f"a wall in {name}")) for name in ("red", "blue"))
    texts = ("a red wall", "the blue door", "seven chairs", "is it green?")
    questions = ("what color is it?", "is it red?", "is there a circle?", "what shape is it?")
    return Contents(
        name="small",
        labels=labels,
        templates=("a {} wall",),
        golden=4,
        frames=frames,
        texts=texts,
        questions=questions,
        licence="Apache-2.0",
        provenance={"made_by": "tests"},
    )


def test_a_bundle_that_answers_proves_itself_on_both_engines(answering: ModelFiles, tmp_path: Path) -> None:
    bundle = assemble(answering, contents(), tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.tasks == ("classify", "embed_images", "embed_texts", "search", "ask")
    assert manifest.fusion is not None
    assert (manifest.fusion.width, manifest.fusion.image_tokens) == (16, 1)
    assert manifest.fusion.answers == SHAPE.answers
    assert bundle.golden["feed/fusion/image"].shape == (4, 1, 16)
    assert bundle.golden["out/fusion/fp32/logits"].shape == (4, 4)
    assert bundle.golden["out/image/fp32/tokens"].shape == (5, 1, 16)
    sides = [array.shape[:2] for name, array in sorted(bundle.golden.items()) if name.startswith("raw/")]
    size = manifest.image.size
    assert min(sides[0]) > 4 * size and size < min(sides[1]) < 2 * size and len(sides) == 2
    verdicts = verify(bundle)
    assert all(verdict.passed for verdict in verdicts), verdicts
    assert {(v.subject, v.target) for v in verdicts if v.target != "sdk"} == {
        (f"{tower} fp32", target) for tower in ("image", "text", "fusion") for target in ("ort:cpu", "ov:cpu")
    }
    answers = {}
    for on in ("ort:cpu", "ov:cpu"):
        with load(bundle.path, on=on) as student:
            answers[on] = student.ask(contents().frames[0], list(contents().questions))
    for one, two in zip(*answers.values(), strict=True):
        assert one.label in SHAPE.answers
        assert one.score == pytest.approx(two.score, abs=0.05), "where there is bf16, it is what OpenVINO takes"


def test_a_variant_for_an_engine_that_is_not_here_proves_itself_on_those_that_are(
    answering: ModelFiles, tmp_path: Path
) -> None:
    made = tmp_path / "image.fp16-trt.onnx"
    make_variant("fp16-trt", Job(answering.graphs["image"]["fp32"], made, [], (), attention=False))
    graphs = {tower: dict(answering.graphs[tower]) for tower in ("image", "text")}
    graphs["image"]["fp16-trt"] = made
    bundle = assemble(dataclasses.replace(answering, fusion=None, graphs=graphs), contents(), tmp_path / "bundle")
    spec = bundle.graph("image", "fp16-trt")
    assert (spec.stored, spec.families, spec.opset) == ("fp16", ("trt",), 19)
    assert set(bundle.graph("image", "fp32").families) == {"ov", "ort", "trt"}
    assert bundle.graph("image", "fp32").families[-1] == "trt", "it was not timed"
    exact, half = (bundle.golden[f"out/image/{variant}/embedding"] for variant in ("fp32", "fp16-trt"))
    assert half.shape == exact.shape
    assert output_error("embedding", half, exact) < 1e-3
    assert "*" in bundle.manifest.tolerance["image"]["fp16-trt"]
    assert not [each for each in verify(bundle) if "fp16-trt" in each.subject], "nothing here opens it"


def test_a_bundle_without_a_fusion_does_not_ask(answering: ModelFiles, tmp_path: Path) -> None:
    graphs = {tower: answering.graphs[tower] for tower in ("image", "text")}
    bundle = assemble(dataclasses.replace(answering, fusion=None, graphs=graphs), contents(), tmp_path / "bundle")
    assert bundle.manifest.tasks == ("classify", "embed_images", "embed_texts", "search")
    assert bundle.manifest.fusion is None
    assert not [name for name in bundle.golden if "fusion" in name]
    assert all(verdict.passed for verdict in verify(bundle))


def test_groups_and_texts_reach_the_bundle(answering: ModelFiles, tmp_path: Path) -> None:
    graphs = {tower: answering.graphs[tower] for tower in ("image", "text")}
    said = dataclasses.replace(
        contents(),
        labels=(Label("red", ("a red wall",), "Paint. It is red.", "warm"), Label("blue", ("a blue wall",))),
    )
    bundle = assemble(dataclasses.replace(answering, fusion=None, graphs=graphs), said, tmp_path / "bundle")
    assert bundle.manifest.labels is not None
    assert [(item.label, item.group, item.text) for item in bundle.manifest.labels.items] == [
        ("red", "warm", "Paint. It is red."),
        ("blue", "", ""),
    ]
    with load(bundle.path, on="ort:cpu") as student:
        answer: Any = student.classify(said.frames[0], groups=True)[0]
        assert answer.label in {"warm", "blue"}
        assert student.search("a red wall", student.labels.current.vectors, k=1)[0].index == 0


def test_a_model_that_gives_zeros_is_refused_as_such() -> None:
    zero = {"embedding": np.zeros((2, 4), np.float32)}
    replayed = Replayed(zero, {"f32": float("inf")}, {"ov": 1.0})
    with pytest.raises(GateFailed, match="the student's image int8 gives a golden sample a zero or non-finite output"):
        tolerances("the student's image int8", replayed, {"image": np.arange(2).reshape(2, 1)})
