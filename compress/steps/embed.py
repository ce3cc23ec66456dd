"""embed: run the teacher once over all images and phrases and keep what it said (MobileCLIP's dataset reinforcement,
Vasu et al. 2023, arXiv 2311.17049).

Besides the captions it embeds a few thousand everyday phrases, so that a student's text tower stays useful for labels
that nobody thought of when it was trained. What an earlier run embedded is kept, row by row (compress/embedding.py).
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from compress.augment import Augment
from compress.data import Corpus, open_dataset
from compress.device import on_device
from compress.draft import Draft, ModelFiles
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.recipe import Step

TEMPLATES = ("{}", "a {}", "a photo of a {}", "the {} is here", "{} {}", "a {} and a {}", "{} of the {}")
# In no phrase that anything is trained on: the report tells with them what becomes of words that are new.
HELD_OUT_WORDS = (
    *("submarine", "quokka", "thermodynamics", "xylophone", "brouhaha"),
    *("zucchini", "kiosk", "jellyfish", "onomatopoeia", "barcode"),
)
DTYPES = ("float32", "float16")
# Draws for each phrase that is wanted: five are enough even where half of all possible phrases are.
DRAWS = 50


@dataclass(frozen=True)
class Embed:
    """`views`: seeded variants of each train image, the first one plain. `train_size`: edge in pixels at which the
    teacher sees the others, as `teach.train_size`; 0: the teacher's size. `phrases`: how many everyday phrases;
    `held_out`: how many of them only measure. `words`: they are made of that many most frequent words. `dtype`: of
    what is stored of every view; "float16" takes half the disk, and rounds each number by up to 0.05 %.
    """

    needs: ClassVar = ("teacher",)
    makes: ClassVar = ("store",)

    views: int = 3
    train_size: int = 0
    phrases: int = 4000
    held_out: int = 200
    words: int = 5000
    batch: int = 256
    dtype: str = "float32"
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if self.views < 1 or self.batch < 1 or self.words < 2:
            raise RecipeError("embed: views and batch must be at least 1, words at least 2")
        if self.dtype not in DTYPES:
            raise RecipeError(f"embed.dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")
        if self.train_size and self.views < 2:
            raise RecipeError(
                "embed.train_size is of all views but the first; set embed.views to 2 or more, or leave it out"
            )
        if self.train_size and self.train_size < 32:
            raise RecipeError(
                f"embed.train_size must be at least 32 pixels, or 0 for the teacher's, got {self.train_size}"
            )
        if not 0 < self.held_out < self.phrases:
            raise RecipeError(f"embed.held_out must lie between 1 and phrases - 1 ({self.phrases - 1})")
        if 2 * self.phrases > possible_phrases(self.words):
            raise RecipeError(
                f"embed.words: {self.words} words make {possible_phrases(self.words)} phrases, and phrases may be "
                f"at most half of that, not {self.phrases}; raise words or lower phrases"
            )

    def check_after(self, steps: "Sequence[Step]") -> None:
        """Raises RecipeError if the teacher's tower takes no frames of `train_size`."""
        from compress.models import check_size
        from compress.steps.teach import Teach
        from compress.teacher_outline import outline_of

        teach = next((step for step in steps if isinstance(step, Teach)), None)
        if teach is not None and self.train_size:
            check_size(*outline_of(teach).image, self.train_size)

    @on_device
    def run(self, draft: Draft) -> Draft:
        """Adds `store`, what was `embedded` now and before, and the metrics embed.vectors, embed.answers (how many) and
        embed.mbytes (1e6 bytes)."""
        from tokenizers import Tokenizer

        from compress.embedding import Embedding
        from compress.store import Header, identity, link_store
        from compress.tokenizer_json import whole_words
        from compress.views import view_seed

        teacher: ModelFiles = draft.need("teacher", "embed")
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        tokenizer = Tokenizer.from_file(str(teacher.text.tokenizer))
        texts = self._texts(corpus, teacher.text.name, draft.seed, whole_words(tokenizer))
        said = Embedding(self, teacher, corpus, draft)
        said.fill(texts)
        header = Header(
            teacher=identity(teacher),
            data=corpus.fingerprint,
            seed=view_seed(draft.seed),
            size=teacher.image.size,
            augment=self.augment,
            logit_scale=teacher.logit_scale,
            texts=tuple(texts),
            held_out=self.held_out,
            answers=teacher.fusion.answers if teacher.fusion else (),
            dtype=self.dtype,
        )
        link_store(draft.folder / "store", header, {name: rows.file for name, rows in said.rows.items()})
        said.drop_others()
        embedded = {"new": said.made, "kept": said.kept}
        draft = dataclasses.replace(draft, store=draft.folder / "store", embedded=embedded)
        counts = {name: math.prod(rows.shape[:-1]) for name, rows in said.rows.items()}
        answered = counts.pop("answers", 0)
        mbytes = sum(rows.nbytes for rows in said.rows.values()) / 1e6
        return draft.with_metrics("embed", vectors=sum(counts.values()), answers=answered, mbytes=mbytes)

    def _texts(self, corpus: Corpus, tower: str, seed: int, spare: Sequence[str] = ()) -> list[str]:
        """Every wording of every caption and label, then `phrases` distinct others without any of HELD_OUT_WORDS, of
        the tower's words, or of `spare` if it has none.

        Raises RecipeError if the tower knows too few words for that many.
        """
        import numpy as np

        from compress.models import text_tower

        frequent, own = (
            [word for word in words if word not in HELD_OUT_WORDS]
            for words in (text_tower(tower).words() or spare, corpus.words)
        )
        frequent = frequent[: self.words]
        rng = np.random.default_rng(seed)
        unique = dict.fromkeys(corpus.texts())
        wanted = len(unique) + self.phrases
        for _ in range(DRAWS * self.phrases if frequent else 0):
            if len(unique) == wanted:
                return list(unique)
            template = TEMPLATES[rng.integers(len(TEMPLATES))]
            # The data set's own words meet the others, so that "a blue dog" keeps its blue.
            vocabulary = own if rng.random() < 0.15 and own else frequent
            second = frequent[rng.integers(len(frequent))]
            unique[template.format(vocabulary[rng.integers(len(vocabulary))], second)] = None
        raise RecipeError(
            f"embed: {len(frequent)} words of the text tower {tower} make too few phrases for {self.phrases} distinct "
            "ones; lower embed.phrases"
        )


def possible_phrases(words: int) -> int:
    """How many distinct phrases the templates make of that many words."""
    return sum(words ** template.count("{}") for template in TEMPLATES)
