"""quantize: export both models to ONNX, and make the student's int8 graphs.

Every quantizer is tried on every tower and measured on every CPU engine that is here. Which one wins is not known
beforehand: on a random network ONNX Runtime's quantizer gave the faster and nearer graph in both engines; on the
trained easy-VQA student NNCF's graph is four times nearer to float and as fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.data import open_dataset
from compress.draft import Draft, ModelFiles
from compress.named import check_name, names_in
from compress.quantizers import Job, quantizer
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.data import Corpus
    from runtimes import Array

    Feeds = list[dict[str, Array]]

CLEARLY = 0.9  # of another's time


@dataclass(frozen=True)
class Quantize:
    """`quantizers`: files of compress/quantizers to try. `samples`: calibration inputs per tower, from train only.
    `held_out`: validation images, or phrases held out of training, on which candidates are compared. `distance`: mean
    cosine distance from float that a candidate may have to be chosen by speed; the nearest one needs no leave.
    """

    needs: ClassVar = ("teacher", "student", "store")
    makes: ClassVar = ("graphs",)

    quantizers: tuple[str, ...] = ("nncf_ptq", "ort_static")
    samples: int = 300
    held_out: int = 100
    distance: float = 0.01

    def __post_init__(self) -> None:
        for name in self.quantizers:
            check_name("compress.quantizers", name, "quantizer")
        if not self.quantizers:
            raise RecipeError(
                f"quantize.quantizers is empty; choose from: {', '.join(names_in('compress.quantizers'))}"
            )
        if self.samples < 1 or self.held_out < 1 or self.distance <= 0:
            raise RecipeError("quantize: samples and held_out must be at least 1, and distance above 0")

    def check(self) -> None:
        """Raises Unavailable if a quantizer's package, or every CPU engine, is missing."""
        from compress.engines import cpu_targets

        for name in self.quantizers:
            quantizer(name).check()
        cpu_targets()

    def run(self, draft: Draft) -> Draft:
        """Adds the graphs of teacher (fp32) and student (fp32, int8), and what candidates measured."""
        from compress.export import export_model

        models: dict[str, ModelFiles] = {}
        for who in ("teacher", "student"):
            model: ModelFiles = draft.need(who, "quantize")
            (draft.folder / who).mkdir()
            paths = export_model(model, draft.folder / who)
            models[who] = dataclasses.replace(model, graphs={tower: {"fp32": path} for tower, path in paths.items()})
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        student = models["student"]
        metrics: dict[str, float | str] = {}
        graphs: dict[str, Mapping[str, Path]] = {}
        for tower, variants in student.graphs.items():
            feeds = _feeds(tower, student, corpus, draft, self.samples, self.held_out)
            chosen, measured = self._choose(tower, variants["fp32"], feeds, draft.folder)
            graphs[tower] = {**variants, "int8": chosen}
            metrics |= measured
        models["student"] = dataclasses.replace(student, graphs=graphs)
        draft = dataclasses.replace(draft, teacher=models["teacher"], student=models["student"])
        return draft.with_metrics("quantize", **metrics)

    def _choose(
        self, tower: str, source: Path, feeds: tuple[Feeds, Feeds], folder: Path
    ) -> tuple[Path, dict[str, float | str]]:
        """Make every candidate, measure all, keep one; and what was measured."""
        import onnx

        from compress.export import save_graph
        from compress.graph import float_prefix, float_weight_quantizers, quantize_embeddings
        from compress.progress import bar

        model = onnx.load(str(source))
        attention = any(node.op_type == "Softmax" for node in model.graph.node)
        # Lookup tables are ours to quantise, so that no engine unpacks a whole table for a few rows.
        keep = (
            float_prefix(model)
            if tower == "image"
            else tuple(n.name for n in model.graph.node if n.op_type == "Gather")
        )
        made: dict[str, Path] = {}
        with bar(f"quantize: {tower}", len(self.quantizers)) as tick:
            for name in self.quantizers:
                made[name] = folder / f"{tower}.{name}.onnx"
                quantizer(name).quantize(Job(source, made[name], feeds[0], keep, attention))
                candidate = onnx.load(str(made[name]))
                quantize_embeddings(candidate)
                left = float_weight_quantizers(candidate)
                if left:
                    raise RecipeError(f"{name} left float weights behind {len(left)} QuantizeLinear nodes of {tower}")
                save_graph(candidate, made[name])
                tick(name)
        measured = measure_candidates(source, made, feeds[1])
        best = pick({name: (m["distance"], m["slowness"]) for name, m in measured.items()}, self.distance)
        chosen = folder / "student" / f"{tower}.int8.onnx"
        made[best].replace(chosen)
        for name, path in made.items():
            if name != best:
                path.unlink()
        metrics: dict[str, float | str] = {f"{tower}.chosen": best}
        for name, figures in measured.items():
            metrics |= {f"{tower}.{name}.{key}": value for key, value in figures.items()}
        return chosen, metrics


