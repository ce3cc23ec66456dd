"""embed: run the teacher once over all images and phrases and keep what it said (MobileCLIP's dataset reinforcement,
Vasu et al. 2023, arXiv 2311.17049).

Besides the captions it embeds a few thousand everyday phrases, so that a student's text tower stays useful for labels
that nobody thought of when it was trained.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from compress.augment import Augment
from compress.data import Corpus, open_dataset
from compress.device import on_device
from compress.draft import Draft, ModelFiles
from runtimes import RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compress.models.dual_encoder import DualEncoder
    from compress.recipe import Step

TEMPLATES = ("{}", "a {}", "a photo of a {}", "the {} is here", "{} {}", "a {} and a {}", "{} of the {}")
# In no phrase that anything is trained on: the report tells with them what becomes of words that are new.
HELD_OUT_WORDS = (
    *("submarine", "quokka", "thermodynamics", "xylophone", "brouhaha"),
    *("zucchini", "kiosk", "jellyfish", "onomatopoeia", "barcode"),
)
# Draws for each phrase that is wanted: five are enough even where half of all possible phrases are.
DRAWS = 50


def view_seed(seed: int) -> int:
    """The seed of the stored views. Not the run's own: with the same augmentation the teacher's lesson had those very
    crops, and what it says of crops it learnt by heart is surer than what a student needs to hear."""
    import numpy as np

    return int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])


@dataclass(frozen=True)
class Embed:
    """`views`: seeded variants of each train image, the first one plain. `train_size`: edge in pixels at which the
    teacher sees the others, as `teach.train_size`; 0: the teacher's size. `phrases`: how many everyday phrases;
    `held_out`: how many of them only measure. `words`: they are made of that many most frequent words.
    """

    needs: ClassVar = ("teacher",)
    makes: ClassVar = ("store",)

    views: int = 3
    train_size: int = 0
    phrases: int = 4000
    held_out: int = 200
    words: int = 5000
    batch: int = 256
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        if self.views < 1 or self.batch < 1 or self.words < 2:
            raise RecipeError("embed: views and batch must be at least 1, words at least 2")
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

        teach = next((step for step in steps if isinstance(step, Teach)), None)
        if teach is not None and self.train_size:
            check_size(teach.image, teach.image_options, self.train_size)

    @on_device
    def run(self, draft: Draft) -> Draft:
        """Adds `store` and the metrics embed.vectors, embed.answers (how many) and embed.mbytes (1e6 bytes)."""
        from tokenizers import Tokenizer

        from compress.encode import encode_frames, encode_texts
        from compress.models.dual_encoder import load_model
        from compress.prepared import prepared
        from compress.store import Header, identity, write_store

        teacher: ModelFiles = draft.need("teacher", "embed")
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        model = load_model(teacher)
        size, normal = teacher.image.size, (teacher.image.mean, teacher.image.std)
        tokenizer = Tokenizer.from_file(str(teacher.text.tokenizer))
        texts = self._texts(corpus, teacher.text.name, draft.seed)
        val = prepared(corpus.val.images, size, draft.out, "embed: read val")
        train, answers = self._views(model, teacher, corpus, draft)
        arrays = {
            "train": train,
            "val": encode_frames(model, val, normal, self.batch).numpy(force=True),
            "texts": encode_texts(model, tokenizer, texts).numpy(force=True),
            **({"answers": answers} if answers is not None else {}),
        }
        header = Header(
            teacher=identity(teacher),
            data=corpus.fingerprint,
            seed=view_seed(draft.seed),
            size=size,
            augment=self.augment,
            logit_scale=teacher.logit_scale,
            texts=tuple(texts),
            held_out=self.held_out,
            answers=teacher.fusion.answers if teacher.fusion else (),
        )
        write_store(draft.folder / "store", header, arrays)
        draft = dataclasses.replace(draft, store=draft.folder / "store")
        count = sum(array.size // teacher.dim for name, array in arrays.items() if name != "answers")
        answered = 0 if answers is None else answers.size // answers.shape[-1]
        mbytes = sum(array.nbytes for array in arrays.values()) / 1e6
        return draft.with_metrics("embed", vectors=count, answers=answered, mbytes=mbytes)

    def _views(
        self, model: "DualEncoder", teacher: ModelFiles, corpus: Corpus, draft: Draft
    ) -> "tuple[NDArray[np.float32], NDArray[np.float32] | None]":
        """float32 (views, N, dim): unit vectors of the train images; (views, M, answers): logits of the questions."""
        import numpy as np

        from compress.augment import augment_batch
        from compress.encode import Asker, encode_frames
        from compress.prepared import prepared
        from compress.progress import bar

        whole, varied = teacher.image.size, self.train_size or teacher.image.size
        frames = prepared(corpus.train.images, self.augment.edge(whole), draft.out, "embed: read train")
        normal = (teacher.image.mean, teacher.image.std)
        made = np.empty((self.views, len(frames), teacher.dim), np.float32)
        asker = Asker(model, teacher, corpus.train.questions) if teacher.fusion else None
        answers = np.empty((self.views, *asker.shape), np.float32) if asker else None
        starts, seed = range(0, len(frames), self.batch), view_seed(draft.seed)
        with bar("embed: teacher", self.views * len(starts)) as tick:
            for view in range(self.views):
                for at in starts:
                    chosen = np.arange(at, min(at + self.batch, len(frames)))
                    batch = augment_batch(frames, chosen, self.augment, varied if view else whole, seed, view)
                    made[view, chosen] = encode_frames(model, batch, normal, self.batch).numpy(force=True)
                    if asker is not None and answers is not None:
                        asked, logits = asker(batch, chosen)
                        answers[view, asked] = logits.numpy(force=True)
                    tick(f"view {view}")
        return made, answers

    def _texts(self, corpus: Corpus, tower: str, seed: int) -> list[str]:
        """Every wording of every caption and label, then `phrases` distinct others without any of HELD_OUT_WORDS.

        Raises RecipeError if the tower knows too few words for that many.
        """
        import numpy as np

        from compress.models import text_tower

        known = [wording for wordings in corpus.captions for wording in wordings]
        known += [prompt for label in corpus.labels for prompt in (label.name, *label.prompts)]
        frequent, own = (
            [word for word in words if word not in HELD_OUT_WORDS]
            for words in (text_tower(tower).words(), corpus.words)
        )
        frequent = frequent[: self.words]
        rng = np.random.default_rng(seed)
        unique = dict.fromkeys(known)
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
