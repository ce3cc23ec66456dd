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
from typing import TYPE_CHECKING, ClassVar, Literal

from compress.data import open_dataset
from compress.draft import Draft, ModelFiles
from compress.named import check_name, names_in
from compress.quantizers import Job, quantizer
from runtimes import RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compress.data import Corpus, Split
    from runtimes import Array

    Feeds = list[dict[str, Array]]

CLEARLY = 0.9  # of another's time


@dataclass(frozen=True)
class Quantize:
    """`quantizers`: files of compress/quantizers to try. `samples`: calibration inputs per tower, from train only.
    `held_out`: validation images or questions, or phrases held out of training, on which candidates are compared.
    `distance`: mean distance from float (of cosines; of answers' probabilities) that a candidate may have to be chosen
    by speed; the nearest one needs no leave.
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
            feeds = self._feeds(tower, student, corpus, draft)
            chosen, measured = self._choose(tower, variants["fp32"], feeds, draft.folder)
            graphs[tower] = {**variants, "int8": chosen}
            metrics |= measured
        models["student"] = dataclasses.replace(student, graphs=graphs)
        draft = dataclasses.replace(draft, teacher=models["teacher"], student=models["student"])
        return draft.with_metrics("quantize", **metrics)

    def _feeds(self, tower: str, model: ModelFiles, corpus: Corpus, draft: Draft) -> tuple[Feeds, Feeds]:
        """Calibration feeds, of train images and training phrases, and comparison feeds, of val and held-out ones."""
        import numpy as np

        from compress.feeds import text_rows
        from compress.hold_out import learnt_from
        from compress.store import identity, open_store

        if tower == "image":
            known, fresh = learnt_from(corpus.train.label, draft.hold_out), np.arange(len(corpus.val.images))
            return (
                _image_feeds(model, corpus.train, known, self.samples, draft),
                _image_feeds(model, corpus.val, fresh, self.held_out, draft),
            )
        if tower == "fusion":
            return (
                _fusion_feeds(model, corpus, "train", self.samples, draft.seed),
                _fusion_feeds(model, corpus, "val", self.held_out, draft.seed),
            )
        teacher: ModelFiles = draft.need("teacher", "quantize")
        header = open_store(draft.need("store", "quantize"), identity(teacher), corpus.fingerprint).header
        asked = dict.fromkeys(question.text for question in corpus.train.questions)
        texts = np.random.default_rng(draft.seed).permutation([*header.texts[: -header.held_out], *asked])
        chosen = [str(text) for text in texts[: self.samples]]
        return text_rows(model, chosen), text_rows(model, header.texts[-header.held_out :][: self.held_out])

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
                    raise RecipeError(
                        f"{name} left float weights behind {len(left)} QuantizeLinear nodes of {tower}; leave it out "
                        "of quantize.quantizers"
                    )
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

    `measured`: name -> (mean distance, slowness). Without the margin the clock's noise would decide, and
    two runs of one recipe would ship different graphs.
    """
    nearest = min(measured, key=lambda name: measured[name][0])
    limit = CLEARLY * measured[nearest][1]
    faster = {name: slow for name, (far, slow) in measured.items() if far <= distance and slow <= limit}
    return min(faster, key=faster.__getitem__) if faster else nearest


def measure_candidates(source: Path, made: Mapping[str, Path], feeds: Feeds) -> dict[str, dict[str, float]]:
    """Per candidate: mean `distance` of its outputs from the float graph's (the worst output and engine; as in
    `sdk.golden.output_error`, a row at a time), median `ms.<target>`, and `slowness`, the geometric mean over engines
    of the median ratio of its time to the first candidate's, in turn."""
    import numpy as np

    import runtimes
    from benchmarks.timing import in_turn
    from compress.engines import cpu_targets
    from sdk.golden import output_error

    def outputs(session: runtimes.Session) -> Feeds:
        return [session.run(feed) for feed in feeds]

    def far(got: Feeds, wanted: Feeds) -> float:
        pairs = zip(got, wanted, strict=True)
        rows = [[output_error(port, one[port], two[port]) for port in two] for one, two in pairs]
        return float(np.mean(rows, axis=0).max())

    result: dict[str, dict[str, float]] = {name: {"distance": 0.0, "slowness": 0.0} for name in made}
    targets = cpu_targets()
    for target in targets:
        with contextlib.ExitStack() as stack:
            wanted = outputs(stack.enter_context(runtimes.open_session(target, source, precision="f32")))
            sessions = {n: stack.enter_context(runtimes.open_session(target, path)) for n, path in made.items()}
            calls = {name: functools.partial(session.run, feeds[0]) for name, session in sessions.items()}
            times = in_turn(calls, min_seconds=0.5 * len(calls))
            first = next(iter(times.values()))
            for name, session in sessions.items():
                result[name]["distance"] = max(result[name]["distance"], far(outputs(session), wanted))
                result[name][f"ms.{target}"] = float(np.median(times[name]))
                result[name]["slowness"] += float(np.log(np.median(times[name] / first))) / len(targets)
    for figures in result.values():
        figures["slowness"] = float(np.exp(figures["slowness"]))
    return result


def _image_feeds(model: ModelFiles, split: Split, rows: NDArray[np.int64], count: int, draft: Draft) -> Feeds:
    """`count` images of those at `rows`."""
    import numpy as np

    from compress.prepared import prepared

    frames = prepared(split.images, model.image.size, draft.out, "quantize: read")
    chosen = np.sort(np.random.default_rng(draft.seed).permutation(rows)[:count])
    return [{"image": np.array(frames[i : i + 1])} for i in chosen]


def _fusion_feeds(model: ModelFiles, corpus: Corpus, split: Literal["train", "val"], count: int, seed: int) -> Feeds:
    """Tokens that the float towers make of questions about some images; a few questions per image are enough."""
    import numpy as np

    from compress.deploy import evalset
    from compress.engines import cpu_targets
    from compress.feeds import eval_rows

    part = evalset(corpus, split)
    rng = np.random.default_rng(seed)
    asked = rng.permutation(sorted({image for image, _, _ in part.questions}))[: max(1, count // 4)]
    rows = eval_rows(model, part, [int(image) for image in np.sort(asked)], cpu_targets()[0])["fusion"]
    return [rows[i] for i in np.sort(rng.permutation(len(rows))[:count])]
