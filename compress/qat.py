"""Quantization-aware training of a student's image tower: what is left when quantizing after training loses too much.

As in distill, the student learns from the teacher's store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.data import Corpus, open_dataset
from compress.device import default_device
from compress.draft import Draft, ModelFiles
from compress.fake_quantize import export_quantized, insert_quantizers, outputs
from compress.hold_out import learnt_from
from compress.losses import affinity_loss, cosines, feature_loss
from compress.models.dual_encoder import load_model, to_input
from compress.prepared import prepared
from compress.schedule import warm_cosine
from compress.store import Store, identity, open_store
from compress.train import train
from compress.views import views
from runtimes import RecipeError

BATCH = 64
CALIBRATION = 64  # train images: where ranges start; training moves them
WARMUP = 0.1  # share of the steps

Lesson = tuple[Tensor, Tensor]  # pixels float32 (N, 3, E, E) and the teacher's unit vectors of them, float32 (N, D)


def retrain(draft: Draft, folder: Path, epochs: int, lr: float) -> Draft:
    """The draft, its student with another int8 image graph: of its float tower, trained while rounding as int8 does.

    `epochs`: passes over the train images, each in the next of the stored views; `lr`: AdamW's peak rate. Writes
    image.int8.onnx into `folder`, and checkpoint-qat.pt, from which an interrupted call goes on. All other graphs are
    the student's own. Raises RecipeError when a loss is not finite, or the store is not this teacher's.
    """
    student: ModelFiles = draft.need("student", "gate")
    spec = student.image
    corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
    store = _open(draft, corpus)
    how = (store.header.augment, draft.train_size, store.header.seed)  # as in distilling
    specs = (draft.need("teacher", "gate").image, spec)
    seen = views(corpus.train.images, specs, how, draft.out, "gate: read train")
    learnt = learnt_from(corpus.train.label, draft.hold_out)
    rounds = len(learnt) // BATCH
    if not rounds:
        raise RecipeError(
            f"training with rounding needs {BATCH} train images, and there are {len(learnt)}; leave it out "
            "(gate.qat_epochs=0, gate.always_qat=false)"
        )
    steps = epochs * rounds
    side = load_model(student).image.eval().requires_grad_(False)
    chosen = np.sort(np.random.default_rng(draft.seed).permutation(learnt)[:CALIBRATION])
    plain = prepared(corpus.train.images, spec.size, draft.out, "gate: read train", spec.resize, spec.crop)[chosen]
    model = insert_quantizers(side, to_input(plain, spec.mean, spec.std)).requires_grad_(True)

    def lesson(step: int) -> Lesson:
        epoch, at = divmod(step, rounds)
        order = np.random.default_rng((draft.seed, epoch)).permutation(learnt)
        rows, view = order[at * BATCH : (at + 1) * BATCH], epoch % len(store.train)
        return to_input(seen(rows, view), spec.mean, spec.std), torch.as_tensor(store.vectors(view, rows))

    # What comes before and after, placing quantizers and exporting them, is done on the CPU.
    with default_device(draft.device):
        for each in (model, side):
            each.to(torch.get_default_device())
        loss_of = _loss(model, side, _captions(store, corpus), store.header.logit_scale)
        optimizer = warm_cosine([{"params": list(model.parameters()), "lr": lr}], steps, WARMUP, decay=0)
        kept = folder / "checkpoint-qat.pt"
        seconds = train("gate: retrain", model, optimizer, steps, lambda step: loss_of(lesson(step)), kept)
    path = folder / "image.int8.onnx"
    export_quantized(model.cpu(), spec, path)
    graphs = {**student.graphs, "image": {**student.graphs["image"], "int8": path}}
    draft = dataclasses.replace(draft, student=dataclasses.replace(student, graphs=graphs))
    return draft.with_pace("gate: retrain", steps, BATCH, seconds)


def _loss(model: nn.Module, side: nn.Module, captions: Tensor, scale: float) -> Callable[[Lesson], Tensor]:
    """The loss of a batch: feature and affinity losses as in distill; for tokens, the squared distance from those of
    `side`, the float tower, in units of their variance: the fusion tower that reads them stays as it is.

    `captions`: the teacher's unit vectors, float32 (C, D). `scale`: the factor on cosines.
    """

    def loss(lesson: Lesson) -> Tensor:
        pixels, wanted = lesson
        embedding, *tokens = outputs(model, pixels)
        near, true = (scale * cosines(vectors, captions) for vectors in (embedding, wanted))
        total = feature_loss(embedding, wanted) + affinity_loss(near, true)
        if tokens:
            with torch.no_grad():
                own = outputs(side, pixels)[1]
            total = total + (tokens[0] - own).square().mean() / own.var()
        return total

    return loss


def _open(draft: Draft, corpus: Corpus) -> Store:
    teacher: ModelFiles = draft.need("teacher", "gate")
    return open_store(draft.need("store", "gate"), identity(teacher), corpus.fingerprint)


def _captions(store: Store, corpus: Corpus) -> Tensor:
    """The teacher's unit vectors of the captions in their plain wording, float32 (C, D)."""
    place = {text: at for at, text in enumerate(store.header.texts)}
    return torch.as_tensor(store.texts[[place[wordings[0]] for wordings in corpus.captions]])
