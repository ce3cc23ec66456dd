"""Replaying the answers a bundle carries: does this engine, on this device, compute what the maker's did?

golden.npz holds per tower the prepared feeds (`feed/image/image`; `feed/text/ids`, `feed/text/mask`; what fusion takes)
and per variant the raw outputs (`out/<tower>/<variant>/<port>`), the last image row being a worst case that saturates
int8 arithmetic on CPUs without VNNI. A variant is compared with its own outputs, like with like; what int8 loses
against fp32 is the gate's business, not the device's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import runtimes
from runtimes import Array, BundleError, PupilError, Session, Target
from sdk.bundle import Bundle
from sdk.manifest import ImageSpec
from sdk.resize import Frame, prepare

if TYPE_CHECKING:
    from sdk.text import Tokenizer


@dataclass(frozen=True)
class Verdict:
    """One line of `verify`. `error` and `tolerance` are as `output_error` says, or counts for feeds."""

    subject: str
    target: str
    compute: str
    error: float
    tolerance: float
    passed: bool
    note: str = ""


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2-normalise float rows (N, D) to float32 unit norm. A zero or non-finite row stays as it is: callers look."""
    wide = rows.astype(np.float32, copy=False)
    norm = np.sqrt(np.einsum("nd,nd->n", wide, wide, dtype=np.float64))
    norm[norm == 0] = 1
    return np.asarray(wide / norm[:, None], np.float32)


