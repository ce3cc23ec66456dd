"""quantize: export both models to ONNX, and make the student's int8 graphs. Without a student it is the teacher itself
that is quantized.

Every quantizer is tried on every tower and measured on every CPU engine that is here. Which one wins is not known
beforehand: on a random network ONNX Runtime's quantizer gave the faster and nearer graph in both engines; on the
trained easy-VQA student NNCF's graph is four times nearer to float and as fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from compress.candidates import Feeds, choose, float_nodes
from compress.data import open_dataset
from compress.draft import Draft, ModelFiles
from compress.named import check_name, names_in
from compress.quantizers import Job, quantizer
from runtimes import RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compress.data import Corpus, Split
    from compress.recipe import Step

VARIANTS = ("fp16-trt", "int8-trt")
SYMMETRIC = "ort_symmetric"


@dataclass(frozen=True)
class Quantize:
    """`quantizers`: files of compress/quantizers to try. `samples`: calibration inputs per tower, from train only.
    `held_out`: validation images or questions, or phrases held out of training, on which candidates are compared.
    `distance`: mean distance from float (of cosines; of answers' probabilities) that a candidate may have to be chosen
    by speed; the nearest one needs no leave. `variants`: what is made besides, "fp16-trt" and "int8-trt".
    """

    needs: ClassVar = ("teacher",)
    makes: ClassVar = ("graphs",)

    quantizers: tuple[str, ...] = ("nncf_ptq", "ort_static")
    samples: int = 300
    held_out: int = 100
    distance: float = 0.01
    variants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.quantizers:
            check_name("compress.quantizers", name, "quantizer")
        if not self.quantizers:
            raise RecipeError(
                f"quantize.quantizers is empty; choose from: {', '.join(names_in('compress.quantizers'))}"
            )
        if self.samples < 1 or self.held_out < 1 or self.distance <= 0:
            raise RecipeError("quantize: samples and held_out must be at least 1, and distance above 0")
        if unknown := sorted({*self.variants} - {*VARIANTS}):
            raise RecipeError(f"quantize.variants has no {unknown[0]!r}; choose from: {', '.join(VARIANTS)}")

    def check(self) -> None:
        """Raises Unavailable if a quantizer's package, or every CPU engine, is missing."""
        from compress.engines import cpu_targets

        for name in (*self.quantizers, *([SYMMETRIC] if "int8-trt" in self.variants else [])):
            quantizer(name).check()
        cpu_targets()

    def check_after(self, steps: Sequence[Step]) -> None:
        """Raises RecipeError if there is no student, and the teacher would be one that was trained here to make one."""
        made = any("student" in getattr(step, "makes", ()) for step in steps)
        if not made and not any(getattr(step, "source", "") for step in steps):
            raise RecipeError(
                "[quantize] has no student: name a checkpoint that is to be quantized as it is (teach.source=...), or "
                "make a student of the teacher, by [prune] and [distill]"
            )

    def run(self, draft: Draft) -> Draft:
        """Adds the graphs of teacher (fp32) and student (fp32, int8), and what candidates measured."""
        student = teacher = _exported("teacher", draft.need("teacher", "quantize"), draft.folder)
        if draft.student is not None:
            student = _exported("student", draft.student, draft.folder)
        (draft.folder / "student").mkdir(exist_ok=True)
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        metrics: dict[str, float | str] = {}
        graphs: dict[str, Mapping[str, Path]] = {}
        for tower, variants in student.graphs.items():
            feeds = self._feeds(tower, student, corpus, draft)
            best, measured = choose(tower, variants["fp32"], feeds, self.quantizers, self.distance, draft.folder)
            more, apart = self._more(tower, variants["fp32"], feeds, draft.folder)
            int8 = best.replace(draft.folder / "student" / f"{tower}.int8.onnx")
            graphs[tower] = {**variants, "int8": int8, **more}
            metrics |= measured | apart
        student = dataclasses.replace(student, graphs=graphs)
        draft = dataclasses.replace(draft, teacher=teacher, student=student)
        return draft.with_metrics("quantize", **metrics)

    def _feeds(self, tower: str, model: ModelFiles, corpus: Corpus, draft: Draft) -> tuple[Feeds, Feeds]:
        """Calibration feeds, of train images and training phrases, and comparison feeds, of val and held-out ones."""
        import numpy as np

        from compress.feeds import text_rows
        from compress.hold_out import learnt_from

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
        sayings, others = self._texts(corpus, model, draft)
        asked = dict.fromkeys(question.text for question in corpus.train.questions)
        texts = np.random.default_rng(draft.seed).permutation([*sayings, *asked])
        chosen = [str(text) for text in texts[: self.samples]]
        return text_rows(model, chosen), text_rows(model, others[: self.held_out])

    def _texts(self, corpus: Corpus, model: ModelFiles, draft: Draft) -> tuple[Sequence[str], Sequence[str]]:
        """Texts to calibrate with, and others to compare on: those of the store, and without one the data's own and
        everyday phrases."""
        from tokenizers import Tokenizer

        from compress.phrases import phrases
        from compress.store import identity, open_store

        if draft.store is None:
            tokenizer = Tokenizer.from_file(str(model.text.tokenizer))
            return phrases(corpus, tokenizer, self.samples, self.held_out, draft.seed)
        teacher: ModelFiles = draft.need("teacher", "quantize")
        header = open_store(draft.store, identity(teacher), corpus.fingerprint).header
        return header.texts[: -header.held_out], header.texts[-header.held_out :]

    def _more(
        self, tower: str, source: Path, feeds: tuple[Feeds, Feeds], folder: Path
    ) -> tuple[dict[str, Path], dict[str, float | str]]:
        """The further `variants` of a tower, and how far each is from float."""
        from compress.progress import bar
        from compress.trt_variants import distance, make_variant

        keep, attention = float_nodes(tower, source)
        made = {variant: folder / "student" / f"{tower}.{variant}.onnx" for variant in self.variants}
        apart: dict[str, float | str] = {}
        with bar(f"quantize: {tower} for others", len(made)) as tick:
            for variant, path in made.items():
                make_variant(variant, Job(source, path, feeds[0], keep, attention))
                apart[f"{tower}.{variant}.distance"] = distance(source, path, feeds[1])
                tick(variant)
        return made, apart


def _exported(who: str, model: ModelFiles, folder: Path) -> ModelFiles:
    """The model with its fp32 graphs, in folder/who."""
    from compress.export import export_model

    (folder / who).mkdir()
    paths = export_model(model, folder / who)
    return dataclasses.replace(model, graphs={tower: {"fp32": path} for tower, path in paths.items()})


def _image_feeds(model: ModelFiles, split: Split, rows: NDArray[np.int64], count: int, draft: Draft) -> Feeds:
    """`count` images of those at `rows`."""
    import numpy as np

    from compress.prepared import prepared

    spec = model.image
    frames = prepared(split.images, spec.size, draft.out, "quantize: read", spec.resize, spec.crop)
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
