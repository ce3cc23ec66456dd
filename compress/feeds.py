"""Rows to run a model's graphs on, batch of one each, made as the device makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import runtimes
from benchmarks.evalset import EvalSet
from compress.draft import ModelFiles
from runtimes import Array, Target
from sdk.frames import read_frame
from sdk.resize import prepare
from sdk.text import Tokenizer

Rows = list[dict[str, Array]]


def eval_rows(model: ModelFiles, evalset: EvalSet, chosen: Sequence[int], target: Target) -> Mapping[str, Rows]:
    """Tower -> rows from an evaluation set, for the images at the positions `chosen`.

    Texts are the set's prompts and the questions about those images. Fusion gets each of these questions with the
    tokens that the float graphs make of image and question on `target`; no rows where nothing is asked.
    """
    images = [_image_row(model, evalset, index) for index in chosen]
    place = {index: row for row, index in enumerate(chosen)}
    asked = [(place[image], question) for image, question, _ in evalset.questions if image in place]
    pairs = asked if "fusion" in model.graphs else []
    prompts = [phrases[0] for phrases in evalset.prompts.values()]
    texts = dict.fromkeys([*(question for _, question in pairs), *prompts])
    rows = {"image": images, "text": text_rows(model, list(texts))}
    if pairs:
        rows["fusion"] = _fusion_rows(model, images, pairs, target)
    return rows


def text_rows(model: ModelFiles, texts: Sequence[str]) -> Rows:
    """`ids` and `mask`, int64 (1, L), of each text."""
    tokenizer = Tokenizer(model.text.tokenizer.read_text(encoding="utf-8"), model.text.max_length, "tokenizer.json")
    tokens = tokenizer(texts)
    return [{"ids": tokens.ids[i : i + 1], "mask": tokens.mask[i : i + 1]} for i in range(len(texts))]


def _image_row(model: ModelFiles, evalset: EvalSet, index: int) -> dict[str, Array]:
    spec = model.image
    return {"image": prepare(read_frame(evalset.images[index]), spec.size, spec.resize, spec.crop)[None]}


def _fusion_rows(model: ModelFiles, images: Rows, pairs: Sequence[tuple[int, str]], target: Target) -> Rows:
    texts = text_rows(model, [question for _, question in pairs])
    with (
        runtimes.open_session(target, model.graphs["image"]["fp32"], precision="f32") as image,
        runtimes.open_session(target, model.graphs["text"]["fp32"], precision="f32") as text,
    ):
        return [
            {
                "image": image.run(images[place])["tokens"],
                "text": text.run(row)["tokens"],
                "mask": row["mask"],
            }
            for (place, _), row in zip(pairs, texts, strict=True)
        ]
