"""What a student learns from: the teacher's stored vectors and answers, and the data's own truth, as one loss."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from compress.data import Corpus, Label
from compress.draft import Draft, ModelFiles
from compress.hold_out import learnt_from
from compress.losses import (
    affinity_loss,
    answer_loss,
    cosines,
    feature_loss,
    interactive_loss,
    label_loss,
    multi_positive_info_nce,
)
from compress.models.dual_encoder import load_model, to_input
from compress.processes import world
from compress.questions import Pairs, Questions, token_arrays
from compress.schedule import Optimizer, warm_cosine
from compress.shares import gather, part, share, spread
from compress.store import Store
from compress.views import views
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.steps.distill import Distill


class Distilling:
    """`model`: the student in training. `steps`: how many there are. All randomness is of (seed, epoch or step).

    Raises RecipeError if what is not held out makes no whole batch.
    """

    def __init__(self, asked: "Distill", student: ModelFiles, corpus: Corpus, store: Store, draft: Draft) -> None:
        self._asked, self._store, self._seed = asked, store, draft.seed
        self._normal = (student.image.mean, student.image.std)
        how = (store.header.augment, asked.train_size, store.header.seed)
        specs = (draft.need("teacher", "distill").image, student.image)
        self._views = views(corpus.train.images, specs, how, draft.out, "distill: read train")
        self._matches = torch.as_tensor(corpus.train.matches)
        self._label = torch.as_tensor(corpus.train.label)
        self._learnt = learnt_from(corpus.train.label, draft.hold_out)
        self._rounds = len(self._learnt) // asked.batch
        if not self._rounds:
            raise RecipeError(
                f"distill.batch is {asked.batch}, and prune.hold_out = {draft.hold_out:g} leaves "
                f"{len(self._learnt)} train images: not one step; lower one of them"
            )
        if asked.train_size and len(store.train) == 1:
            raise RecipeError(
                "distill.train_size is of all views but the first, and the store has one; set embed.views to 2 or more"
            )
        self.steps = asked.epochs * self._rounds
        self.model = load_model(student).to(memory_format=torch.channels_last)
        # The losses use the teacher's factor and train none: the student's probabilities mean what the teacher's do.
        torch.nn.init.constant_(self.model.logit_scale, math.log(store.header.logit_scale)).requires_grad_(False)
        tokenizer = Tokenizer.from_file(str(student.text.tokenizer))
        self._texts = Texts(corpus, store, tokenizer, asked.phrases)
        self._classes = self._texts.classes(corpus.labels) if asked.label else None
        self._questions = None
        if store.answers is not None:
            self._questions = Questions(corpus.train.questions, store.header.answers, tokenizer)

    def optimizer(self) -> Optimizer:
        """Images and what is above both learn at `lr`, texts at `text_lr`."""
        fast = [self.model.image, *([self.model.fusion] if self.model.fusion is not None else [])]
        groups = [
            {"params": [parameter for module in fast for parameter in module.parameters()], "lr": self._asked.lr},
            {"params": list(self.model.text.parameters()), "lr": self._asked.text_lr},
        ]
        return warm_cosine(groups, self.steps, self._asked.warmup, self._asked.weight_decay)

    def loss(self, step: int) -> Tensor:
        """The weighted sum of the losses over the batch of this step, a scalar; what weighs nothing is not computed. Of
        several processes each reads its share of the images and texts, and all have the loss of the whole, but for the
        answers: their mean over the ranks is that of the whole.

        Every `text_every`-th step trains the text side, and with it the questions; in the others the images meet the
        teacher's captions, as in the interactive loss, which costs half.
        """
        asked, model, (epoch, at) = self._asked, self.model, divmod(step, self._rounds)
        order = np.random.default_rng((self._seed, 0, epoch)).permutation(self._learnt)
        chosen, view = order[at * asked.batch : (at + 1) * asked.batch], epoch % len(self._store.train)
        rng = np.random.default_rng((self._seed, 1, step))
        # The first view is the whole frame, which looks as it will on the device.
        spatial, pooled = model.image.tower(to_input(self._views(share(chosen), view), *self._normal))
        images, captioned = gather(model.image.projection(pooled)), self._matches.shape[1]
        wanted = self._wanted(view, chosen)
        if at % asked.text_every:
            captions = self._texts.captions(rng)
            return self._match(images, wanted, (self._texts.vectors[captions],) * 2, chosen)
        rows = self._texts.draw(rng)
        if not asked.text_feature:
            rows = rows[:captioned]
        texts = spread(rows, lambda own: model.encode_text(*self._texts.feeds(own)))
        both = texts[:captioned], self._texts.vectors[rows[:captioned]]
        loss = self._match(images, wanted, both, chosen)
        if asked.text_feature:
            loss = loss + asked.text_feature * feature_loss(texts, self._texts.vectors[rows])
        if self._questions is None or not asked.answer:
            return loss
        pairs = self._questions.of(chosen, asked.questions, rng, part(len(chosen)))
        if not len(pairs.asked):  # nothing was asked about these images
            return loss
        weight = asked.answer * world() * pairs.share  # a mean over the questions about this rank's images
        return loss + weight * self._answer_loss(self._answers(self._questions, pairs, spatial), pairs, view)

    def _wanted(self, view: int, chosen: NDArray[np.int64]) -> Tensor:
        """The teacher's unit vectors of the images `chosen`, float32 (N, dim)."""
        return torch.as_tensor(self._store.vectors(view, chosen))

    def _match(
        self, images: Tensor, wanted: Tensor, captions: tuple[Tensor, Tensor], chosen: NDArray[np.int64]
    ) -> Tensor:
        """`images`, `wanted`: the student's and the teacher's (N, dim) of `chosen`; `captions`: theirs too (C, dim)."""
        asked, scale = self._asked, self._store.header.logit_scale
        matches = self._matches[chosen][:, : len(captions[0])]
        near = scale * cosines(images, captions[0])
        loss = 0 * images.sum()  # there is something to go back through, whatever weighs nothing
        if asked.feature:
            loss = loss + asked.feature * feature_loss(images, wanted)
        if asked.affinity:
            loss = loss + asked.affinity * affinity_loss(near, scale * cosines(wanted, captions[1]))
        if asked.contrast:
            loss = loss + asked.contrast * multi_positive_info_nce(near, matches)
        if asked.interactive:
            crossed = (scale * cosines(images, captions[1]), scale * cosines(wanted, captions[0]))
            loss = loss + asked.interactive * interactive_loss(*crossed, matches)
        if self._classes is None:
            return loss
        logits = scale * cosines(images, self._classes)
        return loss + asked.label * label_loss(logits, self._label[chosen], asked.smoothing)

    def _answers(self, questions: Questions, pairs: Pairs, spatial: Tensor) -> Tensor:
        """Logits (P, answers) of the questions; `spatial`: the image tower's tokens."""
        model, mask = self.model, questions.mask[pairs.texts]
        words = model.text.both(questions.ids[pairs.texts], mask)[1][pairs.text]
        return model.answer(model.image.project_tokens(spatial)[pairs.image], words, mask[pairs.text])

    def _answer_loss(self, logits: Tensor, pairs: Pairs, view: int) -> Tensor:
        """Against the teacher's answers to the same questions."""
        return answer_loss(logits, torch.as_tensor(self._store.logits(view, pairs.asked)))


