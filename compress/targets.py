"""The targets of [prune] for transformers: whether they can be met, said before any work, and meeting them."""

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from compress.blocks import blocks_of, check_drop
from compress.draft import ImageSpec, Metric, ModelFiles, TextSpec
from compress.gates import Feeds
from compress.latency import parse_latency
from compress.models import check_size, image_tower, outline, text_tower
from compress.models.dual_encoder import DualEncoder, Side
from compress.models.pruned import check_channels
from compress.narrow import add_projection, drop_projection
from compress.scratch import check_afresh
from compress.shrink import Trunk, check_smallest, describe, shrink
from compress.teacher_outline import TeacherOutline, Tower, outline_of
from compress.text_student import Words, check_text
from compress.timed_cut import check_fastest, clock, meet_latency
from compress.vocabulary import fewer_tokens
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.steps.embed import Embed
    from compress.steps.prune import Prune
    from compress.steps.teach import Teach

Specs = tuple[ImageSpec, TextSpec]


def check_targets(asked: "Prune", teach: "Teach") -> None:
    """Raises RecipeError for targets that the teacher, trained here or a checkpoint, cannot be cut to."""
    found = outline_of(teach)
    (image, image_options), (text, text_options) = found.image, found.text
    check_text(text, text_options, asked.text_options)
    if asked.image:
        image, image_options = asked.image, asked.image_options
    check_size(image, image_options, asked.size or found.size)
    seen = outline(image_tower(image), image_options)
    check_drop("prune.image_blocks", asked.image_blocks, blocks_of(seen))
    if asked.image_params < 1 and not hasattr(seen, "parts"):
        check_channels(image, seen)
    if not asked.inherit:
        check_afresh(seen)
    changed = text_options if found.tokenizer else {**text_options, **asked.text_options}
    read = outline(text_tower(text), changed)
    layers = blocks_of(read)
    if asked.text_layers is not None and asked.text_layers > len(layers):
        raise RecipeError(f"prune.text_layers is {asked.text_layers}, and {text} has {len(layers)} of them")
    check_transformers(asked, (image, seen), (text, read))
    if found.tokenizer:
        _check_share(asked, found, seen)
    if asked.latency:
        _check_latency(asked, found, (image, image_options), seen)


def check_views(asked: "Prune", teach: "Teach", embed: "Embed") -> None:
    """Raises RecipeError for a student that sees more pixels than the frames have that its views are cut of."""
    edge = embed.augment.edge(outline_of(teach).size)
    if embed.views > 1 and asked.size > edge:
        raise RecipeError(
            f"prune.size is {asked.size}, and views are cut of frames of {edge} pixels, as the teacher sees them; "
            "raise embed.augment.source, or lower the size"
        )


def check_transformers(asked: "Prune", image: tuple[str, Any], text: tuple[str, Any]) -> None:
    """Raises RecipeError for a target that only transformers can be cut to, with other towers: (name, tower) each."""
    wanted = {"params": (image, text) if asked.params < 1 else (), "latency": (image,) if asked.latency else ()}
    for what, towers in wanted.items():
        other = next((name for name, tower in towers if not hasattr(tower, "parts")), None)
        if other is not None:
            raise RecipeError(
                f"prune.{what} cuts transformers, such as a checkpoint's (teach.source): the towers vit and "
                f"transformer_text, and not {other}; leave it out, and say prune.image_params, image_blocks, "
                "text_layers or text_options"
            )


def meet_targets(
    asked: "Prune", model: DualEncoder, teacher: ModelFiles, specs: Specs, feeds: tuple[Feeds, Feeds]
) -> tuple[ImageSpec, TextSpec, dict[str, Metric]]:
    """Cut the transformers of `model`, in place, to what is `asked`; the specs that say so, and what was met: the
    shapes, the share of the teacher's parameters, the milliseconds. `feeds`: photos, and texts.

    Raises RecipeError for a target that no shape meets.
    """
    image, text = specs
    check_transformers(asked, (image.name, model.image.tower), (text.name, model.text.tower))
    met: dict[str, Metric] = {}
    if asked.params < 1 or asked.latency:
        add_projection(model.image)
        trunks = {"image": Trunk(model.image, image_tower(image.name), image.options, feeds[0])}
        if asked.params < 1:
            whole = teacher.image.params + teacher.text.params
            trunks["text"] = Trunk(model.text, text_tower(text.name), text.options, feeds[1])
            trunks |= shrink(trunks, int(asked.params * whole), "prune.params")
            model.text = trunks["text"].side
            text = dataclasses.replace(text, options=trunks["text"].options, params=model.text.count())
        if asked.latency:
            wanted, met["latency"] = parse_latency(asked.latency), asked.latency
            with clock(image, wanted.target, image.weights.parent) as timed:
                trunks["image"], met["latency_ms"] = meet_latency(trunks["image"], wanted, timed)
        model.image = trunks["image"].side
        drop_projection(model.image)
        image = dataclasses.replace(image, options=trunks["image"].options, params=model.image.count())
        met["share"] = (image.params + text.params) / (teacher.image.params + teacher.text.params)
    for name, spec in (("image", image), ("text", text)):
        if spec.options.get("each_heads"):
            met[f"{name}_shape"] = describe(spec.options)
    return image, text, met


def _check_latency(asked: "Prune", found: TeacherOutline, tower: Tower, seen: Any) -> None:
    """Raises RecipeError for fewer milliseconds than the smallest shape takes, its weights drawn."""
    module, wanted = image_tower(tower[0]), parse_latency(asked.latency)
    size = asked.size or found.size
    spec = ImageSpec(*tower, Path(), 0, size=size, mean=module.MEAN, std=module.STD)
    with torch.device("meta"):
        side = Side(seen, found.dim, 0, bool(asked.image) or found.projected)
        add_projection(side)
    with TemporaryDirectory() as folder, clock(spec, wanted.target, Path(folder)) as timed:
        check_fastest(side, module, tower[1], wanted, timed)


def _check_share(asked: "Prune", found: TeacherOutline, seen: Any) -> None:
    """Raises RecipeError for a vocabulary that cannot be had, or a share below that of the smallest shape."""
    text, options = found.text[0], dict(found.text[1])
    vocab = Words(**asked.text_options).vocab
    if vocab:
        fewer_tokens(found.tokenizer, vocab, (), (options["end"], options["pad"]))
        options |= {"vocab": vocab, "end": 0, "pad": 0}
    if asked.params < 1:
        with torch.device("meta"):
            image = Side(seen, found.dim, 0, bool(asked.image) or found.projected)
            add_projection(image)
            sides = {"image": image, "text": Side(outline(text_tower(text), options), found.dim)}
        trunks = {name: Trunk(side, None, {}, ()) for name, side in sides.items()}
        check_smallest(trunks, int(asked.params * found.params), "prune.params", found.params)
