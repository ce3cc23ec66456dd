"""Frames and phrases through a dual encoder, and the zero-shot accuracy that follows. Everything in eval mode."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from compress.data import Label
from compress.models.dual_encoder import DualEncoder, to_input

Spec = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std


@torch.no_grad()
def encode_frames(model: DualEncoder, frames: NDArray[np.uint8], normal: Spec, batch: int = 256) -> Tensor:
    """uint8 (N, S, S, 3) to unit vectors float32 (N, dim); `normal` is the tower's mean and std."""
    parts = [model.encode_image(to_input(frames[at : at + batch], *normal)) for at in range(0, len(frames), batch)]
    return F.normalize(torch.cat(parts), dim=-1)


def tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 (N, longest), without the columns that are padding in every row: they only cost time."""
    coded = tokenizer.encode_batch(list(texts))
    mask = torch.tensor([code.attention_mask for code in coded])
    longest = int(mask.sum(1).max())
    return torch.tensor([code.ids for code in coded])[:, :longest], mask[:, :longest]


@torch.no_grad()
def encode_texts(model: DualEncoder, tokenizer: Tokenizer, texts: Sequence[str], batch: int = 128) -> Tensor:
    """N phrases to unit vectors float32 (N, dim)."""
    parts = [model.encode_text(*tokens(tokenizer, texts[at : at + batch])) for at in range(0, len(texts), batch)]
    return F.normalize(torch.cat(parts), dim=-1)


def class_vectors(model: DualEncoder, tokenizer: Tokenizer, labels: Sequence[Label]) -> Tensor:
    """Unit vectors float32 (K, dim): each label's is the mean of its prompts' unit vectors, made unit length again."""
    means = [encode_texts(model, tokenizer, label.prompts).mean(0) for label in labels]
    return F.normalize(torch.stack(means), dim=-1)


def top1(vectors: Tensor, classes: Tensor, label: NDArray[np.int64]) -> float:
    """Zero-shot top-1 in 0..1: unit `vectors` (N, D) against `classes` (K, D); rows with `label` -1 do not count."""
    known = label >= 0
    best = (vectors @ classes.T).argmax(1).numpy()
    return float((best[known] == label[known]).mean())
