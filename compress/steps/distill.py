"""distill: train the student from the teacher's store: image side, text side and fusion together.

Losses, each with its weight: nearness to the teacher's vector of the image and of the phrase (CLIP-KD), the teacher's
affinities between images and captions (TinyCLIP), the student's images among the teacher's captions and the other way
round (CLIP-KD's interactive loss), its answers to questions, and the data's own truth: captions (multi-positive
InfoNCE) and labels.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from compress.data import Corpus, open_dataset
from compress.device import on_device
from compress.draft import Draft, ModelFiles
from compress.processes import check_share, is_main, main_first
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.models.dual_encoder import DualEncoder
    from compress.recipe import Step
    from compress.store import Store

LOSSES = ("feature", "text_feature", "affinity", "contrast", "interactive", "answer", "label")


@dataclass(frozen=True)
class Distill:
    """`epochs`: passes over the train images, each in the next of the stored views. `train_size`: edge in pixels of all
    views but the first, as `teach.train_size`; 0: the student's. `text_every`: one step in that many trains the text
    side, with `phrases` everyday phrases, and the answers, with `questions` per image. `lr`, `text_lr`:
    peak learning rates of AdamW. `warmup`: share of the steps in which they rise. `average`: see compress/average.py.
    Weights of the losses: `feature` (image vectors), `text_feature` (phrase vectors), `affinity`, `contrast`,
    `interactive`, `answer`, `label` (labels against each other, by the teacher's vectors of them; `smoothing` of the
    truth).
    """

    needs: ClassVar = ("teacher", "store", "student")
    makes: ClassVar = ("student",)
    distributed: ClassVar = True

    epochs: int = 3
    train_size: int = 0
    batch: int = 64
    phrases: int = 64
    questions: int = 3
    text_every: int = 2
    lr: float = 2e-3
    text_lr: float = 5e-4
    weight_decay: float = 0.02
    warmup: float = 0.2
    average: float = 0.0
    feature: float = 1.0
    text_feature: float = 2.0
    affinity: float = 1.0
    contrast: float = 0.2
    interactive: float = 0.0
    answer: float = 1.0
    label: float = 0.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warmup", "average", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"distill.{name} is a share, 0..1, got {getattr(self, name)}")
        above = (self.epochs, self.phrases, self.questions, self.text_every, self.lr, self.text_lr)
        if min(above) <= 0 or self.batch < 2:
            raise RecipeError(
                "distill: epochs, phrases, questions, text_every, lr and text_lr must be above 0, and batch at least 2"
            )
        if self.train_size and self.train_size < 32:
            raise RecipeError(
                f"distill.train_size must be at least 32 pixels, or 0 for the student's, got {self.train_size}"
            )
        if min(getattr(self, name) for name in LOSSES) < 0:
            raise RecipeError("distill: the weights of losses must not be negative")

    def check_after(self, steps: "Sequence[Step]") -> None:
        """Raises RecipeError if the student's tower takes no frames of `train_size`, or the processes cannot share the
        batch."""
        check_share(self.batch, "distill.batch")
        from compress.models import check_size
        from compress.steps.prune import Prune
        from compress.steps.teach import Teach
        from compress.teacher_outline import outline_of

        makers = [step for step in steps if isinstance(step, Teach | Prune) and step.image]
        if makers and self.train_size:
            last = makers[-1]
            tower = outline_of(last).image if isinstance(last, Teach) else (last.image, last.image_options)
            check_size(*tower, self.train_size)

    @on_device
    def run(self, draft: Draft) -> Draft:
        """The student trained, and the metrics distill.val_top1, val_answers, val_cosine (image vectors against the
        teacher's) and phrase_cosine (held-out phrases, against the teacher's)."""
        from compress.distilling import Distilling
        from compress.models.dual_encoder import write_weights
        from compress.store import identity, open_store
        from compress.train import train

        teacher, pruned = draft.need("teacher", "distill"), draft.need("student", "distill")
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        corpus.rounds(self.batch, "distill")  # refuses a batch that is too large before any weights are read
        store = open_store(draft.need("store", "distill"), identity(teacher), corpus.fingerprint)
        task = main_first(lambda: Distilling(self, pruned, corpus, store, draft))  # it reads images into files
        state = draft.folder / "checkpoint-distill.pt"
        seconds = train("distill: train", task.model, task.optimizer(), task.steps, task.loss, state, self.average)
        if not is_main():
            return draft
        draft = draft.with_pace("distill: train", task.steps, self.batch, seconds)
        files: ModelFiles = pruned.beside(draft.folder / "student")
        files = dataclasses.replace(files, logit_scale=float(task.model.scale()))
        write_weights(task.model, files)
        draft = dataclasses.replace(draft, student=files, train_size=self.train_size)
        return draft.with_metrics("distill", **self._measure(task.model, files, corpus, store, draft))

    def _measure(
        self, model: "DualEncoder", files: ModelFiles, corpus: Corpus, store: "Store", draft: Draft
    ) -> dict[str, float]:
        import torch
        from tokenizers import Tokenizer

        from compress.encode import encode_texts
        from compress.prepared import prepared
        from compress.validate import validate

        spec = files.image
        val = prepared(corpus.val.images, spec.size, draft.out, "distill: read val", spec.resize, spec.crop)
        tokenizer = Tokenizer.from_file(str(files.text.tokenizer))
        phrases = encode_texts(model, tokenizer, store.header.texts[-store.header.held_out :])
        near_phrases = (phrases * torch.as_tensor(store.texts[-store.header.held_out :].copy())).sum(1)
        return {
            **validate(model, files, corpus, val, store.val),
            "phrase_cosine": float(near_phrases.mean()),
            "phrase_cosine_p10": float(near_phrases.quantile(0.1)),
        }
