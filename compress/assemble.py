"""A bundle from a model's graphs: label bank, golden inputs and outputs, tolerances. The format itself is the SDK's."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import runtimes
from benchmarks.timing import in_turn
from compress.data import Label
from compress.draft import ModelFiles
from compress.engines import cpu_targets, parse_variant
from compress.export import graph_spec
from compress.saturation import saturation_damage
from runtimes import Array, GateFailed, Session, Target, Unavailable
from sdk.bundle import Bundle, sha256_of
from sdk.golden import cosine_distance, golden_arrays, unit_rows
from sdk.manifest import BankSpec, GraphSpec, ImageSpec, LabelSpec, Licences, Manifest, ScoreSpec, TextSpec
from sdk.resize import Frame
from sdk.text import Tokenizer
from sdk.writer import Source, npy_bytes, npz_bytes, write_bundle

# The least that rounding may move an embedding (cosine distance): float graphs in f32; anything else, since bf16 and
# engines that are not here round more. What was measured here, with room, may raise it.
FLOOR_F32 = 1e-5
FLOOR_OTHER = 0.005
ROOM = 4.0
# An engine's place among the families is its measured time only if that differs by more than noise.
CLEARLY = 1.1


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


def assemble(model: ModelFiles, contents: Contents, out: Path) -> Bundle:
    """Write the bundle of `model` to `out`, which must not exist. Needs at least one CPU engine.

    Raises Unavailable without an engine, GateFailed when engines disagree too much, BundleError from the writer.
    """
    targets = cpu_targets()
    spec = ImageSpec(model.image.size, model.image.resize, model.image.crop, model.image.mean, model.image.std)
    tokenizer_text = model.text.tokenizer.read_text(encoding="utf-8")
    tokenizer = Tokenizer(tokenizer_text, model.text.max_length, "tokenizer.json")
    worst = worst_case(model)
    arrays = golden_arrays(contents.frames, worst, contents.texts, spec, tokenizer)
    files: dict[str, Source] = {"tokenizer.json": tokenizer_text.encode()}
    graphs: dict[str, dict[str, GraphSpec]] = {}
    tolerance: dict[str, dict[str, dict[str, float]]] = {}
    for tower, variants in model.graphs.items():
        prefix = f"feed/{tower}/"
        feeds = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        graphs[tower], tolerance[tower] = {}, {}
        for variant, path in variants.items():
            stored, families = parse_variant(variant)
            replayed = replay_everywhere(path, feeds, [t for t in targets if t.runtime in families])
            arrays[f"out/{tower}/{variant}"] = replayed.outputs
            graphs[tower][variant] = graph_spec(path, stored, order_families(families, replayed.milliseconds))
            tolerance[tower][variant] = tolerances(f"{tower} {variant}", replayed, feeds)
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
        provenance={**contents.provenance, "golden_by": str(targets[0])},
    )
    return write_bundle(out, manifest, files)


@dataclass(frozen=True)
class Replayed:
    """What engines made of one graph. `outputs`: float32 (N, D), the golden ones: the first target's, float layers in
    f32. `distance`: compute -> largest cosine distance from them. `milliseconds`: runtime -> one row, as by default.
    """

    outputs: Array
    distance: Mapping[str, float]
    milliseconds: Mapping[str, float]


def replay_everywhere(path: Path, feeds: Mapping[str, Array], targets: Sequence[Target]) -> Replayed:
    """Run a graph on every target, in f32 and in the engine's default arithmetic, row by row."""
    outputs: Array | None = None
    distance: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        defaults = {}
        for target in targets:
            for precision in ("f32", None):
                session = stack.enter_context(runtimes.open_session(target, path, precision=precision))
                got = _rows(session, feeds)
                outputs = got if outputs is None else outputs
                moved = cosine_distance(got, outputs)
                distance[session.compute] = max(distance.get(session.compute, 0.0), moved)
                if precision is None:
                    defaults[target.runtime] = session
        one = {name: array[:1] for name, array in feeds.items()}
        calls = {runtime: functools.partial(session.run, one) for runtime, session in defaults.items()}
        times = in_turn(calls, min_seconds=0.3, min_runs=30)
    if outputs is None:
        raise Unavailable(f"no engine here opens {path.name}, so it has no golden outputs")
    return Replayed(outputs, distance, {runtime: float(np.median(t)) for runtime, t in times.items()})


def order_families(families: tuple[str, ...], milliseconds: Mapping[str, float]) -> tuple[str, ...]:
    """Families, fastest first where the difference is clear; those that could not be measured keep their place last."""
    best = min(milliseconds.values())
    return tuple(sorted(families, key=lambda f: (milliseconds.get(f, np.inf) > CLEARLY * best, families.index(f))))


def tolerances(what: str, replayed: Replayed, feeds: Mapping[str, Array]) -> dict[str, float]:
    """Per arithmetic the cosine distance from golden that passes, and "*" for arithmetic that was not seen here.

    What was measured, with room; never more than half the distance between two golden samples, or a device could
    answer one for the other. Raises GateFailed when engines are further apart than that.
    """
    cap = separation(replayed.outputs, feeds) / 2
    worst = max(replayed.distance.values())
    if worst > cap:
        raise GateFailed(
            f"engines disagree on {what} by {worst:.2g}, more than half the distance between two golden samples "
            f"({cap:.2g}); look at the quantize step's figures, or leave the variant out"
        )
    found = {}
    for compute, distance in replayed.distance.items():
        found[compute] = min(cap, max(FLOOR_F32 if compute == "f32" else FLOOR_OTHER, ROOM * distance))
    return {**found, "*": min(cap, max(FLOOR_OTHER, ROOM * worst))}


def separation(outputs: Array, feeds: Mapping[str, Array]) -> float:
    """The smallest cosine distance between rows (N, D) whose feeds differ; 2 when there is only one row."""
    rows = unit_rows(outputs).astype(np.float64)
    far = 1 - rows @ rows.T
    flat = np.concatenate([array.reshape(len(array), -1).astype(np.int64) for array in feeds.values()], axis=1)
    same = (flat[:, None, :] == flat[None, :, :]).all(axis=2)
    return float(np.where(same, 2.0, far).min())


def worst_case(model: ModelFiles) -> Frame:
    """The frame, uint8 (S, S, 3), among extremes on which saturating int8 arithmetic does the most damage."""
    size = model.image.size
    corners = [np.array(corner, np.uint8) * np.uint8(255) for corner in np.ndindex(2, 2, 2)]
    board = np.indices((size, size)).sum(axis=0) % 2 * 255
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (size, size, 3))
    frames = [np.full((size, size, 3), corner, np.uint8) for corner in corners]
    frames += [np.repeat(board.astype(np.uint8)[:, :, None], 3, axis=2), noise]
    int8 = [path for name, path in model.graphs["image"].items() if parse_variant(name)[0] == "int8"]
    if not int8:
        return frames[-1]  # a float graph does not saturate: any extreme will do
    return frames[int(np.argmax(saturation_damage(int8[0], frames)))]


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
