"""A bundle from a model's graphs: label bank, golden inputs and outputs, tolerances. The format itself is the SDK's."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import runtimes
from benchmarks.timing import in_turn
from compress.data import Label
from compress.draft import ModelFiles
from compress.engines import cpu_targets, parse_variant
from compress.export import graph_spec
from compress.golden_samples import ROOM, Contents, gaps, golden_questions, golden_samples, run_rows, worst_case
from runtimes import Array, GateFailed, Target, Unavailable
from sdk.bundle import Bundle, sha256_of
from sdk.golden import golden_arrays, output_error, unit_rows
from sdk.manifest import BankSpec, FusionSpec, GraphSpec, ImageSpec, LabelSpec, Licences, Manifest, ScoreSpec, TextSpec
from sdk.text import Tokenizer
from sdk.writer import Source, npy_bytes, npz_bytes, write_bundle

# The least that rounding may move an embedding (cosine distance): float graphs in f32; anything else, since bf16 and
# engines that are not here round more. What was measured here, with room, may raise it.
FLOOR_F32 = 1e-5
FLOOR_OTHER = 0.005
# An engine's place among the families is its measured time only if that differs by more than noise.
CLEARLY = 1.1


def assemble(model: ModelFiles, contents: Contents, out: Path, tolerate: Tolerate | None = None) -> Bundle:
    """Write the bundle of `model` to `out`, which must not exist. Needs at least one CPU engine. `tolerate`: what says
    how far engines may be from golden, `tolerances` by default.

    Raises Unavailable without an engine, GateFailed when engines disagree too much, BundleError from the writer.
    """
    targets = cpu_targets()
    spec = ImageSpec(model.image.size, model.image.resize, model.image.crop, model.image.mean, model.image.std)
    tokenizer_text = model.text.tokenizer.read_text(encoding="utf-8")
    tokenizer = Tokenizer(tokenizer_text, model.text.max_length, "tokenizer.json")
    frames, texts = golden_samples(model, contents, tokenizer, targets)
    arrays = golden_arrays(frames, worst_case(model, targets), texts, spec, tokenizer)
    if model.fusion is not None:
        arrays |= golden_questions(model, arrays["feed/image/image"][:-1], tokenizer(contents.questions), targets[0])
    graphs, tolerance = _prove(model, contents.name, arrays, targets, tolerate or tolerances)
    bank, vectors = _bank(model, contents.labels, tokenizer, targets[0])
    files: dict[str, Source] = {path.name: path for variants in model.graphs.values() for path in variants.values()}
    files |= {"tokenizer.json": tokenizer_text.encode(), "labels.npy": npy_bytes(vectors)}
    files["golden.npz"] = npz_bytes(arrays)
    top = model.fusion
    asks = FusionSpec(top.width, top.image_tokens, top.answers) if top is not None else None
    manifest = Manifest(
        name=contents.name,
        space=_space(model),
        dim=model.dim,
        licences=Licences(contents.licence, model.licences),
        tasks=("classify", "embed_images", "embed_texts", "search", *(["ask"] if asks else [])),
        graphs=graphs,
        image=spec,
        text=TextSpec(model.text.max_length, "tokenizer.json", contents.templates),
        fusion=asks,
        score=ScoreSpec(model.score, model.logit_scale, model.logit_bias),
        golden="golden.npz",
        tolerance=tolerance,
        labels=bank,
        provenance={**contents.provenance, "golden_by": str(targets[0])},
    )
    return write_bundle(out, manifest, files)


@dataclass(frozen=True)
class Replayed:
    """What engines made of one graph. `outputs`: port -> float32 (N, ...), the golden ones: the first target's, float
    layers in f32. `distance`: compute -> largest error against them. `milliseconds`: runtime -> one row, as by default.
    """

    outputs: Mapping[str, Array]
    distance: Mapping[str, float]
    milliseconds: Mapping[str, float]


Tolerate = Callable[[str, Replayed, Mapping[str, Array]], dict[str, float]]


def _prove(
    model: ModelFiles, name: str, arrays: dict[str, Array], targets: Sequence[Target], tolerate: Tolerate
) -> tuple[dict[str, dict[str, GraphSpec]], dict[str, dict[str, dict[str, float]]]]:
    """Graphs and tolerances by tower and variant; what the graphs make of the golden feeds is added to `arrays`."""
    graphs: dict[str, dict[str, GraphSpec]] = {}
    tolerance: dict[str, dict[str, dict[str, float]]] = {}
    for tower, variants in model.graphs.items():
        prefix = f"feed/{tower}/"
        feeds = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        graphs[tower], tolerance[tower] = {}, {}
        for variant, path in variants.items():
            stored, families = parse_variant(variant)
            # What is made for an engine that is not here proves itself on those that are.
            able = [t for t in targets if t.runtime in families] or targets
            replayed = replay_everywhere(path, feeds, able)
            arrays |= {f"out/{tower}/{variant}/{port}": array for port, array in replayed.outputs.items()}
            graphs[tower][variant] = graph_spec(path, stored, order_families(families, replayed.milliseconds))
            tolerance[tower][variant] = tolerate(f"{name}'s {tower} {variant}", replayed, feeds)
    return graphs, tolerance


def replay_everywhere(path: Path, feeds: Mapping[str, Array], targets: Sequence[Target]) -> Replayed:
    """Run a graph on every target, in f32 and in the engine's default arithmetic, row by row."""
    outputs: dict[str, Array] = {}
    distance: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        defaults = {}
        for target in targets:
            for precision in ("f32", None):
                session = stack.enter_context(runtimes.open_session(target, path, precision=precision))
                got = run_rows(session, feeds)
                outputs = outputs or got
                moved = max(output_error(port, array, outputs[port]) for port, array in got.items())
                distance[session.compute] = max(distance.get(session.compute, 0.0), moved)
                if precision is None:
                    defaults[target.runtime] = session
        one = {name: array[:1] for name, array in feeds.items()}
        calls = {runtime: functools.partial(session.run, one) for runtime, session in defaults.items()}
        times = in_turn(calls, min_seconds=0.3, min_runs=30)
    if not outputs:
        raise Unavailable(f"no engine here opens {path.name}, so it has no golden outputs")
    return Replayed(outputs, distance, {runtime: float(np.median(t)) for runtime, t in times.items()})


