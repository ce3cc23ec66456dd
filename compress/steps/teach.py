"""teach: train a teacher on the captions and the questions of a data set, as a weighted sum of both tasks.

Pretrained towers; the text tower stays frozen, so its features of the few hundred texts are computed once. The image
tower learns end to end, the projections and the fusion from nothing.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from compress.augment import Augment
from compress.data import open_dataset
from compress.draft import Draft
from compress.models import check_fusion, check_options, check_towers, text_tower
from runtimes import RecipeError


@dataclass(frozen=True)
class Teach:
    """`image`, `text`: towers by name, with options. `size`: edge in pixels. `dim`: width of the joint space.
    `max_length`: tokens per phrase. `epochs`: passes over the train images. `lr`: peak learning rate of AdamW for the
    image tower; what is fresh uses `projection_lr`. `warmup`: share of the steps in which it rises. `fusion`: by name,
    with options, `width` of its tokens. Weights of the tasks: `align` (captions), `answer` (questions, `questions` of
    them per image and step). `head_epochs`: passes with the tower frozen, for the questions alone.
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
    fusion: str = "attention"
    fusion_options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 128
    questions: int = 3
    head_epochs: int = 3
    align: float = 1.0
    answer: float = 1.0

    def __post_init__(self) -> None:
        check_towers(self.image, self.text)
        check_fusion(self.fusion)
        if not 0 <= self.warmup <= 1:
            raise RecipeError(f"teach.warmup is a share, 0..1, got {self.warmup}")
        if min(self.epochs, self.dim, self.lr, self.projection_lr) <= 0 or self.batch < 2:
            raise RecipeError("teach: epochs, dim, lr and projection_lr must be above 0, and batch at least 2")
        if min(self.width, self.questions) < 1 or self.head_epochs < 0 or min(self.align, self.answer) < 0:
            raise RecipeError(
                "teach: width and questions must be at least 1, head_epochs, align and answer not negative"
            )
        if self.size < 32 or self.size % 32:
            raise RecipeError(f"teach.size must be a multiple of 32 pixels, got {self.size}")

    def check(self) -> None:
        """Raises RecipeError for options that the towers refuse, Unavailable if a tower's package is missing."""
        from compress.models import fusion_tower

        check_options(self.image, self.image_options, self.text, self.text_options)
        fusion_tower(self.fusion).build(self.fusion_options, self.width, 2)
        text_tower(self.text).tokenizer(self.text_options, self.max_length)

    def run(self, draft: Draft) -> Draft:
        """Adds `teacher` and the metrics teach.val_top1 (share of the labelled validation images), teach.val_n and, if
        the data has questions, teach.val_answers (share of the validation questions)."""
        from compress.models.dual_encoder import Shape, save_model
        from compress.prepared import prepared
        from compress.teaching import Lesson
        from compress.train import train
        from compress.validate import validate

        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        corpus.rounds(self.batch, "teach")  # refuses a batch that is too large before any weights are read
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(Shape) if item.name != "answers"}
        shape = Shape(**fields, answers=corpus.answers)
        lesson = Lesson(self, shape, corpus, draft)
        checkpoint = draft.folder / "checkpoint-teach.pt", draft.folder / "checkpoint-head.pt"
        train("teach: train", lesson.model, lesson.optimizer(), lesson.steps, lesson.loss, checkpoint[0])
        if lesson.head_steps:
            head = lesson.head(), lesson.head_optimizer()
            train("teach: answers", *head, lesson.head_steps, lesson.head_loss, checkpoint[1])
        files = save_model(lesson.model, shape, draft.folder / "teacher")
        val = prepared(corpus.val.images, self.size, draft.out, "teach: read val")
        draft = dataclasses.replace(draft, teacher=files)
        return draft.with_metrics("teach", **validate(lesson.model, files, corpus, val))
