"""That a model made of a checkpoint is that checkpoint: token ids, vectors and probabilities, with our tokenizer.json,
resize and towers, against the checkpoint's own processor and model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional as F

import sdk
from compress.checkpoints import LEAST, MOST, Checkpoint, Encoder, Vectors
from compress.draft import ModelFiles
from compress.encode import encode_frames, encode_texts
from compress.models.dual_encoder import load_model
from compress.probes import PROBES, VARIED
from runtimes import RecipeError
from sdk.frames import prepare, read_frame
from sdk.manifest import ScoreSpec
from sdk.resize import Frame
from sdk.text import Tokenizer as Packed

COUNT = 100  # images, and texts of the data, that are compared
BATCH = 16  # images in memory at once, in their full size


class Towers:
    """The encoder of a model's files, in torch and float32."""

    def __init__(self, files: ModelFiles) -> None:
        self._files, self._model = files, load_model(files)
        self._tokenizer = Tokenizer.from_file(str(files.text.tokenizer))
        self._score = ScoreSpec(files.score, files.logit_scale, files.logit_bias)

    def ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids, int64 (N, L)."""
        return np.array([code.ids for code in self._tokenizer.encode_batch(list(texts))], np.int64)

    def images(self, frames: Sequence[Frame]) -> Vectors:
        """Unit vectors, float32 (N, D)."""
        spec = self._files.image
        squares = np.stack([prepare(frame, spec.size, spec.resize, spec.crop) for frame in frames])
        return np.asarray(encode_frames(self._model, squares, (spec.mean, spec.std)).numpy(force=True))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (M, D)."""
        return np.asarray(encode_texts(self._model, self._tokenizer, texts).numpy(force=True))

    def logits(self, images: Vectors, texts: Vectors) -> Vectors:
        """(N, M), as the SDK has them."""
        return _logits(images, texts, self._score)


class Deployed:
    """The encoder that a loaded bundle is."""

    def __init__(self, student: sdk.Student) -> None:
        self._student, self._tokenizer = student, Packed.of(student.bundle)

    def ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids, int64 (N, L)."""
        return self._tokenizer(texts).ids

    def images(self, frames: Sequence[Frame]) -> Vectors:
        """Unit vectors, float32 (N, D)."""
        return self._student.embed_images(list(frames))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (M, D)."""
        return self._student.embed_texts(list(texts))

    def logits(self, images: Vectors, texts: Vectors) -> Vectors:
        """(N, M), as the SDK has them."""
        return _logits(images, texts, self._student.bundle.manifest.score)