def cosine_distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Largest 1 - cosine between rows of two (N, D) arrays; infinite where a row is zero or not finite."""
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    a, b = unit_rows(one).astype(np.float64), unit_rows(other).astype(np.float64)
    cosine = np.einsum("nd,nd->n", a, b)
    cosine[(~a.any(axis=1)) | (~b.any(axis=1))] = -np.inf
    return float(np.max(1 - cosine, initial=0.0))


def softmax(logits: Array) -> NDArray[np.float64]:
    """Logits (N, A) to probabilities over A, float64 (N, A). Rows must be finite."""
    wide = logits.astype(np.float64, copy=False)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def output_error(port: str, got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """How far an output (N, ...) is from what it should be, the worst row counts; infinite where one is not finite.

    `logits` (N, A): the largest absolute difference of a softmax probability, 0..1. Other ports (`embedding`,
    `tokens`): the largest cosine distance of a row, 0..2, tokens laid end to end.
    """
    if port != "logits":
        return cosine_distance(got.reshape(len(got), -1), wanted.reshape(len(wanted), -1))
    if got.shape != wanted.shape or not (np.isfinite(got).all() and np.isfinite(wanted).all()):
        return float("inf")
    return float(np.abs(softmax(got) - softmax(wanted)).max(initial=0.0))


def golden_arrays(
    frames: Sequence[Frame],
    worst: Frame,
    texts: Sequence[str],
    spec: ImageSpec,
    tokenizer: Tokenizer | None,
) -> dict[str, Array]:
    """The input half of golden.npz: raw frames (uint8 (H, W, 3), any size), texts, and the feeds made from both.

    A frame of the model's size is its feed, and not stored twice. `worst` is uint8 (S, S, 3), already at the model's
    size; it becomes the last image row. Without a tokenizer the texts are left out. The feeds of the fusion tower, and
    the output half, `out/<tower>/<variant>/<port>`, are added by whoever ran the graphs.
    """
    square = (spec.size, spec.size)
    arrays: dict[str, Array] = {f"raw/{i}": frame for i, frame in enumerate(frames) if frame.shape[:2] != square}
    rows = [prepare(frame, spec.size, spec.resize, spec.crop) for frame in frames]
    arrays["feed/image/image"] = np.stack([*rows, worst])
    if tokenizer is not None:
        tokens = tokenizer(texts)
        arrays |= {"texts": np.array(texts), "feed/text/ids": tokens.ids, "feed/text/mask": tokens.mask}
    return arrays


def replay(session: Session, bundle: Bundle, tower: str, variant: str, *, quick: bool = False) -> tuple[float, float]:
    """Run golden feeds one by one through an open session. Returns (largest error of any output, tolerance).

    `quick` takes the first two rows and the worst case only: enough to catch a wrong engine while loading.
    Raises BundleError when golden.npz lacks what it needs, PupilErrors of the session.
    """
    feeds, wanted = _rows(bundle, tower, variant)
    count = len(next(iter(feeds.values())))
    rows = [0, 1, count - 1] if quick and count > 3 else list(range(count))
    got = [session.run({name: feed[i : i + 1] for name, feed in feeds.items()}) for i in rows]
    errors = [
        output_error(port, np.concatenate([outputs[port] for outputs in got]), array[rows])
        for port, array in wanted.items()
    ]
    return max(errors), tolerance_of(bundle, tower, variant, session.compute)


def golden_feeds(bundle: Bundle, tower: str, variant: str) -> list[dict[str, Array]]:
    """The golden feeds of a tower, a row each, as its session takes them. Raises BundleError."""
    feeds, _ = _rows(bundle, tower, variant)
    count = len(next(iter(feeds.values())))
    return [{name: feed[i : i + 1] for name, feed in feeds.items()} for i in range(count)]


def tolerance_of(bundle: Bundle, tower: str, variant: str, compute: str) -> float:
    """The largest error that passes for a variant computed in `compute`. Raises BundleError if not stated."""
    by_compute = bundle.manifest.tolerance.get(tower, {}).get(variant, {})
    found = by_compute.get(compute, by_compute.get("*"))
    if found is None:
        raise BundleError(f"{bundle.path} states no tolerance for {tower} {variant} in {compute}")
    return found


def verify(bundle: Bundle) -> list[Verdict]:
    """Replay all of golden.npz on every target that opens, and the feeds in this SDK. Raises BundleError."""
    verdicts = [*_verify_feeds(bundle)]
    for target in runtimes.targets():
        for tower, variants in bundle.manifest.graphs.items():
            for variant, graph in variants.items():
                if target.runtime in graph.families:
                    verdicts.append(_verify_on(bundle, tower, variant, target))
    return verdicts


def _verify_on(bundle: Bundle, tower: str, variant: str, target: Target) -> Verdict:
    subject = f"{tower} {variant}"
    try:
        with runtimes.open_session(target, bundle.file(bundle.graph(tower, variant).file)) as session:
            error, tolerance = replay(session, bundle, tower, variant)
            return Verdict(subject, str(target), session.compute, error, tolerance, error <= tolerance)
    except BundleError:
        raise
    except PupilError as failure:
        return Verdict(subject, str(target), "-", float("inf"), 0.0, False, str(failure))


def _verify_feeds(bundle: Bundle) -> list[Verdict]:
    """Resizing may differ by 1 in a value (FORMAT.md); token ids must be equal."""
    golden, spec = bundle.golden, bundle.manifest.image
    verdicts = []
    try:
        feed = golden["feed/image/image"][:-1]
        rows = [index for index in range(len(feed)) if f"raw/{index}" in golden]
        made = [prepare(golden[f"raw/{index}"], spec.size, spec.resize, spec.crop) for index in rows]
        worst = int(np.abs(np.stack(made).astype(int) - feed[rows]).max())
        verdicts.append(Verdict("frames", "sdk", spec.resize, worst, 1, worst <= 1))
        if bundle.manifest.text is not None:
            from sdk.text import Tokenizer

            tokens = Tokenizer.of(bundle)([str(text) for text in golden["texts"]])
            wrong = int((tokens.ids != golden["feed/text/ids"]).sum() + (tokens.mask != golden["feed/text/mask"]).sum())
            verdicts.append(Verdict("tokens", "sdk", "exact", wrong, 0, wrong == 0))
    except (LookupError, TypeError, ValueError) as error:  # ValueError: FeedError, arrays that do not fit each other
        raise BundleError(f"{bundle.path}: golden.npz lacks the raw frames and texts of its feeds: {error}") from error
    return verdicts


def _rows(bundle: Bundle, tower: str, variant: str) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """The feeds by input and the wanted outputs by port, of the dtypes and shapes that the graph states."""
    golden, graph = bundle.golden, bundle.graph(tower, variant)
    feeds = {name: f"feed/{tower}/{name}" for name in graph.inputs}
    outputs = {name: f"out/{tower}/{variant}/{name}" for name in graph.outputs}
    ports = {feeds[name]: port for name, port in graph.inputs.items()}
    ports |= {outputs[name]: port for name, port in graph.outputs.items()}
    missing = sorted(ports.keys() - golden.keys())
    if missing:
        raise BundleError(f"{bundle.path}: golden.npz lacks {missing[0]!r}, so {tower} {variant} cannot prove itself")
    count = golden[next(iter(ports))].shape[:1]
    for name, port in ports.items():
        array = golden[name]
        if array.dtype.name != port.dtype or array.shape != (*count, *port.shape[1:]) or 0 in count:
            raise BundleError(
                f"{bundle.path}: {name!r} in golden.npz must be {port.dtype} {(*count, *port.shape[1:])} of one row "
                f"at least, but is {array.dtype} {array.shape}"
            )
    return {name: golden[key] for name, key in feeds.items()}, {name: golden[key] for name, key in outputs.items()}
