"""distill: train a student from the teacher's store, image side and text side together.

Four losses, each with its weight: nearness to the teacher's vector of the image and of the phrase (CLIP-KD), the
teacher's affinities between images and captions (TinyCLIP), and the data's own truth (multi-positive InfoNCE).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from compress.data import Corpus, open_dataset
from compress.draft import Draft, ModelFiles
from compress.models import check_options, check_towers
from runtimes import RecipeError

# What a student keeps of a tower where the recipe says nothing; of one that is not named here: everything.
STUDENTS: Mapping[str, Mapping[str, Any]] = {
    "efficientnet_lite0": {"blocks": [1, 1, 2, 2, 2, 1]},
    "minilm": {"layers": 2, "vocab": 8000},
}

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from compress.models.dual_encoder import DualEncoder, Shape
    from compress.store import Store


@dataclass(frozen=True)
class Distill:
    """`image`, `text`: the student's towers by name, with options (see STUDENTS where there are none); size, joint
    space, phrase length and logit scale are the teacher's. `inherit`: start from the teacher's weights wherever a
    tensor has the same name and shape (from scratch, a small network learns colours at once, but shapes only after
    many epochs). `epochs`: passes over the train images, each in the next of the stored views. `text_every`: one step
    in that many trains the text side, with `phrases` everyday phrases; in the others the images meet the teacher's
    captions (CLIP-KD's interactive loss), which costs half. `lr`, `text_lr`: peak learning rates of AdamW. `warmup`:
    share of the steps in which they rise. Weights of the losses: `feature` (image vectors), `text_feature` (phrase
    vectors), `affinity`, `contrast`.
    """

    needs: ClassVar = ("teacher", "store")
    makes: ClassVar = ("student",)

    image: str = "efficientnet_lite0"
    image_options: Mapping[str, Any] | None = None
    text: str = "minilm"
    text_options: Mapping[str, Any] | None = None
    inherit: bool = True
    epochs: int = 3
    batch: int = 64
    phrases: int = 64
    text_every: int = 2
    lr: float = 2e-3
    text_lr: float = 5e-4
    weight_decay: float = 0.02
    warmup: float = 0.2
    feature: float = 1.0
    text_feature: float = 2.0
    affinity: float = 1.0
    contrast: float = 0.2

    def __post_init__(self) -> None:
        check_towers(self.image, self.text)
        if not 0 <= self.warmup <= 1:
            raise RecipeError(f"distill.warmup is a share, 0..1, got {self.warmup}")
        if min(self.epochs, self.phrases, self.text_every, self.lr, self.text_lr) <= 0 or self.batch < 2:
            raise RecipeError(
                "distill: epochs, phrases, text_every, lr and text_lr must be above 0, and batch at least 2"
            )
        if min(self.feature, self.text_feature, self.affinity, self.contrast) < 0:
            raise RecipeError("distill: the weights of losses must not be negative")

    def check(self) -> None:
        """Raises RecipeError for options that the towers refuse, Unavailable if a tower's package is missing."""
        check_options(self.image, self._options("image"), self.text, self._options("text"))

    def _options(self, tower: Literal["image", "text"]) -> Mapping[str, Any]:
        """The options of a tower: those of the recipe, or this step's own for the tower of that name."""
        given: Mapping[str, Any] | None = getattr(self, f"{tower}_options")
        return STUDENTS.get(getattr(self, tower), {}) if given is None else given

    def run(self, draft: Draft) -> Draft:
        """Adds `student` and the metrics distill.val_top1, val_cosine (image
        vectors against the teacher's) and phrase_cosine (held-out phrases, against the teacher's)."""
        from compress.models.dual_encoder import Shape, save_model
        from compress.store import hash_files, open_store

        teacher: ModelFiles = draft.need("teacher", "distill")
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        corpus.rounds(self.batch, "distill")  # refuses a batch that is too large before any weights are read
        identity = hash_files(teacher.image.weights, teacher.text.weights)
        store = open_store(draft.need("store", "distill"), identity, corpus.fingerprint)
        # Only where the vocabulary is cut do words need protection; other text towers may not know `keep`.
        text_options = self._options("text")
        keep = {"keep": list(corpus.words)} if "vocab" in text_options else {}
        shape = Shape(
            image=self.image,
            image_options=self._options("image"),
            text=self.text,
            text_options={**keep, **text_options},
            size=teacher.image.size,
            dim=teacher.dim,
            max_length=teacher.text.max_length,
        )
        model = self._train(shape, corpus, store, draft)
        files = save_model(model, shape, draft.folder / "student")
        draft = dataclasses.replace(draft, student=files)
        return draft.with_metrics("distill", **self._measure(model, files, corpus, store, draft))

    def _train(self, shape: "Shape", corpus: Corpus, store: "Store", draft: Draft) -> "DualEncoder":
        import numpy as np
        import torch

        from compress.augment import augment_batch
        from compress.models import image_tower
        from compress.models.dual_encoder import to_input
        from compress.prepared import prepared
        from compress.progress import bar

        torch.manual_seed(draft.seed)
        rng = np.random.default_rng(draft.seed)
        tower, teacher = image_tower(self.image), draft.need("teacher", "distill")
        frames = prepared(corpus.train.images, shape.size, draft.out, "distill: read train")
        matches = torch.from_numpy(corpus.train.matches)
        model = self._start(shape, teacher, store.header.logit_scale)
        texts = _Texts(shape, corpus, store, self.phrases, rng)
        rounds = corpus.rounds(self.batch, "distill")
        optimizer, schedule = self._optimizer(model, self.epochs * rounds)
        model.train()
        with bar("distill: train", self.epochs * rounds) as tick:
            for epoch in range(self.epochs):
                order, view = rng.permutation(len(frames)), (epoch + 1) % len(store.train)
                for at in range(rounds):
                    chosen = order[at * self.batch : (at + 1) * self.batch]
                    batch = augment_batch(frames, chosen, store.header.augment, store.header.seed, view)
                    with_text = at % self.text_every == 0
                    ids, mask, wanted = texts.draw()
                    loss = self._loss(
                        (
                            model.encode_image(to_input(batch, tower.MEAN, tower.STD)),
                            model.encode_text(ids, mask) if with_text else wanted,
                        ),
                        (torch.from_numpy(store.train[view][chosen]), wanted),
                        matches[chosen],
                        store.header.logit_scale,
                    )
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    tick(f"loss {loss.item():.3f}")
        return model.eval()

    def _start(self, shape: "Shape", teacher: ModelFiles, scale: float) -> "DualEncoder":
        """The untrained student, with what it can take over from the teacher; `scale`: factor on cosines."""
        import torch

        from compress.models.dual_encoder import build, inherit

        model = build(shape)
        if self.inherit:
            inherit(model.image, teacher.image.weights)
            inherit(model.text.projection, teacher.text.weights, "projection.")
        # The losses use the teacher's factor and train none: the student's probabilities mean what the teacher's do.
        torch.nn.init.constant_(model.logit_scale, math.log(scale))
        return model.to(memory_format=torch.channels_last)

    def _loss(
        self, student: "tuple[Tensor, Tensor]", teacher: "tuple[Tensor, Tensor]", matches: "Tensor", scale: float
    ) -> "Tensor":
        """`student`, `teacher`: vectors of the images (N, dim) and of the captions, then phrases (C + P, dim)."""
        from compress.losses import affinity_loss, cosines, feature_loss, multi_positive_info_nce

        captions = matches.shape[1]
        near = scale * cosines(student[0], student[1][:captions])
        wanted = scale * cosines(teacher[0], teacher[1][:captions])
        return (
            self.feature * feature_loss(student[0], teacher[0])
            + self.text_feature * feature_loss(student[1], teacher[1])
            + self.affinity * affinity_loss(near, wanted)
            + self.contrast * multi_positive_info_nce(near, matches)
        )

    def _optimizer(self, model: "DualEncoder", steps: int) -> Any:
        from compress.schedule import warm_cosine

        groups = [
            {"params": list(model.image.parameters()), "lr": self.lr},
            {"params": list(model.text.parameters()), "lr": self.text_lr},
        ]
        return warm_cosine(groups, steps, self.warmup, self.weight_decay)

    def _measure(
        self, model: "DualEncoder", files: ModelFiles, corpus: Corpus, store: "Store", draft: Draft
    ) -> dict[str, float]:
        import torch
        from tokenizers import Tokenizer

        from compress.encode import class_vectors, encode_frames, encode_texts, top1
        from compress.prepared import prepared

        tokenizer = Tokenizer.from_file(str(files.text.tokenizer))
        val = prepared(corpus.val.images, files.image.size, draft.out, "distill: read val")
        vectors = encode_frames(model, val, (files.image.mean, files.image.std))
        phrases = encode_texts(model, tokenizer, store.header.texts[-store.header.held_out :])
        near = (vectors * torch.from_numpy(store.val.copy())).sum(1)
        near_phrases = (phrases * torch.from_numpy(store.texts[-store.header.held_out :].copy())).sum(1)
        return {
            "val_top1": top1(vectors, class_vectors(model, tokenizer, corpus.labels), corpus.val.label),
            "val_n": int((corpus.val.label >= 0).sum()),
            "val_cosine": float(near.mean()),
            "phrase_cosine": float(near_phrases.mean()),
            "phrase_cosine_p10": float(near_phrases.quantile(0.1)),
        }


class _Texts:
    """Draws the texts of a step: one wording of every caption, in order, and some everyday phrases."""

    def __init__(
        self, shape: "Shape", corpus: Corpus, store: "Store", phrases: int, rng: "np.random.Generator"
    ) -> None:
        import torch

        from compress.encode import tokens
        from compress.models import text_tower

        tokenizer = text_tower(shape.text).tokenizer(shape.text_options, shape.max_length)
        self._ids, self._mask = tokens(tokenizer, store.header.texts)
        self._vectors = torch.from_numpy(store.texts.copy())
        place = {text: at for at, text in enumerate(store.header.texts)}
        self._wordings = [[place[wording] for wording in wordings] for wordings in corpus.captions]
        # Phrases of a step are of like length: padding costs as much as words.
        lengths = self._mask[: len(store.header.texts) - store.header.held_out].sum(1)
        self._by_length = lengths.argsort(stable=True)
        self._phrases = phrases
        self._rng = rng

    def draw(self) -> "tuple[Tensor, Tensor, Tensor]":
        """ids and mask, int64 (C + P, longest), and the teacher's unit vectors, float32 (C + P, dim)."""
        rows = [wordings[self._rng.integers(len(wordings))] for wordings in self._wordings]
        start = self._rng.integers(max(1, len(self._by_length) - self._phrases + 1))
        rows += self._by_length[start : start + self._phrases].tolist()
        longest = int(self._mask[rows].sum(1).max())
        return self._ids[rows, :longest], self._mask[rows, :longest], self._vectors[rows]
