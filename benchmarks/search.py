"""Product search in a joint space: photo to product text, and product text to photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.evalset import EvalSet
from benchmarks.metrics import Bools, Retrieval, Vectors
from sdk.tasks import cosines


@dataclass(frozen=True)
class ProductSearch:
    """How well photos and the P product texts of a set find each other.

    `texts`: float32 (P, D), unit norm, each text once however many labels have it. `place`: int64 over the photos whose
    product is known, where their own text stands among all texts, from 0; of equals the first stands first. `photos`:
    the rankings of all photos by each text.
    """

    texts: Vectors
    place: NDArray[np.int64]
    photos: Retrieval

    def text_found_in(self, k: int) -> Bools:
        """Is a photo's own product text among the first k? bool, over the photos whose product is known."""
        return self.place < k


def product_search(
    images: Vectors, evalset: EvalSet, embed_texts: Callable[[Sequence[str]], Vectors]
) -> ProductSearch | None:
    """Search among the product texts of a set; None where no photo has a label with one. `images`: (N, D), unit norm.

    `embed_texts`: the deployed text tower; raises its errors.
    """
    products = tuple(dict.fromkeys(text for text in evalset.texts if text))
    of_label = np.array([[text == product for product in products] for text in evalset.texts], bool)  # (K, P)
    known = np.flatnonzero(evalset.label >= 0)
    known = known[of_label[evalset.label[known]].any(axis=1)]
    if not len(known):
        return None
    own = np.full(len(images), -1)
    own[known] = of_label[evalset.label[known]].argmax(axis=1)
    texts = embed_texts(products)
    order = np.argsort(-cosines(images[known], texts), axis=1, kind="stable")
    place = (order == own[known, None]).argmax(axis=1)
    return ProductSearch(texts, place, Retrieval(images, texts, own, evalset.possible @ of_label))