class Texts:
    """The texts of the store. `vectors`: the teacher's, unit, float32 (T, dim). Rows are positions among them."""

    def __init__(self, corpus: Corpus, store: Store, tokenizer: Tokenizer, phrases: int) -> None:
        self._ids, self._mask = token_arrays(tokenizer, store.header.texts)
        self.vectors = torch.as_tensor(store.texts.copy())
        self._place = {text: at for at, text in enumerate(store.header.texts)}
        self._wordings = [[self._place[wording] for wording in wordings] for wordings in corpus.captions]
        # Phrases of a step are of like length: padding costs as much as words.
        lengths = self._mask[: len(store.header.texts) - store.header.held_out].sum(1)
        self._by_length = lengths.argsort(kind="stable")
        self._phrases = phrases

    def classes(self, labels: Sequence[Label]) -> Tensor:
        """float32 (K, dim): the teacher's vector of each label, the mean over its prompts as on the device, of no
        particular length."""
        rows = [[self._place[prompt] for prompt in label.prompts] for label in labels]
        return torch.stack([self.vectors[each].mean(0) for each in rows])

    def captions(self, rng: np.random.Generator) -> list[int]:
        """One wording of every caption, in order."""
        return [wordings[rng.integers(len(wordings))] for wordings in self._wordings]

    def draw(self, rng: np.random.Generator) -> list[int]:
        """The captions, and after them everyday phrases."""
        start = rng.integers(max(1, len(self._by_length) - self._phrases + 1))
        return [*self.captions(rng), *self._by_length[start : start + self._phrases].tolist()]

    def feeds(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """ids and mask, int64 (R, longest)."""
        longest = int(self._mask[rows].sum(1).max())
        return torch.as_tensor(self._ids[rows, :longest]), torch.as_tensor(self._mask[rows, :longest])
