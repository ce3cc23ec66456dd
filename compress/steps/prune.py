"""prune: a student from the teacher or from another tower: blocks and channels go, what stays keeps its weights.

What goes is measured on training data: the residual blocks without which the outputs turn least, then the channels
that move them least per parameter saved; of transformers the width, heads, hidden units and whole parts. A short
training (distill) brings back what was lost.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from compress.data import Corpus, open_dataset
from compress.device import on_device
from compress.draft import Draft, ImageSpec, ModelFiles, TextSpec
from compress.latency import check_target, parse_latency
from compress.named import check_name
from runtimes import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from compress.models.dual_encoder import DualEncoder
    from compress.recipe import Step
    from compress.store import Store

BATCH = 64


@dataclass(frozen=True)
class Prune:
    """Targets. `params`: share of the parameters of image and text side together that may stay, of a teacher whose
    towers are both transformers of ours, as a checkpoint's are; `latency`: such as "5ms@ov:cpu", how long one frame may
    take there, see compress/timed_cut.py. `image_params`: share of the image side's parameters that may stay;
    `image_blocks`: residual blocks of it that are left out before; `text_layers`: layers of the text tower that stay
    (None: all); `text_options`: changes to its options, such as {vocab = 8000}. `samples`: train images on which
    importance is measured.

    `image`, `image_options`: another image tower by name ("": none), with its pretrained weights if it has any, in the
    place of the teacher's; its projection is fitted to the teacher's vectors before anything is cut. `size`: edge in
    pixels of the student's frames; 0: the teacher's. Without `inherit` the image side keeps its shape and its weights
    are drawn anew: what a student is worth that starts from nothing. `hold_out`: share of each label's train images
    that no step of the student learns from, see compress/hold_out.py.
    """

    needs: ClassVar = ("teacher", "store")
    makes: ClassVar = ("student",)

    params: float = 1.0
    latency: str = ""
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
        for name in ("params", "image_params"):
            if not 0 < getattr(self, name) <= 1:
                raise RecipeError(f"prune.{name} is a share, above 0 and at most 1, got {getattr(self, name)}")
        if self.latency:
            parse_latency(self.latency)
        if self.image_blocks < 0 or (self.text_layers is not None and self.text_layers < 1):
            raise RecipeError("prune: image_blocks must not be negative, and text_layers at least 1")
        if self.size and self.size < 32:
            raise RecipeError(f"prune.size must be at least 32 pixels, or 0 for the teacher's, got {self.size}")
        if not 0 <= self.hold_out < 1:
            raise RecipeError(f"prune.hold_out is a share, from 0 to below 1, got {self.hold_out:g}")
        if self.samples < 2 * BATCH:
            raise RecipeError(f"prune.samples must be at least {2 * BATCH}, got {self.samples}")

    def check(self) -> None:
        """Raises what building another image tower would raise, RecipeError if it takes no frames of `size`, and
        Unavailable if the target of `latency` is not here."""
        from compress.models import check_size, image_tower, outline

        if self.latency:
            check_target(parse_latency(self.latency).target)
        if self.image:
            outline(image_tower(self.image), self.image_options)
            if self.size:
                check_size(self.image, self.image_options, self.size)

    def check_after(self, steps: "Sequence[Step]") -> None:
        """Raises RecipeError for targets that the teacher of [teach] cannot be cut to, or a `size` above that of the
        frames that views are cut of."""
        from compress.steps.embed import Embed
        from compress.steps.teach import Teach
        from compress.targets import check_targets, check_views

        teach = next((step for step in steps if isinstance(step, Teach)), None)
        if teach is None:
            return
        check_targets(self, teach)
        embed = next((step for step in steps if isinstance(step, Embed)), None)
        if embed is not None:
            check_views(self, teach, embed)

    def check_corpus(self, corpus: Corpus, steps: "Sequence[Step]") -> None:
        """Raises RecipeError for a vocabulary too small for the words of the data set, as the text tower does that has
        its own. What stays of a checkpoint's is decided by its tokens."""
        from compress.models import text_tower
        from compress.steps.teach import Teach
        from compress.text_student import with_words

        for teach in (step for step in steps if isinstance(step, Teach) and not step.source):
            options = with_words(teach.text_options, self.text_options, corpus)
            text_tower(teach.text).tokenizer(options, teach.max_length)

    @on_device
    def run(self, draft: Draft) -> Draft:
        """Adds `student`, not trained yet, and the metrics prune.image_params, prune.text_params (how many are left),
        prune.without (what was left out) and what the student is worth as it is. Of what `params`, `latency` and
        `image_params` cut of transformers: prune.image_shape, text_shape, share, latency (as asked) and latency_ms."""
        from compress.models import image_tower
        from compress.models.dual_encoder import load_model, token_count, write_weights
        from compress.prepared import prepared
        from compress.store import identity, open_store
        from compress.targets import meet_targets
        from compress.text_student import check_text
        from compress.validate import validate

        teacher: ModelFiles = draft.need("teacher", "prune")
        check_text(teacher.text.name, teacher.text.options, self.text_options)
        corpus = open_dataset(draft.dataset.name, draft.dataset.fields).load()
        model = load_model(teacher)
        folder = draft.folder / "student"
        folder.mkdir()
        store = open_store(draft.need("store", "prune"), identity(teacher), corpus.fingerprint)
        text, texts = self._text(model, teacher, corpus, draft, store)
        image, shown = self._image(model, teacher, draft, corpus, store)
        image, text, met = meet_targets(self, model, teacher, (image, text), ([(each,) for each in shown], texts))
        top = teacher.fusion and dataclasses.replace(
            teacher.fusion,
            weights=folder / "fusion.safetensors",
            image_tokens=token_count(model.image.tower, image.size),
        )
        licences = teacher.licences | image_tower(image.name).LICENCE
        files = dataclasses.replace(teacher, image=image, text=text, fusion=top, licences=licences)
        write_weights(model, files)
        val = prepared(corpus.val.images, image.size, draft.out, "prune: read val", image.resize, image.crop)
        draft = dataclasses.replace(draft, student=files, hold_out=self.hold_out)
        without = ", ".join((*image.without, *text.without))
        measured = validate(model.eval(), files, corpus, val, store.val)
        return draft.with_metrics(
            "prune", image_params=image.params, text_params=text.params, without=without, **met, **measured
        )

    def _image(
        self, model: "DualEncoder", teacher: ModelFiles, draft: Draft, corpus: Corpus, store: "Store"
    ) -> "tuple[ImageSpec, list[Tensor]]":
        """Make the student's image side in place; and photos on which importance is measured, where it is."""
        import numpy as np

        from compress.hold_out import learnt_from
        from compress.image_student import Photos, another, batches, cut, meet_teacher
        from compress.models import image_tower
        from compress.projection import FIT
        from compress.scratch import start_afresh
        from compress.views import views

        size = self.size or teacher.image.size
        # Whatever its teacher's, a student's frames are made by our own resize, which it trains through; but they show
        # the same part of the photo.
        crop = "none" if teacher.image.crop == "none" else "center"
        weights = draft.folder / "student" / "image.safetensors"
        spec = dataclasses.replace(teacher.image, size=size, resize="area", crop=crop, weights=weights)
        if self.image:
            module = image_tower(self.image)
            options = dict(self.image_options)
            spec = dataclasses.replace(
                spec, name=self.image, options=options, mean=module.MEAN, std=module.STD, without=()
            )
        how = (store.header.augment, 0, store.header.seed)
        seen = views(corpus.train.images, (teacher.image, spec), how, draft.out, "prune: read train")
        photos = Photos(seen, store, (spec.mean, spec.std))
        learnt = np.random.default_rng(draft.seed).permutation(learnt_from(corpus.train.label, self.hold_out))
        if self.image:
            model.image = another(self.image, self.image_options, teacher, draft.seed)
            meet_teacher(model.image, photos, np.sort(learnt[:FIT]))
        shown = []
        if min(self.params, self.image_params) < 1 or self.latency or self.image_blocks:
            shown = batches(photos, learnt[: self.samples])
            model.image, spec = cut(model.image, spec, shown, self.image_params, self.image_blocks)
        if not self.inherit:
            start_afresh(model.image, draft.seed)
        return dataclasses.replace(spec, params=model.image.count()), shown

    def _text(
        self, model: "DualEncoder", teacher: ModelFiles, corpus: Corpus, draft: Draft, store: "Store"
    ) -> "tuple[TextSpec, list[tuple[Tensor, ...]]]":
        """Prune the text side in place: its vocabulary as `text_options` say, then its layers; and texts on which
        importance is measured."""
        from compress.text_student import fewer_layers, fewer_words, training_texts

        folder = draft.folder / "student"
        spec = fewer_words(model.text, teacher.text, self.text_options, corpus, folder / "tokenizer.json")
        feeds = training_texts(spec, store, corpus, draft.seed)
        gone = fewer_layers(model.text, feeds, self.text_layers)
        without = (*teacher.text.without, *gone)
        return dataclasses.replace(
            spec, weights=folder / "text.safetensors", params=model.text.count(), without=without
        ), feeds
