"""A bundle from a model's graphs: label bank, golden inputs and outputs, tolerances. The format itself is the SDK's."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import runtimes
from benchmarks.timing import latency
from compress.data import Label
from compress.draft import ModelFiles
from compress.export import graph_spec
from compress.graph import expose_quantized
from runtimes import Array, Session, Target, Unavailable
from sdk.bundle import Bundle, sha256_of
from sdk.golden import cosine_distance, golden_arrays, unit_rows
from sdk.manifest import BankSpec, Figure, ImageSpec, LabelSpec, Licences, Manifest, ScoreSpec, TextSpec
from sdk.resize import Frame
from sdk.text import Tokenizer
from sdk.writer import Source, npy_bytes, npz_bytes, write_bundle

# The engines that a Q/DQ or float ONNX graph of opset 17 is made for, before they are ordered by measuring.
FAMILIES = ("ov", "ort")
# The least that rounding may move an embedding, by arithmetic; what was measured here, with room, may raise it.
FLOORS = {"f32": 1e-5}
OTHER_FLOOR = {"fp32": 0.01, "int8": 0.03}
ROOM = 4.0


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle besides the model. `frames`: raw golden images, uint8 (H, W, 3); `texts`: as many."""

    name: str
    labels: tuple[Label, ...]
    templates: tuple[str, ...]
    frames: Sequence[Frame]
    texts: tuple[str, ...]
    licence: str
    provenance: Mapping[str, str]
    quality: Mapping[str, Mapping[str, Figure]]


def assemble(model: ModelFiles, contents: Contents, out: Path, *, replace: bool = False) -> Bundle:
    """Write the bundle of `model` to `out`. Needs at least one CPU engine.

    Raises Unavailable without an engine, BundleError from the writer.
    """
    targets = [t for t in runtimes.targets() if t.runtime in FAMILIES and t.device == "cpu"]
    if not targets:
        raise Unavailable("packing runs the graphs, and no engine is here; run: pip install 'edge-pupil[openvino]'")
    spec = ImageSpec(model.image.size, model.image.resize, model.image.crop, model.image.mean, model.image.std)
    tokenizer_text = model.text.tokenizer.read_text(encoding="utf-8")
    tokenizer = Tokenizer(tokenizer_text, model.text.max_length, "tokenizer.json")
    worst = worst_case(model, contents.frames, targets[0])
    arrays = golden_arrays(contents.frames, worst, contents.texts, spec, tokenizer)
    files: dict[str, Source] = {"tokenizer.json": tokenizer_text.encode()}
    graphs, tolerance = {}, {}
    for tower, variants in model.graphs.items():
        prefix = f"feed/{tower}/"
        feeds = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        graphs[tower], tolerance[tower] = {}, {}
        for variant, path in variants.items():
            outputs, order, allowed = replay_everywhere(path, variant, feeds, targets)
            arrays[f"out/{tower}/{variant}"] = outputs
            graphs[tower][variant] = graph_spec(path, variant, order)
            tolerance[tower][variant] = allowed
            files[path.name] = path
    bank, vectors = _bank(model, contents.labels, tokenizer, targets[0])
    files |= {"labels.npy": npy_bytes(vectors), "golden.npz": npz_bytes(arrays)}
    manifest = Manifest(
        name=contents.name,
        space=_space(model),
        dim=model.dim,
        licences=Licences(contents.licence, model.licences),
        tasks=("classify", "embed_images", "embed_texts"),
        graphs=graphs,
        image=spec,
        text=TextSpec(model.text.max_length, "tokenizer.json", contents.templates),
        score=ScoreSpec("softmax", model.logit_scale, 0.0),
        golden="golden.npz",
        tolerance=tolerance,
        labels=bank,
        quality=contents.quality,
        provenance=contents.provenance,
    )
    return write_bundle(out, manifest, files, replace=replace)


