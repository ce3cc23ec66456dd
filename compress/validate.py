"""A model in torch on the validation split: what a training step reports. The gate looks at what is deployed."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from compress.data import Corpus
from compress.draft import ModelFiles
from compress.encode import Asker, class_vectors, encode_frames, top1
from compress.models.dual_encoder import DualEncoder
from compress.parity import check_finite

BATCH = 256


def validate(
    model: DualEncoder,
    files: ModelFiles,
    corpus: Corpus,
    frames: NDArray[np.uint8],
    wanted: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """val_top1 (0..1, of the val_n labelled images) and, for a model that answers, val_answers (0..1, of val_asked).

    `frames`: uint8 (N, S, S, 3), the validation images. `wanted`: a teacher's unit vectors of them (N, dim): then
    val_cosine too, the mean cosine to those. Raises RecipeError, naming image or label, for a vector with a number that
    is not finite.
    """
    tokenizer = Tokenizer.from_file(str(files.text.tokenizer))
    vectors = encode_frames(model, frames, (files.image.mean, files.image.std))
    classes = class_vectors(model, tokenizer, corpus.labels)
    check_finite(vectors.numpy(force=True), corpus.val.images, "the model")
    check_finite(classes.numpy(force=True), [label.name for label in corpus.labels], "the model")
    found: dict[str, Any] = {
        "val_top1": top1(vectors, classes, corpus.val.label),
        "val_n": int((corpus.val.label >= 0).sum()),
    }
    if wanted is not None:
        found["val_cosine"] = float((vectors * torch.as_tensor(wanted.copy())).sum(1).mean())
    if files.fusion is None:
        return found
    asker = Asker(model, files, corpus.val.questions)
    right = 0
    for at in range(0, len(frames), BATCH):
        images = np.arange(at, min(at + BATCH, len(frames)))
        asked, logits = asker(frames[images], images)
        right += int((logits.argmax(1).numpy(force=True) == asker.questions.truth[asked]).sum())
    return {**found, "val_answers": right / asker.shape[0], "val_asked": asker.shape[0]}
