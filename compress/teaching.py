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
from compress.losses import cosines, label_loss, max_margin_loss, multi_positive_info_nce
from compress.models import image_tower, text_tower
from compress.models.dual_encoder import Shape, build, to_input
from compress.prepared import prepared
from compress.progress import bar
from compress.projection import FIT, fit_projection
from compress.questions import Questions, tokens
from compress.schedule import Optimizer, warm_cosine
from compress.whitening import whiten

if TYPE_CHECKING:
    from compress.steps.teach import Teach


class Lesson:
    """`model`: the teacher in training; `learner`: that and the classifier that is thrown away. `steps`, `head_steps`:
    how many there are of each kind: all but the text tower, answers on stored features. All randomness is of (seed,
    epoch or step)."""

    def __init__(self, asked: "Teach", shape: Shape, corpus: Corpus, draft: Draft) -> None:
        torch.manual_seed(draft.seed)
        self._asked, self._seed = asked, draft.seed
        self._tower = image_tower(asked.image)
        edge = asked.augment.edge(asked.size)
        self._frames = prepared(corpus.train.images, edge, draft.out, "teach: read train")
        self._plain = prepared(corpus.train.images, asked.size, draft.out, "teach: read train")
        self._matches = torch.as_tensor(corpus.train.matches)
        self._label = torch.as_tensor(corpus.train.label)
        self._rounds = corpus.rounds(asked.batch, "teach")
        self.steps = asked.epochs * self._rounds
        self.head_steps = asked.head_epochs * self._rounds if corpus.answers else 0
        self.model = build(shape).to(memory_format=torch.channels_last)
        self.model.text.tower.requires_grad_(False)
        self._classifier: nn.Linear | None = None
        if asked.classifier:
            self._classifier = nn.Linear(int(self.model.image.tower.width), len(corpus.labels))  # type: ignore[arg-type]
        self.learner = nn.ModuleList(part for part in (self.model, self._classifier) if part is not None)
        self._read(corpus, shape)

    def _read(self, corpus: Corpus, shape: Shape) -> None:
        """The frozen text tower sees every text once: pooled features of captions and prompts, tokens of questions."""
        tokenizer = text_tower(shape.text).tokenizer(shape.text_options, shape.max_length)
        tower = self.model.text.tower.eval()
        with torch.no_grad():
            self._captions = [tower(*tokens(tokenizer, wordings))[1] for wordings in corpus.captions]
            prompts = [tower(*tokens(tokenizer, label.prompts))[1] for label in corpus.labels]
            self._questions = None
            if corpus.answers:
                self._questions = Questions(corpus.train.questions, corpus.answers, tokenizer)
                self._tokens = tower(self._questions.ids, self._questions.mask)[0]
        self._prompts = torch.cat(prompts)
        owner = np.repeat(np.arange(len(prompts)), [len(each) for each in prompts])
        # (K, prompts) that adds up a label's prompts: its vector is their mean, as on the device.
        self._owner = F.one_hot(torch.as_tensor(owner), len(prompts)).T.to(torch.float32)

    def head(self) -> nn.ModuleList:
        """What stands on top of the towers to answer questions: both projections of tokens, and the fusion."""
        parts = (self.model.image.tokens, self.model.text.tokens, self.model.fusion)
        return nn.ModuleList(part for part in parts if part is not None)

    def head_optimizer(self) -> Optimizer:
        """For the head alone."""
        groups = [{"params": list(self.head().parameters()), "lr": self._asked.projection_lr}]
        return warm_cosine(groups, self.head_steps, self._asked.warmup, self._asked.weight_decay)

    @torch.no_grad()
    def fit(self) -> None:
        """Set both projections in closed form: texts are whitened, and an image goes where its label's vector is, or
        the mean of its captions where it has no label."""
        model = self.model
        whiten(model.text.projection, torch.cat([*self._captions, self._prompts]))
        captions = torch.stack([self._unit(wordings).mean(0) for wordings in self._captions])
        wanted = F.normalize((self._matches == 1).to(captions.dtype) @ captions, dim=-1)
        known = self._label >= 0
        if known.any():
            wanted[known] = F.normalize(self._owner @ self._unit(self._prompts), dim=-1)[self._label[known]]
        some = torch.nonzero(wanted.any(1)).flatten().numpy(force=True)
        rows = np.sort(np.random.default_rng(self._seed).permutation(some)[:FIT])
        fit_projection(model.image, self._encode(1, rows), wanted[rows])

    def _unit(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.model.text.projection(pooled), dim=-1)

    def optimizer(self) -> Optimizer:
        """The tower learns at `lr`, what is fresh at `projection_lr`."""
        tower = set(self.model.image.tower.parameters())
        fresh = [p for p in self.learner.parameters() if p.requires_grad and p not in tower]
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
        size = asked.train_size or asked.size
        batch = augment_batch(self._frames, chosen, asked.augment, size, self._seed, epoch + 1)
        images = to_input(batch, self._tower.MEAN, self._tower.STD)
        if not asked.mixup:
            spatial, pooled = model.image.tower(images)
            loss = self._meet(pooled, chosen, rng)
            return loss if self._questions is None else loss + asked.answer * self._ask(spatial, chosen, rng)
        share, others = float(rng.beta(asked.mixup, asked.mixup)), rng.permutation(len(chosen))
        pooled = model.image.tower(share * images + (1 - share) * images[others])[1]
        return share * self._meet(pooled, chosen, rng) + (1 - share) * self._meet(pooled, chosen[others], rng)

    def _meet(self, pooled: Tensor, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Pooled features (N, width) of the images `chosen` against captions and labels, a scalar."""
        asked, model = self._asked, self.model
        images, matches = model.image.projection(pooled), self._matches[chosen]
        texts = torch.stack([wordings[rng.integers(len(wordings))] for wordings in self._captions])
        near = cosines(images, model.text.projection(texts))
        loss: Tensor = asked.align * multi_positive_info_nce(model.scale() * near, matches)
        if asked.margin:
            loss = loss + asked.margin * max_margin_loss(near, matches)
        if asked.label:
            near = cosines(images, self._owner @ self._unit(self._prompts))
            loss = loss + asked.label * label_loss(model.scale() * near, self._label[chosen], asked.smoothing)
        if self._classifier is not None:
            guess = self._classifier(pooled)
            loss = loss + asked.classifier * label_loss(guess, self._label[chosen], asked.smoothing)
        return loss

    @cached_property
    def _spatial(self) -> Tensor:
        """The trained tower's tokens of the plain train images, float32 (N, T, token_width)."""
        return self._encode(0, np.arange(len(self._plain)))

    @torch.no_grad()
    def _encode(self, output: int, rows: NDArray[np.int64]) -> Tensor:
        """What the tower says of the plain train images at `rows`: `output` 0 tokens (N, T, token_width), 1 pooled
        features (N, width)."""
        tower, normal = self.model.image.tower.eval(), (self._tower.MEAN, self._tower.STD)
        starts = range(0, len(rows), 64)
        with bar("teach: features", len(starts)) as tick:
            found = []
            for at in starts:
                found.append(tower(to_input(self._plain[rows[at : at + 64]], *normal))[output])
                tick("")
        return torch.cat(found)

    def head_loss(self, step: int) -> Tensor:
        """Questions alone, on the features of the tower as it is now."""
        chosen, rng = self._draw(self.steps + step)
        return self._ask(self._spatial[chosen], chosen, rng)

    def _ask(self, spatial: Tensor, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Cross-entropy of answers; `spatial`: the tower's tokens of the images `chosen`."""
        questions = self._questions
        if questions is None:
            raise TypeError("there are no questions: nothing can be asked")
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