def order_families(families: tuple[str, ...], milliseconds: Mapping[str, float]) -> tuple[str, ...]:
    """Families, fastest first where the difference is clear; those that could not be measured keep their place last."""
    best = min((milliseconds[f] for f in families if f in milliseconds), default=0.0)
    return tuple(sorted(families, key=lambda f: (milliseconds.get(f, np.inf) > CLEARLY * best, families.index(f))))


def tolerances(what: str, replayed: Replayed, feeds: Mapping[str, Array]) -> dict[str, float]:
    """Per arithmetic the error that passes, and "*" for arithmetic that was not seen here.

    What was measured, with room; never more than half of what tells two golden samples, or two answers, apart, or a
    device could answer one for the other. Raises GateFailed when engines are further apart than that.
    """
    cap = separation(replayed.outputs, feeds) / 2
    worst = max(replayed.distance.values())
    if not np.isfinite(worst):
        raise GateFailed(f"{what} gives a golden sample a zero or non-finite output; train it longer, or prune it less")
    if worst > cap:
        raise GateFailed(
            f"engines disagree on {what} by {worst:.2g}, more than half of what tells golden samples apart "
            f"({cap:.2g}); look at the quantize step's figures, or leave the variant out"
        )
    found = {}
    for compute, distance in replayed.distance.items():
        found[compute] = min(cap, max(FLOOR_F32 if compute == "f32" else FLOOR_OTHER, ROOM * distance))
    return {**found, "*": min(cap, max(FLOOR_OTHER, ROOM * worst))}


def separation(outputs: Mapping[str, Array], feeds: Mapping[str, Array]) -> float:
    """What tells golden samples apart: the smallest cosine distance between embeddings (N, D) whose feeds differ, 2
    when there is only one; of logits (N, answers) the smallest lead of the best answer.
    """
    if "logits" in outputs:
        return float(gaps(outputs["logits"]).min())
    rows = unit_rows(outputs["embedding"]).astype(np.float64)
    far = 1 - rows @ rows.T
    flat = np.concatenate([array.reshape(len(array), -1).astype(np.int64) for array in feeds.values()], axis=1)
    same = (flat[:, None, :] == flat[None, :, :]).all(axis=2)
    return float(np.where(same, 2.0, far).min())


def _bank(model: ModelFiles, labels: Sequence[Label], tokenizer: Tokenizer, target: Target) -> tuple[BankSpec, Array]:
    """Label vectors by the float text graph: mean of the prompts' unit vectors, made unit length again."""
    items, vectors = [], []
    with runtimes.open_session(target, model.graphs["text"]["fp32"], precision="f32") as session:
        for label in labels:
            tokens = tokenizer(label.prompts)
            rows = unit_rows(run_rows(session, {"ids": tokens.ids, "mask": tokens.mask})["embedding"])
            vectors.append(unit_rows(rows.mean(axis=0, keepdims=True))[0])
            items.append(LabelSpec(label.name, label.prompts, sum(tokens.unknown), label.group, label.text))
    return BankSpec("fp32", "labels.npy", tuple(items)), np.stack(vectors)


def _space(model: ModelFiles) -> str:
    """Vectors of two bundles may be compared only if this is equal: a hash of both towers' trained weights."""
    digest = hashlib.sha256((sha256_of(model.image.weights) + sha256_of(model.text.weights)).encode())
    return digest.hexdigest()[:32]
