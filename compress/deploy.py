"""What gate and pack share: a corpus as evaluation sets, and what a run's bundles carry besides the model."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.evalset import EvalSet
from benchmarks.timing import versions
from compress.data import Corpus, Split
from compress.draft import Draft, ModelFiles
from compress.golden_samples import Contents
from compress.licence import package_licence
from compress.steps import package_version
from sdk.frames import prepare, read_frame
from sdk.resize import least_side

# Not captions of any data set here: an edited label bank will hold phrases like these.
GOLDEN_PHRASES = ("a purple submarine", "seven wooden chairs", "zebra crossing", "an unreadable qwxzy")
# From which golden samples are chosen: so many times more images than are wanted, and so many questions.
POOL = 4
QUESTIONS = 32
MADE_WITH = ("torch", "nncf", "onnx", "onnxruntime", "openvino")


def evalset(corpus: Corpus, split: Literal["train", "val", "test"]) -> EvalSet:
    """A split of a corpus as an evaluation set, images where the data set keeps them."""
    part: Split = getattr(corpus, split)
    return EvalSet(
        name=corpus.name,
        split=split,
        labels=tuple(label.name for label in corpus.labels),
        prompts={label.name: label.prompts for label in corpus.labels},
        images=part.images,
        label=part.label,
        possible=part.possible,
        questions=tuple((q.image, q.text, q.answer) for q in part.questions),
        groups=tuple(label.group for label in corpus.labels),
        texts=tuple(label.text for label in corpus.labels),
    )


def contents(draft: Draft, corpus: Corpus, who: str, golden: int) -> Contents:
    """Label bank, golden samples (validation images and phrases) and provenance of the run's `who` bundle."""
    rng = np.random.default_rng(draft.seed)
    model: ModelFiles = draft.need(who, "gate")
    size = model.image.size
    paths = [corpus.val.images[i] for i in _spread(corpus.val.label, POOL * golden, rng)]
    # Golden frames are made of no more pixels than the model's; whole photos would be gigabytes.
    frames = [prepare(read_frame(path, least=least_side(size)), size) for path in paths]
    prompts = [label.prompts[0] for label in corpus.labels]
    texts = [*GOLDEN_PHRASES, *(prompts[i] for i in rng.permutation(len(prompts)))]
    return Contents(
        name=f"{corpus.name}-{who}",
        labels=corpus.labels,
        templates=corpus.templates,
        golden=golden,
        frames=frames,
        texts=tuple(texts),
        questions=tuple(rng.permutation(sorted({q.text for q in corpus.val.questions}))[:QUESTIONS].tolist()),
        licence=package_licence(model.restricted),
        provenance={
            "made_by": f"edge-pupil {package_version()}",
            "data": f"{corpus.name} {corpus.fingerprint[:16]}",
            "data_licence": corpus.licence,
            "seed": str(draft.seed),
            **{name: str(value) for name, value in draft.metrics.items() if name.endswith(".chosen")},
            **{f"version.{name}": found for name, found in versions(*MADE_WITH).items()},
        },
    )


def _spread(label: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` positions of as many classes as there are, since golden samples must be told apart.

    `label`: int64 (N,), -1 where unknown; those come last.
    """
    order = rng.permutation(np.flatnonzero(label >= 0))
    _, first = np.unique(label[order], return_index=True)
    diverse = rng.permutation(order[first])
    rest = np.setdiff1d(np.arange(len(label)), diverse)
    return np.concatenate([diverse, rest])[:count]
