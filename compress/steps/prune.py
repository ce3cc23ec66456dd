"""prune: a student from the teacher or from another tower: blocks and channels go, what stays keeps its weights.

What goes is measured on training data: the residual blocks without which the outputs turn least, then the channels
that move them least per parameter saved. A short training (distill) brings back what was lost.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from compress.data import Corpus, open_dataset
from compress.device import on_device
from compress.draft import Draft, ImageSpec, ModelFiles, TextSpec
from compress.named import check_name
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.models.dual_encoder import DualEncoder, Side
    from compress.recipe import Step
    from compress.store import Store

BATCH = 64
TEXTS = 512  # phrases on which layers of the text tower are compared


@dataclass(frozen=True)
class Prune:
    """Targets. `image_params`: share of the image side's parameters that may stay; `image_blocks`: residual blocks of
    it that are left out before; `text_layers`: layers of the text tower that stay (None: all); `text_options`: changes
    to its options, such as {vocab = 8000}. `samples`: train images on which importance is measured.

    `image`, `image_options`: another image tower by name ("": none), with its pretrained weights if it has any, in the
    place of the teacher's; its projection is fitted to the teacher's vectors before anything is cut. `size`: edge in
    pixels of the student's frames; 0: the teacher's. Without `inherit` the image side keeps its shape and its weights
    are drawn anew: what a student is worth that starts from nothing. `hold_out`: share of each label's train images
    that no step of the student learns from, see compress/hold_out.py.
    """

    needs: ClassVar = ("teacher", "store")
    makes: ClassVar = ("student",)

    image_params: float = 1.0
    image_blocks: int = 0
    text_layers: int | None = None
    text_options: Mapping[str, Any] = field(default_factory=dict)
    image: str = ""
    image_options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    inherit: bool = True
    hold_out: float = 0.0
    samples: int = 512

    def __post_init__(self) -> None:
        if self.image:
            check_name("compress.models.image", self.image, "image tower")
        if not 0 < self.image_params <= 1:
            raise RecipeError(f"prune.image_params is a share, above 0 and at most 1, got {self.image_params}")
        if self.image_blocks < 0 or (self.text_layers is not None and self.text_layers < 1):
            raise RecipeError("prune: image_blocks must not be negative, and text_layers at least 1")
        if self.size and self.size < 32:
            raise RecipeError(f"prune.size must be at least 32 pixels, or 0 for the teacher's, got {self.size}")
        if not 0 <= self.hold_out < 1:
            raise RecipeError(f"prune.hold_out is a share, from 0 to below 1, got {self.hold_out:g}")
        if self.samples < 2 * BATCH:
            raise RecipeError(f"prune.samples must be at least {2 * BATCH}, got {self.samples}")

    def check(self) -> None:
        """Raises what building another image tower would raise, and RecipeError if it takes no frames of `size`."""
        from compress.models import check_size, image_tower, outline

        if self.image:
            outline(image_tower(self.image), self.image_options)
            if self.size:
                check_size(self.image, self.image_options, self.size)

    def check_after(self, steps: "Sequence[Step]") -> None:
        """Raises RecipeError for targets that the teacher which [teach] would train cannot be cut to."""
        from compress.blocks import blocks_of, check_drop
        from compress.models import check_size, image_tower, outline, text_tower
        from compress.scratch import check_afresh
        from compress.steps.teach import Teach

        teach = next((step for step in steps if isinstance(step, Teach)), None)
        if teach is None:
            return
        self._check_text(teach.text_options)
        name, options = (self.image, self.image_options) if self.image else (teach.image, teach.image_options)
        check_size(name, options, self.size or teach.size)
        image = outline(image_tower(name), options)
        check_drop("prune.image_blocks", self.image_blocks, blocks_of(image))
        if not self.inherit:
            check_afresh(image)
        layers = blocks_of(outline(text_tower(teach.text), {**teach.text_options, **self.text_options}))
        if self.text_layers is not None and self.text_layers > len(layers):
            raise RecipeError(f"prune.text_layers is {self.text_layers}, and {teach.text} has {len(layers)} of them")

    def check_corpus(self, corpus: Corpus, steps: "Sequence[Step]") -> None:
        """Raises RecipeError for a vocabulary too small for the words of the data set, as the text tower does."""
        from compress.models import text_tower
        from compress.steps.teach import Teach

        for teach in (step for step in steps if isinstance(step, Teach)):
            text_tower(teach.text).tokenizer(self._text_options(teach.text_options, corpus), teach.max_length)

    def _text_options(self, options: Mapping[str, Any], corpus: Corpus) -> dict[str, Any]:
        """Of the student's text tower. `options`: of the teacher's."""
        # Only where the vocabulary is cut do words need protection; other text towers may not know `keep`.
        keep = {"keep": list(corpus.words)} if "vocab" in self.text_options else {}
        return {**keep, **options, **self.text_options}

    def _check_text(self, options: Mapping[str, Any]) -> None:
        """`options`: of the teacher's text tower. A vocabulary can be cut once: ids are those of the whole."""
        if self.text_options and options:
            raise RecipeError(
                f"prune.text_options asks for {dict(self.text_options)}, and the teacher's text tower was made with "
                f"{dict(options)} already; leave out one of the two"
            )

    @on_device
    def run(self, draft: Draft) -> Draft:
        """Adds `student`, not trained yet, and the metrics prune.image_params, prune.text_params (how many are left),
        prune.without (what was left out) and what the student is worth as it is."""
        from compress.models import image_tower
        from compress.models.dual_encoder import load_model, token_count, write_weights
        from compress.prepared import prepared
        from compress.store import identity, open_store
        from compress.validate import validate

        teacher: ModelFiles = draft.need("teacher", "prune")
        self._check_text(teacher.text.options)
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        model = load_model(teacher)
        folder = draft.folder / "student"
        folder.mkdir()
        store = open_store(draft.need("store", "prune"), identity(teacher), corpus.fingerprint)
        text = self._text(model, teacher, corpus, draft, store)
        image = self._image(model, teacher, draft, corpus, store)
        top = teacher.fusion and dataclasses.replace(
            teacher.fusion,
            weights=folder / "fusion.safetensors",
            image_tokens=token_count(model.image.tower, image.size),
        )
        licences = teacher.licences | image_tower(image.name).LICENCE
        files = dataclasses.replace(teacher, image=image, text=text, fusion=top, licences=licences)
        write_weights(model, files)
        val = prepared(corpus.val.images, image.size, draft.out, "prune: read val")
        draft = dataclasses.replace(draft, student=files, hold_out=self.hold_out)
        without = ", ".join((*image.without, *text.without))
        measured = validate(model.eval(), files, corpus, val)
        return draft.with_metrics(
            "prune", image_params=image.params, text_params=text.params, without=without, **measured
        )

    def _image(
        self, model: "DualEncoder", teacher: ModelFiles, draft: Draft, corpus: Corpus, store: "Store"
    ) -> ImageSpec:
        """Make the student's image side in place."""
        import numpy as np

        from compress.hold_out import learnt_from
        from compress.image_student import Photos, cut, meet_teacher
        from compress.models import image_tower
        from compress.prepared import prepared
        from compress.projection import FIT
        from compress.scratch import start_afresh

        size = self.size or teacher.image.size
        spec = dataclasses.replace(teacher.image, size=size, weights=draft.folder / "student" / "image.safetensors")
        if self.image:
            module = image_tower(self.image)
            spec = dataclasses.replace(
                spec,
                name=self.image,
                options=dict(self.image_options),
                mean=module.MEAN,
                std=module.STD,
                without=(),
            )
        frames = prepared(corpus.train.images, store.header.augment.edge(size), draft.out, "prune: read train")
        photos = Photos(frames, store, size, (spec.mean, spec.std))
        learnt = np.random.default_rng(draft.seed).permutation(learnt_from(corpus.train.label, self.hold_out))
        if self.image:
            model.image = self._another(teacher, draft.seed)
            meet_teacher(model.image, photos, np.sort(learnt[:FIT]))
        if self.image_params < 1 or self.image_blocks:
            chosen = learnt[: self.samples]
            most = int(self.image_params * model.image.count())
            gone = cut(model.image, photos, most, self.image_blocks, chosen)
            spec = dataclasses.replace(spec, without=(*spec.without, *gone))
        if not self.inherit:
            start_afresh(model.image, draft.seed)
        return dataclasses.replace(spec, params=model.image.count())

    def _text(
        self, model: "DualEncoder", teacher: ModelFiles, corpus: Corpus, draft: Draft, store: "Store"
    ) -> TextSpec:
        """Prune the text side in place: its vocabulary as `text_options` say, then its layers."""
        import numpy as np

        from compress.blocks import blocks_of, leave_out_least
        from compress.models import text_tower
        from compress.models.pruned import leave_out
        from compress.questions import tokens

        module, options = text_tower(teacher.text.name), self._text_options(teacher.text.options, corpus)
        tokenizer = module.tokenizer(options, teacher.text.max_length)
        if options != teacher.text.options:
            tower = module.build(options, pretrained=False)
            leave_out(tower, teacher.text.without)
            tower.load_state_dict(module.fewer_words(model.text.tower.state_dict(), options), strict=True)
            model.text.tower = tower
        header = store.header
        known = [*header.texts[: -header.held_out], *dict.fromkeys(q.text for q in corpus.train.questions)]
        phrases = [str(text) for text in np.random.default_rng(draft.seed).permutation(known)[:TEXTS]]
        feeds = [tokens(tokenizer, phrases[at : at + BATCH]) for at in range(0, len(phrases), BATCH)]
        depth = len(blocks_of(model.text.tower)) if self.text_layers is not None else 0
        drop = max(0, depth - (self.text_layers or 0))
        gone = leave_out_least(model.text, feeds, drop, "prune: text layers")
        tokenizer.save(str(draft.folder / "student" / "tokenizer.json"))
        return dataclasses.replace(
            teacher.text,
            options=options,
            weights=draft.folder / "student" / "text.safetensors",
            tokenizer=draft.folder / "student" / "tokenizer.json",
            params=model.text.count(),
            without=(*teacher.text.without, *gone),
        )

    def _another(self, teacher: ModelFiles, seed: int) -> "Side":
        """The image side with the other tower, its projections fresh."""
        import torch

        from compress.models import image_tower
        from compress.models.dual_encoder import Side

        torch.manual_seed(seed)
        with torch.device("cpu"):  # drawn there, what is fresh is the same on every device
            tower = image_tower(self.image).build(self.image_options, pretrained=True)
            side = Side(tower, teacher.dim, teacher.fusion.width if teacher.fusion else 0)
        return side.to(torch.get_default_device())
