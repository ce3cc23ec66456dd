"""teach: train a teacher on the captions of a data set.

Pretrained towers; the text tower stays frozen, so its features of the few hundred captions are computed once. The
image tower learns end to end, against a projection of those features.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from compress.augment import Augment
from compress.data import Corpus, open_dataset
from compress.draft import Draft
from compress.models import check_options, check_towers, text_tower
from runtimes import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from compress.models.dual_encoder import DualEncoder, Shape


@dataclass(frozen=True)
class Teach:
    """`image`, `text`: towers by name, with options. `size`: edge in pixels. `dim`: width of the joint space.
    `max_length`: tokens per phrase. `epochs`: passes over the train images. `lr`: peak learning rate of AdamW for the
    image tower; the fresh projections use `projection_lr`. `warmup`: share of the steps in which it rises.
    """

    makes: ClassVar = ("teacher",)

    image: str = "efficientnet_lite0"
    image_options: Mapping[str, Any] = field(default_factory=dict)
    text: str = "minilm"
    text_options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 64
    dim: int = 128
    max_length: int = 16
    epochs: int = 5
    batch: int = 64
    lr: float = 1e-3
    projection_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.15
    augment: Augment = field(default_factory=Augment)

    def __post_init__(self) -> None:
        check_towers(self.image, self.text)
        if not 0 <= self.warmup <= 1:
            raise RecipeError(f"teach.warmup is a share, 0..1, got {self.warmup}")
        if min(self.epochs, self.dim, self.lr, self.projection_lr) <= 0 or self.batch < 2:
            raise RecipeError("teach: epochs, dim, lr and projection_lr must be above 0, and batch at least 2")
        if self.size < 32 or self.size % 32:
            raise RecipeError(f"teach.size must be a multiple of 32 pixels, got {self.size}")

    def check(self) -> None:
        """Raises RecipeError for options that the towers refuse, Unavailable if a tower's package is missing."""
        check_options(self.image, self.image_options, self.text, self.text_options)
        text_tower(self.text).tokenizer(self.text_options, self.max_length)

    def run(self, draft: Draft) -> Draft:
        """Adds `teacher` and the metrics teach.val_top1 (share of the labelled validation images) and teach.val_n."""
        from compress.encode import class_vectors, encode_frames, top1
        from compress.models.dual_encoder import Shape, save_model
        from compress.prepared import prepared

        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        corpus.rounds(self.batch, "teach")  # refuses a batch that is too large before any weights are read
        shape = Shape(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Shape)})
        model = self._train(shape, corpus, draft)
        tokenizer = text_tower(self.text).tokenizer(self.text_options, self.max_length)
        val = prepared(corpus.val.images, self.size, draft.out, "teach: read val")
        files = save_model(model, shape, draft.folder / "teacher")
        vectors = encode_frames(model, val, (files.image.mean, files.image.std))
        score = top1(vectors, class_vectors(model, tokenizer, corpus.labels), corpus.val.label)
        draft = dataclasses.replace(draft, teacher=files)
        return draft.with_metrics("teach", val_top1=score, val_n=int((corpus.val.label >= 0).sum()))

    def _train(self, shape: "Shape", corpus: Corpus, draft: Draft) -> "DualEncoder":
        import numpy as np
        import torch

        from compress.augment import augment_batch
        from compress.losses import cosines, multi_positive_info_nce
        from compress.models import image_tower
        from compress.models.dual_encoder import build, to_input
        from compress.prepared import prepared
        from compress.progress import bar

        torch.manual_seed(draft.seed)
        rng = np.random.default_rng(draft.seed)
        tower = image_tower(self.image)
        frames = prepared(corpus.train.images, self.size, draft.out, "teach: read train")
        matches = torch.from_numpy(corpus.train.matches)
        model = build(shape).to(memory_format=torch.channels_last)
        model.text.tower.requires_grad_(False)
        captions = self._caption_features(model, corpus)
        rounds = corpus.rounds(self.batch, "teach")
        optimizer, schedule = self._optimizer(model, self.epochs * rounds)
        model.train()
        model.text.tower.eval()
        with bar("teach: train", self.epochs * rounds) as tick:
            for epoch in range(self.epochs):
                order = rng.permutation(len(frames))
                for at in range(rounds):
                    chosen = order[at * self.batch : (at + 1) * self.batch]
                    # View 0 is the plain frame; here every epoch is a view of its own.
                    pixels = to_input(
                        augment_batch(frames, chosen, self.augment, draft.seed, epoch + 1), tower.MEAN, tower.STD
                    )
                    texts = torch.stack([wordings[rng.integers(len(wordings))] for wordings in captions])
                    logits = model.scale() * cosines(model.encode_image(pixels), model.text.projection(texts))
                    loss = multi_positive_info_nce(logits, matches[chosen])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    tick(f"loss {loss.item():.3f}")
        return model.eval()

    def _caption_features(self, model: "DualEncoder", corpus: Corpus) -> "list[Tensor]":
        """Per caption the frozen tower's features of its wordings, float32 (wordings, width)."""
        import torch

        from compress.encode import tokens

        tokenizer = text_tower(self.text).tokenizer(self.text_options, self.max_length)
        tower = model.text.tower.eval()
        with torch.no_grad():
            return [tower(*tokens(tokenizer, wordings)) for wordings in corpus.captions]

    def _optimizer(self, model: "DualEncoder", steps: int) -> Any:
        from compress.schedule import warm_cosine

        groups = [
            {"params": list(model.image.tower.parameters()), "lr": self.lr},
            {
                "params": [model.logit_scale, model.image.projection.weight, model.text.projection.weight],
                "lr": self.projection_lr,
            },
        ]
        return warm_cosine(groups, steps, self.warmup, self.weight_decay)