def pick(measured: Mapping[str, tuple[float, float]], distance: float) -> str:
    """The candidate nearest to float, unless another within `distance` is clearly faster (by a tenth).

    `measured`: name -> (mean cosine distance, slowness). Without the margin the clock's noise would decide, and
    two runs of one recipe would ship different graphs.
    """
    nearest = min(measured, key=lambda name: measured[name][0])
    limit = CLEARLY * measured[nearest][1]
    faster = {name: slow for name, (far, slow) in measured.items() if far <= distance and slow <= limit}
    return min(faster, key=faster.__getitem__) if faster else nearest


def measure_candidates(source: Path, made: Mapping[str, Path], feeds: Feeds) -> dict[str, dict[str, float]]:
    """Per candidate: mean cosine `distance` from the float graph (the worst engine's), median `ms.<target>`, and
    `slowness`, the geometric mean over engines of the median ratio of its time to the first candidate's, in turn."""
    import numpy as np

    import runtimes
    from benchmarks.timing import in_turn
    from compress.engines import cpu_targets
    from sdk.golden import unit_rows

    def embed(session: runtimes.Session) -> Array:
        return unit_rows(np.concatenate([session.run(feed)["embedding"] for feed in feeds]))

    result: dict[str, dict[str, float]] = {name: {"distance": 0.0, "slowness": 0.0} for name in made}
    targets = cpu_targets()
    for target in targets:
        with contextlib.ExitStack() as stack:
            wanted = embed(stack.enter_context(runtimes.open_session(target, source, precision="f32")))
            sessions = {n: stack.enter_context(runtimes.open_session(target, path)) for n, path in made.items()}
            calls = {name: functools.partial(session.run, feeds[0]) for name, session in sessions.items()}
            times = in_turn(calls, min_seconds=0.5 * len(calls))
            first = next(iter(times.values()))
            for name, session in sessions.items():
                far = float(np.mean(1 - np.einsum("nd,nd->n", embed(session), wanted)))
                result[name]["distance"] = max(result[name]["distance"], far)
                result[name][f"ms.{target}"] = float(np.median(times[name]))
                result[name]["slowness"] += float(np.log(np.median(times[name] / first))) / len(targets)
    for figures in result.values():
        figures["slowness"] = float(np.exp(figures["slowness"]))
    return result


def _feeds(
    tower: str, model: ModelFiles, corpus: Corpus, draft: Draft, samples: int, held_out: int
) -> tuple[Feeds, Feeds]:
    """Calibration feeds (train images, training phrases) and comparison feeds (val images, held-out phrases)."""
    import numpy as np

    rng = np.random.default_rng(draft.seed)
    if tower == "image":
        from compress.prepared import prepared

        found = []
        for split, count in ((corpus.train, samples), (corpus.val, held_out)):
            frames = prepared(split.images, model.image.size, draft.out, "quantize: read")
            chosen = np.sort(rng.permutation(len(frames))[:count])
            found.append([{"image": np.array(frames[i : i + 1])} for i in chosen])
        return found[0], found[1]
    from compress.store import hash_files, open_store
    from sdk.text import Tokenizer

    teacher: ModelFiles = draft.need("teacher", "quantize")
    identity = hash_files(teacher.image.weights, teacher.text.weights)
    header = open_store(draft.need("store", "quantize"), identity, corpus.fingerprint).header
    known = [str(text) for text in rng.permutation(header.texts[: -header.held_out])[:samples]]
    fresh = list(header.texts[-header.held_out :])[:held_out]
    tokenizer = Tokenizer(model.text.tokenizer.read_text(encoding="utf-8"), model.text.max_length, "tokenizer.json")
    tokens = tokenizer([*known, *fresh])
    rows = [{"ids": tokens.ids[i : i + 1], "mask": tokens.mask[i : i + 1]} for i in range(len(tokens.ids))]
    return rows[: len(known)], rows[len(known) :]
