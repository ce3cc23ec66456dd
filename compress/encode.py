"""Frames and phrases through a dual encoder, and the zero-shot accuracy that follows. Everything in eval mode."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from compress.data import Label, Question
from compress.draft import ModelFiles
from compress.models.dual_encoder import DualEncoder, to_input
from compress.questions import Questions, tokens

Spec = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std


@torch.no_grad()
def encode_frames(model: DualEncoder, frames: NDArray[np.uint8], normal: Spec, batch: int = 256) -> Tensor:
    """uint8 (N, S, S, 3) to unit vectors float32 (N, dim); `normal` is the tower's mean and std."""
    parts = [model.encode_image(to_input(frames[at : at + batch], *normal)) for at in range(0, len(frames), batch)]
    return F.normalize(torch.cat(parts), dim=-1)


class Asker:
    """A model that answers the M questions of a split, batch by batch of its images.

    `questions`: see there. `shape`: (M, answers).
    """

    def __init__(self, model: DualEncoder, files: ModelFiles, questions: Sequence[Question]) -> None:
        if files.fusion is None:
            raise TypeError("this model has no fusion: it answers no questions")
        self._model, self._normal = model, (files.image.mean, files.image.std)
        self.questions = Questions(questions, files.fusion.answers, Tokenizer.from_file(str(files.text.tokenizer)))
        self.shape = (len(questions), len(files.fusion.answers))
        with torch.no_grad():
            self._words = model.text.both(self.questions.ids, self.questions.mask)[1]

    @torch.no_grad()
    def __call__(self, frames: NDArray[np.uint8], images: NDArray[np.int64]) -> tuple[NDArray[np.int64], Tensor]:
        """All questions about `images` (positions in the split), whose pixels are `frames`, uint8 (N, S, S, 3): which
        ones, int64 (P,), and their logits, float32 (P, answers).
        """
        pairs = self.questions.of(images)
        if not len(pairs.asked):
            return pairs.asked, torch.zeros(0, self.shape[1])
        seen = self._model.image.both(to_input(frames, *self._normal))[1]
        words, mask = self._words[pairs.texts], self.questions.mask[pairs.texts]
        return pairs.asked, self._model.answer(seen[pairs.image], words[pairs.text], mask[pairs.text])


@torch.no_grad()
def encode_texts(model: DualEncoder, tokenizer: Tokenizer, texts: Sequence[str], batch: int = 128) -> Tensor:
    """N phrases to unit vectors float32 (N, dim)."""
    parts = [model.encode_text(*tokens(tokenizer, texts[at : at + batch])) for at in range(0, len(texts), batch)]
    return F.normalize(torch.cat(parts), dim=-1)


def class_vectors(model: DualEncoder, tokenizer: Tokenizer, labels: Sequence[Label]) -> Tensor:
    """Unit vectors float32 (K, dim): each label's is the mean of its prompts' unit vectors, made unit length again."""
    means = [encode_texts(model, tokenizer, label.prompts).mean(0) for label in labels]
    return F.normalize(torch.stack(means), dim=-1)


def correct(vectors: Tensor, classes: Tensor, label: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool: whether each row with a known label (`label` not -1) is nearest to its own class; unit `vectors` (N, D),
    `classes` (K, D)."""
    known = label >= 0
    best = (vectors @ classes.T).argmax(1).numpy(force=True)
    right: NDArray[np.bool_] = best[known] == label[known]
    return right


def top1(vectors: Tensor, classes: Tensor, label: NDArray[np.int64]) -> float:
    """Zero-shot top-1 in 0..1, see `correct`."""
    return float(correct(vectors, classes, label).mean())