def prove(
    ours: Encoder, checkpoint: Checkpoint, kind: str, images: Sequence[Path], texts: Sequence[str]
) -> Mapping[str, float]:
    """How alike an encoder and that of a checkpoint are. `tokens`: of `texts` and PROBES the share (0..1) whose ids are
    equal. `cosine_min`, `cosine_mean`: of the images. `text_cosine_min`, `text_cosine_mean`: of VARIED and at most
    COUNT of `texts`. `score_error`: the largest difference of probabilities of these texts for these images, which are
    of the `kind` "softmax" or "sigmoid"; `default_error`, where the checkpoint's library resizes by something else than
    Pillow unasked: the same to that. `texts`, `images`, `read`: how many each was.

    Raises RecipeError when texts or vectors have another length, a text has other ids, a cosine is below LEAST, a
    difference (not `default_error`) above MOST, or a vector of either is not finite (naming image or text).
    """
    own, other = checkpoint.own, checkpoint.default
    known, few = list(dict.fromkeys([*PROBES, *texts])), list(dict.fromkeys([*VARIED, *texts[:COUNT]]))
    ids, own_ids = ours.ids(known), own.ids(known)
    _check_width("a text has {} tokens", ids, own_ids)
    same = (ids == own_ids).all(axis=1)
    if not same.all():
        first = known[int(np.flatnonzero(~same)[0])]
        advice = (
            "save its tokenizer again" if first in PROBES else "word it in plain letters (README: what is not read)"
        )
        raise RecipeError(
            f"of {len(known)} texts, {int((~same).sum())} get other tokens from the tokenizer.json than "
            f"from the checkpoint's own tokenizer, such as {first!r:.80}; {advice}"
        )
    read, own_read = ours.texts(few), own.texts(few)
    _check_width("a vector has {} numbers", read, own_read)
    seen, own_seen, *others = _images([ours, own, *([other] if other else [])], images)
    for vectors, names in ((own_seen, images), (own_read, few), (seen, images), (read, few)):
        check_finite(vectors, names)
    near, text_near = _cosines(seen, own_seen), _cosines(read, own_read)
    said = _probabilities(ours.logits(seen, read), kind)
    error, *errors = (
        float(np.abs(said - _probabilities(own.logits(vectors, own_read), kind)).max())
        for vectors in (own_seen, *others)
    )
    _refuse({"images": float(near.min()), "texts": float(text_near.min())}, error)
    return {
        "texts": len(known),
        "tokens": float(same.mean()),
        "images": len(images),
        "cosine_min": float(near.min()),
        "cosine_mean": float(near.mean()),
        "read": len(few),
        "text_cosine_min": float(text_near.min()),
        "text_cosine_mean": float(text_near.mean()),
        "score_error": error,
        **({"default_error": errors[0]} if errors else {}),
    }


def _images(encoders: Sequence[Encoder], images: Sequence[Path]) -> Sequence[Vectors]:
    """What each encoder says of the images, (N, D), which are never in memory all at once."""
    parts = []
    for at in range(0, len(images), BATCH):
        frames = [read_frame(path) for path in images[at : at + BATCH]]
        parts.append([encoder.images(frames) for encoder in encoders])
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def spread(images: Sequence[Path]) -> Sequence[Path]:
    """COUNT of them at most, from all over."""
    return [images[at] for at in np.unique(np.linspace(0, len(images) - 1, COUNT).astype(int))]


def check_finite(vectors: NDArray[np.float32], names: Sequence[object], who: str = "the teacher") -> None:
    """Raises RecipeError, naming the sample, for a row of (N, D) with a number that is not finite."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise RecipeError(
            f"{who}'s output for {str(names[int(bad[0])])!r} is not finite, and so for {len(bad)} of {len(names)} "
            "samples; its weights are damaged, overflow in float32, or left all bounds in training: use another "
            "checkpoint, or a lower learning rate"
        )


def _check_width(what: str, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    if ours.shape[1] != theirs.shape[1]:
        raise RecipeError(
            f"{what.format(ours.shape[1])}, and {theirs.shape[1]} by the checkpoint's own library; this "
            "was made of another checkpoint"
        )


def _logits(seen: Vectors, read: Vectors, score: ScoreSpec) -> Vectors:
    return np.asarray(score.logit_scale * seen @ read.T + score.logit_bias, np.float32)


def _cosines(ours: Vectors, theirs: Vectors) -> NDArray[np.float64]:
    return np.asarray(np.einsum("nd,nd->n", ours.astype(np.float64), theirs.astype(np.float64)))


def _probabilities(logits: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    table = torch.as_tensor(logits, dtype=torch.float64)
    found: NDArray[np.float64] = (torch.sigmoid(table) if kind == "sigmoid" else F.softmax(table, dim=1)).numpy()
    return found


def _refuse(near: Mapping[str, float], error: float) -> None:
    for name, least in near.items():
        if least < LEAST:
            raise RecipeError(
                f"the {name} have a least cosine of {least:.5f} to the checkpoint's own vectors, wanted "
                f"{LEAST}; its configuration leaves something out"
            )
    if error > MOST:
        raise RecipeError(
            f"probabilities differ by {error:.2g} from the checkpoint's own, wanted at most {MOST}; its "
            "scale or bias is not what its configuration says"
        )
