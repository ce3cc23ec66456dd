"""The questions of a split as arrays, and the pairs of image and question that one training step sees.

A text is tokenized once however many images it is asked about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from compress.data import Question
from runtimes import RecipeError


def tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """ids and mask, int64 (N, longest), without the columns that are padding in every row: they only cost time."""
    ids, mask = token_arrays(tokenizer, texts)
    return torch.as_tensor(ids), torch.as_tensor(mask)


def token_arrays(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same as arrays: what is to be asked of their values is asked here, and waits for no GPU."""
    coded = tokenizer.encode_batch(list(texts))
    ids, mask = (np.array([getattr(code, name) for code in coded], np.int64) for name in ("ids", "attention_mask"))
    longest = int(mask.sum(1).max())
    return ids[:, :longest], mask[:, :longest]


@dataclass(frozen=True)
class Pairs:
    """P questions about the images of a batch.

    `asked`: int64 (P,), which questions of the split. `image`: int64 (P,), position in the batch. `texts`: int64 (U,),
    the different texts among them; `text`: int64 (P,), position in `texts`. `truth`: int64 (P,), the right answers.
    `share`: P among the questions about the whole batch, of which these are one process's.
    """

    asked: NDArray[np.int64]
    image: Tensor
    texts: Tensor
    text: Tensor
    truth: Tensor
    share: float


class Questions:
    """M questions, U different texts. `ids`, `mask`: int64 (U, longest); `text`, `image`, `truth`: int64 (M,).

    Raises RecipeError for a question whose answer is none of `answers`.
    """

    def __init__(self, questions: Sequence[Question], answers: Sequence[str], tokenizer: Tokenizer) -> None:
        place = {answer: at for at, answer in enumerate(answers)}
        stray = next((question for question in questions if question.answer not in place), None)
        if stray is not None:
            raise RecipeError(
                f"{stray.text!r} is answered with {stray.answer!r}, which is none of the answers that the model can "
                f"give: {', '.join(answers)}; correct the data set's answers"
            )
        texts = {text: at for at, text in enumerate(dict.fromkeys(question.text for question in questions))}
        self.ids, self.mask = tokens(tokenizer, list(texts))
        self.text = np.array([texts[question.text] for question in questions], np.int64)
        self.image = np.array([question.image for question in questions], np.int64)
        self.truth = np.array([place[question.answer] for question in questions], np.int64)
        self._by_image = np.argsort(self.image, kind="stable")
        self._owners = self.image[self._by_image]

    def of(
        self,
        images: NDArray[np.int64],
        most: int | None = None,
        rng: np.random.Generator | None = None,
        part: slice = slice(None),
    ) -> Pairs:
        """The questions about each of `images` (positions in the split); of many at most `most`, drawn by `rng`. Of the
        drawn ones those about `images[part]` are kept, and `image` then is a position in that."""
        asked, owners = [], []
        for position, image in enumerate(images):
            own = self._by_image[slice(*np.searchsorted(self._owners, (image, image + 1)))]
            chosen = own if rng is None else rng.permutation(own)[:most]
            asked.append(chosen)
            owners.append(np.full(len(chosen), position))
        kept = range(len(images))[part]
        total = sum(map(len, asked))
        mine, image = (np.concatenate([*arrays[part], np.zeros(0, np.int64)]) for arrays in (asked, owners))
        return self._pairs(mine, image - kept.start, total)

    def _pairs(self, asked: NDArray[np.int64], image: NDArray[np.int64], total: int) -> Pairs:
        texts, text = np.unique(self.text[asked], return_inverse=True)
        numbers = (image, texts, text, self.truth[asked])
        own, known, said, truth = (torch.as_tensor(np.asarray(array, np.int64)) for array in numbers)
        return Pairs(asked, own, known, said, truth, len(asked) / max(1, total))
