"""What gate and pack share: a corpus as evaluation sets, and what a run's bundles carry besides the model."""

from __future__ import annotations

from typing import Literal

import numpy as np

import runtimes
from benchmarks.evalset import EvalSet
from benchmarks.timing import versions
from compress.assemble import FAMILIES, Contents
from compress.data import Corpus, Split
from compress.draft import Draft
from compress.steps import package_version
from runtimes import Unavailable
from sdk.frames import read_frame
from sdk.resize import Frame

# Words that no data set here was trained on: an edited label bank will hold such words.
GOLDEN_WORDS = ("a purple submarine", "seven wooden chairs", "zebra crossing", "an unreadable qwxzy")


def cpu_targets() -> list[str]:
    """CPU targets of this machine that bundles are made for. Raises Unavailable when there is none."""
    found = [str(t) for t in runtimes.targets() if t.runtime in FAMILIES and t.device == "cpu"]
    if not found:
        raise Unavailable("measuring a bundle needs an engine; run: pip install 'edge-pupil[openvino]'")
    # OpenVINO first where both are here: it is the engine of the report's headline.
    return sorted(found, reverse=True)


def evalset(corpus: Corpus, split: Literal["val", "test"]) -> EvalSet:
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
    )


def contents(draft: Draft, corpus: Corpus, who: str, golden: int) -> Contents:
    """Label bank, golden samples (validation images and phrases) and provenance of the run's `who` bundle."""
    rng = np.random.default_rng(draft.seed)
    chosen = rng.choice(len(corpus.val.images), golden, replace=False)
    size = (draft.need(who, "pack")).image.size
    frames = [_golden_frame(read_frame(corpus.val.images[i]), size, n) for n, i in enumerate(chosen)]
    prompts = [label.prompts[0] for label in corpus.labels]
    texts = [*GOLDEN_WORDS, *(prompts[i] for i in rng.permutation(len(prompts)))]
    return Contents(
        name=f"{corpus.name}-{who}",
        labels=corpus.labels,
        templates=corpus.templates,
        frames=frames,
        texts=tuple((texts * golden)[:golden]),
        licence="Apache-2.0",
        provenance={
            "made_by": f"edge-pupil {package_version()}",
            "data": f"{corpus.name} {corpus.fingerprint[:16]}",
            "data_licence": corpus.licence,
            "seed": str(draft.seed),
            **{
                f"version.{name}": version for name, version in versions("torch", "nncf", "onnx", "onnxruntime").items()
            },
        },
        quality={},
    )


def _golden_frame(frame: Frame, size: int, number: int) -> Frame:
    """Most golden frames are kept at the model's size, to keep the bundle small; every fourth proves the resize."""
    from sdk.resize import prepare

    if number % 4 == 3:
        return np.ascontiguousarray(prepare(frame, size * 3 // 2)[: size + size // 4])
    return prepare(frame, size)
