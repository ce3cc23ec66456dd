"""What a teacher learns from: images against captions and questions about them as one loss, then questions alone.

While the tower still moves, the fusion follows it but does not settle (91 % of the answers on validation after five
epochs); on features that stand still it takes seconds (99.9 %).
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.augment import augment_batch
from compress.data import Corpus
from compress.draft import Draft
from compress.losses import cosines, multi_positive_info_nce
from compress.models import image_tower, text_tower
from compress.models.dual_encoder import Shape, build, to_input
from compress.prepared import prepared
from compress.questions import Questions, tokens
from compress.schedule import Optimizer, warm_cosine

if TYPE_CHECKING:
    from compress.steps.teach import Teach


class Lesson:
    """`model`: the teacher in training. `steps`: how many there are. All randomness is of (seed, epoch or step)."""

    def __init__(self, asked: "Teach", shape: Shape, corpus: Corpus, draft: Draft) -> None:
        torch.manual_seed(draft.seed)
        self._asked, self._seed = asked, draft.seed
        self._tower = image_tower(asked.image)
        self._frames = prepared(corpus.train.images, asked.size, draft.out, "teach: read train")
        self._matches = torch.from_numpy(corpus.train.matches)
        self._rounds = corpus.rounds(asked.batch, "teach")
        self.steps = asked.epochs * self._rounds
        self.head_steps = asked.head_epochs * self._rounds if corpus.answers else 0
        self.model = build(shape).to(memory_format=torch.channels_last)
        self.model.text.tower.requires_grad_(False)
        self._read(corpus, shape)

    def _read(self, corpus: Corpus, shape: Shape) -> None:
        """The frozen text tower sees every text once: pooled features of captions, tokens of questions."""
        tokenizer = text_tower(shape.text).tokenizer(shape.text_options, shape.max_length)
        tower = self.model.text.tower.eval()
        with torch.no_grad():
            self._captions = [tower(*tokens(tokenizer, wordings))[1] for wordings in corpus.captions]
            self._questions = None
            if corpus.answers:
                self._questions = Questions(corpus.train.questions, corpus.answers, tokenizer)
                self._tokens = tower(self._questions.ids, self._questions.mask)[0]

    def head(self) -> nn.ModuleList:
        """What stands on top of the towers to answer questions: both projections of tokens, and the fusion."""
        parts = (self.model.image.tokens, self.model.text.tokens, self.model.fusion)
        return nn.ModuleList(part for part in parts if part is not None)

    def head_optimizer(self) -> Optimizer:
        """For the head alone."""
        groups = [{"params": list(self.head().parameters()), "lr": self._asked.projection_lr}]
        return warm_cosine(groups, self.head_steps, self._asked.warmup, self._asked.weight_decay)

    def optimizer(self) -> Optimizer:
        """The tower learns at `lr`, what is fresh at `projection_lr`."""
        tower = set(self.model.image.tower.parameters())
        fresh = [p for p in self.model.parameters() if p.requires_grad and p not in tower]
        groups = [
            {"params": list(self.model.image.tower.parameters()), "lr": self._asked.lr},
            {"params": fresh, "lr": self._asked.projection_lr},
        ]
        return warm_cosine(groups, self.steps, self._asked.warmup, self._asked.weight_decay)

    def loss(self, step: int) -> Tensor:
        """The weighted sum of the tasks over the batch of this step, a scalar in nats."""
        asked, model, epoch = self._asked, self.model, step // self._rounds
        chosen, rng = self._draw(step)
        # View 0 is the plain frame; here every epoch is a view of its own.
        batch = augment_batch(self._frames, chosen, asked.augment, self._seed, epoch + 1)
        spatial, pooled = model.image.tower(to_input(batch, self._tower.MEAN, self._tower.STD))
        texts = torch.stack([wordings[rng.integers(len(wordings))] for wordings in self._captions])
        logits = model.scale() * cosines(model.image.projection(pooled), model.text.projection(texts))
        loss: Tensor = asked.align * multi_positive_info_nce(logits, self._matches[chosen])
        if self._questions is None:
            return loss
        return loss + asked.answer * self._answer_loss(self._questions, spatial, chosen, rng)

    @cached_property
    def _features(self) -> Tensor:
        """The trained tower's tokens of the plain train images, float32 (N, T, token_width)."""
        with torch.no_grad():
            parts = (self._frames[at : at + 256] for at in range(0, len(self._frames), 256))
            tower, normal = self.model.image.tower.eval(), (self._tower.MEAN, self._tower.STD)
            return torch.cat([tower(to_input(part, *normal))[0] for part in parts])

    def head_loss(self, step: int) -> Tensor:
        """Questions alone, on the features of the tower as it is now."""
        if self._questions is None:
            raise TypeError("there are no questions: the head has no steps")
        chosen, rng = self._draw(self.steps + step)
        return self._answer_loss(self._questions, self._features[chosen], chosen, rng)

    def _answer_loss(
        self, questions: Questions, spatial: Tensor, chosen: NDArray[np.int64], rng: np.random.Generator
    ) -> Tensor:
        """Cross-entropy of answers; `spatial`: the tower's tokens of the images `chosen`."""
        pairs = questions.of(chosen, self._asked.questions, rng)
        if not len(pairs.asked):  # nothing was asked about these images
            return spatial.new_zeros(())
        mask = questions.mask[pairs.texts]
        words = self.model.text.project_tokens(self._tokens[pairs.texts], mask)[pairs.text]
        seen = self.model.image.project_tokens(spatial)[pairs.image]
        return F.cross_entropy(self.model.answer(seen, words, mask[pairs.text]), pairs.truth)

    def _draw(self, step: int) -> tuple[NDArray[np.int64], np.random.Generator]:
        """The images of a step's batch, and the generator for all else in it."""
        epoch, at = divmod(step, self._rounds)
        order = np.random.default_rng((self._seed, 0, epoch)).permutation(len(self._frames))
        batch = self._asked.batch
        return order[at * batch : (at + 1) * batch], np.random.default_rng((self._seed, 1, step))
