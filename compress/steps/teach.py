"""teach: train a teacher on the captions, labels and questions of a data set, as a weighted sum of the tasks; or take
one that was trained elsewhere, as it is (`source`; compress/checkpoints).

Pretrained towers; the text tower stays frozen, so its features of the few hundred texts are computed once. The image
tower learns end to end, the projections from nothing or from a fit in closed form, the fusion from nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from compress.augment import Augment
from compress.data import Corpus, open_dataset
from compress.device import on_device
from compress.draft import Draft
from compress.models import check_fusion, check_options, check_towers, text_tower
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.recipe import Step
    from compress.teaching import Lesson


@dataclass(frozen=True)
class Teach:
    """`image`, `text`: towers by name, with options. `size`: edge in pixels. `dim`: width of the joint space.
    `max_length`: tokens per phrase. `epochs`: passes over the train images, at the edge `train_size` (0: `size`);
    random crops show things larger than whole frames do, and a smaller edge in training makes up for that (Touvron et
    al. 2019, arXiv 1906.06423). `fit`: start with projections fitted in closed form (compress/whitening.py and
    projection.py). `head_epochs`: afterwards, with the tower frozen, for the questions alone. `lr`: peak learning rate
    of AdamW for the image tower; what is fresh uses `projection_lr`. `warmup`: share of the steps in which it rises.
    `average`: see compress/average.py. `mixup`: alpha of Mixup (Zhang et al. 2018, arXiv 1710.09412), 0 for none.
    `fusion`: by name, with options, `width` of its tokens. Weights of the tasks: `align` (captions, InfoNCE), `margin`
    (captions, max-margin), `label` (labels against each other, as on the device; `smoothing` of the truth),
    `classifier` (labels by a linear layer on the pooled features, thrown away after training: by texts alone the tower
    learns less, see ARCHITECTURE.md), `answer` (questions, `questions` of them per image and step).

    `source`: a folder or a hub id of a checkpoint, which then is the teacher: nothing is trained, and the fields above
    are not used. `licence`: of its weights, where its card names none. `accept_licence`: weights that are for research
    only may be used.
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
    train_size: int = 0
    fit: bool = False
    batch: int = 64
    lr: float = 1e-3
    projection_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.15
    average: float = 0.0
    mixup: float = 0.0
    augment: Augment = field(default_factory=Augment)
    fusion: str = "attention"
    fusion_options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 128
    questions: int = 3
    head_epochs: int = 3
    align: float = 1.0
    margin: float = 0.0
    label: float = 0.0
    classifier: float = 0.0
    smoothing: float = 0.0
    answer: float = 1.0
    source: str = ""
    licence: str = ""
    accept_licence: bool = False

    def __post_init__(self) -> None:
        if not self.source and (self.licence or self.accept_licence):
            raise RecipeError("teach.licence and accept_licence are about a checkpoint; name it, teach.source=...")
        check_towers(self.image, self.text)
        check_fusion(self.fusion)
        for name in ("warmup", "average", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"teach.{name} is a share, 0..1, got {getattr(self, name)}")
        if min(self.epochs, self.dim, self.lr, self.projection_lr) <= 0 or self.batch < 2:
            raise RecipeError("teach: epochs, dim, lr and projection_lr must be above 0, and batch at least 2")
        if min(self.width, self.questions) < 1:
            raise RecipeError("teach: width and questions must be at least 1")
        weights = (self.align, self.margin, self.label, self.classifier, self.answer)
        if min(self.head_epochs, self.mixup, *weights) < 0:
            raise RecipeError("teach: head_epochs, mixup and the weights of tasks must not be negative")
        if min(self.size, self.train_size or self.size) < 32:
            raise RecipeError(
                f"teach.size and train_size must be at least 32 pixels, got {self.size} and {self.train_size}"
            )

    def check(self) -> None:
        """Raises RecipeError for options or sizes that the towers refuse, or a checkpoint that cannot be used,
        Unavailable if a package is missing."""
        from compress.models import check_size, fusion_tower

        if self.source:
            from compress.checkpoint_teacher import check_source

            check_source(self)
            return
        check_options(self.image, self.image_options, self.text, self.text_options)
        for size in (self.size, self.train_size or self.size):
            check_size(self.image, self.image_options, size)
        fusion_tower(self.fusion).build(self.fusion_options, self.width, 2)
        text_tower(self.text).tokenizer(self.text_options, self.max_length)

    def check_corpus(self, corpus: Corpus, steps: "Sequence[Step]") -> None:
        """Raises RecipeError for labels that the text tower reads alike."""
        from tokenizers import Tokenizer

        from compress.label_checks import check_labels
        from compress.teacher_outline import outline_of

        if self.source:
            tokenizer = Tokenizer.from_str(outline_of(self).tokenizer)
        else:
            tokenizer = text_tower(self.text).tokenizer(self.text_options, self.max_length)
        check_labels(corpus.labels, tokenizer)

    @on_device
    def run(self, draft: Draft) -> Draft:
        """Adds `teacher` and the metrics teach.val_top1 (share of the labelled validation images), teach.val_n and, if
        the data has questions, teach.val_answers (share of the validation questions), and the pace of each training;
        for a checkpoint what `compress.parity.prove` measured."""
        from compress.models.dual_encoder import Shape, save_model
        from compress.prepared import prepared
        from compress.teaching import Lesson
        from compress.validate import validate

        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        if self.source:
            from compress.checkpoint_teacher import take

            return take(self, draft, corpus)
        corpus.rounds(self.batch, "teach")  # refuses a batch that is too large before any weights are read
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(Shape) if item.name != "answers"}
        shape = Shape(**fields, answers=corpus.answers)
        if self.mixup and corpus.answers:
            raise RecipeError("teach.mixup cannot be used with questions: a mixed image has no answer; set it to 0")
        lesson = Lesson(self, shape, corpus, draft)
        draft = self._train(lesson, draft)
        files = save_model(lesson.model, shape, draft.folder / "teacher")
        val = prepared(corpus.val.images, self.size, draft.out, "teach: read val")
        draft = dataclasses.replace(draft, teacher=files)
        return draft.with_metrics("teach", **validate(lesson.model, files, corpus, val))

    def content(self) -> str:
        """sha256 (hex) of the checkpoint's files, which decide the result as the fields do; "" without one."""
        from compress.checkpoint_teacher import source_content

        return source_content(self) if self.source else ""

    def _train(self, lesson: "Lesson", draft: Draft) -> Draft:
        """The tower, then the answers alone; how fast each was goes into the draft."""
        from compress.train import train

        kept = draft.folder
        state = kept / "checkpoint-teach.pt"
        if self.fit and not state.exists():  # else what is fitted would be replaced at once
            lesson.fit()
        seconds = train(
            "teach: train", lesson.learner, lesson.optimizer(), lesson.steps, lesson.loss, state, self.average
        )
        draft = draft.with_pace("teach: train", lesson.steps, self.batch, seconds)
        if lesson.head_steps:
            head = lesson.head(), lesson.head_optimizer(), lesson.head_steps, lesson.head_loss
            seconds = train("teach: answers", *head, kept / "checkpoint-head.pt")
            draft = draft.with_pace("teach: answers", lesson.head_steps, self.batch, seconds)
        return draft