def replay_everywhere(
    path: Path, variant: str, feeds: Mapping[str, Array], targets: Sequence[Target]
) -> tuple[Array, tuple[str, ...], dict[str, float]]:
    """Run a graph on every target: the golden outputs, the families (fastest first) and the tolerance per arithmetic.

    The golden outputs are those of the first target in its own arithmetic for int8, in f32 for float graphs.
    """
    wanted: Array | None = None
    far: dict[str, float] = {}
    speed: dict[str, float] = {}
    for target in targets:
        for precision in ("f32", None):
            with runtimes.open_session(target, path, precision=precision) as session:
                got = _rows(session, feeds)
                wanted = got if wanted is None else wanted
                far[session.compute] = max(far.get(session.compute, 0.0), cosine_distance(got, wanted))
                if precision is None:
                    one = {name: array[:1] for name, array in feeds.items()}
                    speed[target.runtime] = latency(functools.partial(session.run, one)).value
    assert wanted is not None  # targets is never empty
    other = OTHER_FLOOR[variant]
    allowed = {compute: max(FLOORS.get(compute, other), ROOM * distance) for compute, distance in far.items()}
    return wanted, tuple(sorted(speed, key=speed.__getitem__)), {**allowed, "*": max(other, *allowed.values())}


def worst_case(model: ModelFiles, frames: Sequence[Frame], target: Target) -> Frame:
    """The frame, uint8 (S, S, 3), that fills the int8 graph's activations most, among extremes and the golden frames.

    CPUs without VNNI add pairs of u8 x s8 products in 16 bits, which overflow when activations stand near the top of
    their range: a device where that happens must fail its golden test, so the test needs such a frame.
    """
    size = model.image.size
    rng = np.random.default_rng(0)
    solid = [np.full((size, size, 3), colour, np.uint8) for colour in np.ndindex(2, 2, 2)]
    board = np.indices((size, size)).sum(axis=0) % 2
    candidates = [
        *(frame * np.uint8(255) for frame in solid),
        np.repeat((board * 255).astype(np.uint8)[:, :, None], 3, axis=2),
        rng.choice(np.array([0, 255], np.uint8), (size, size, 3)),
        *(frame for frame in frames if frame.shape == (size, size, 3)),
    ]
    path = model.graphs["image"].get("int8")
    if path is None:
        return candidates[-1]
    with tempfile.TemporaryDirectory() as folder:
        opened = onnx.load(str(path))
        steps = expose_quantized(opened)
        onnx.save(opened, str(Path(folder) / "opened.onnx"))
        with runtimes.open_session(target, Path(folder) / "opened.onnx") as session:
            filled = [_fill(session.run({"image": frame[None]}), steps) for frame in candidates]
    return candidates[int(np.argmax(filled))]


def _fill(outputs: Mapping[str, Array], steps: Mapping[str, tuple[float, int]]) -> float:
    """Mean quantised level, 0..1, over all quantised activations; `steps`: tensor -> (scale, zero point)."""
    levels = [np.clip(np.round(outputs[n] / scale) + zero, 0, 255).mean() / 255 for n, (scale, zero) in steps.items()]
    return float(np.mean(levels))


def _rows(session: Session, feeds: Mapping[str, Array]) -> Array:
    count = len(next(iter(feeds.values())))
    rows = [session.run({n: a[i : i + 1] for n, a in feeds.items()})["embedding"] for i in range(count)]
    return np.concatenate(rows)


def _bank(model: ModelFiles, labels: Sequence[Label], tokenizer: Tokenizer, target: Target) -> tuple[BankSpec, Array]:
    """Label vectors by the float text graph: mean of the prompts' unit vectors, made unit length again."""
    items, vectors = [], []
    with runtimes.open_session(target, model.graphs["text"]["fp32"], precision="f32") as session:
        for label in labels:
            tokens = tokenizer(label.prompts)
            rows = unit_rows(_rows(session, {"ids": tokens.ids, "mask": tokens.mask}))
            vectors.append(unit_rows(rows.mean(axis=0, keepdims=True))[0])
            items.append(LabelSpec(label.name, label.prompts, sum(tokens.unknown)))
    return BankSpec("fp32", "labels.npy", tuple(items)), np.stack(vectors)


def _space(model: ModelFiles) -> str:
    """Vectors of two bundles may be compared only if this is equal: a hash of both towers' trained weights."""
    digest = hashlib.sha256((sha256_of(model.image.weights) + sha256_of(model.text.weights)).encode())
    return digest.hexdigest()[:32]
