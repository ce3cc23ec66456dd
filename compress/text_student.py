"""The text side of a student: the teacher's, with fewer words and layers."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from compress.blocks import blocks_of, leave_out_least
from compress.data import Corpus
from compress.draft import TextSpec
from compress.models import text_tower
from compress.models.dual_encoder import Side
from compress.models.pruned import leave_out
from compress.named import fill
from compress.questions import tokens
from compress.steps.prune import BATCH
from compress.store import Store
from compress.vocabulary import fewer_tokens
from runtimes import RecipeError

TEXTS = 512  # phrases on which what may go is compared


@dataclasses.dataclass(frozen=True)
class Words:
    """Changes to a text tower whose tokenizer came with a checkpoint. `vocab`: at most so many tokens stay."""

    vocab: int = 0


def check_text(name: str, options: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises RecipeError for changes `asked` to the options of the teacher's text tower `name` that cannot be made:
    those that a checkpoint's tower does not know, and where ids are those of the whole, a second cut."""
    if hasattr(text_tower(name), "fewer_words"):
        if asked and options:
            raise RecipeError(
                f"prune.text_options asks for {dict(asked)}, and the teacher's text tower was made with "
                f"{dict(options)} already; leave out one of the two"
            )
    else:
        fill(Words, asked, "prune.text_options")


def with_words(options: Mapping[str, Any], asked: Mapping[str, Any], corpus: Corpus) -> dict[str, Any]:
    """The options of a text tower with the changes that are asked for."""
    # Only where the vocabulary is cut do words need protection; other text towers may not know `keep`.
    keep = {"keep": list(corpus.words)} if "vocab" in asked else {}
    return {**keep, **options, **asked}


def fewer_words(side: Side, spec: TextSpec, asked: Mapping[str, Any], corpus: Corpus, out: Path) -> TextSpec:
    """Cut the vocabulary of the side as `asked`, in place, and write its tokenizer to `out`."""
    module = text_tower(spec.name)
    if not hasattr(module, "fewer_words"):
        return _fewer_tokens(side, spec, asked, corpus, out)
    options = with_words(spec.options, asked, corpus)
    tokenizer = module.tokenizer(options, spec.max_length)
    if options != spec.options:
        tower = module.build(options, pretrained=False)
        leave_out(tower, spec.without)
        tower.load_state_dict(module.fewer_words(side.tower.state_dict(), options), strict=True)
        side.tower = tower
    tokenizer.save(str(out))
    return dataclasses.replace(spec, options=options, tokenizer=out)


def training_texts(spec: TextSpec, store: Store, corpus: Corpus, seed: int) -> list[tuple[Tensor, ...]]:
    """Texts of training in batches, as ids and mask, int64 (N, longest) each: what to compare sides on."""
    header = store.header
    known = [*header.texts[: -header.held_out], *dict.fromkeys(q.text for q in corpus.train.questions)]
    chosen = [str(text) for text in np.random.default_rng(seed).permutation(known)[:TEXTS]]
    tokenizer = Tokenizer.from_file(str(spec.tokenizer))
    return [tokens(tokenizer, chosen[at : at + BATCH]) for at in range(0, len(chosen), BATCH)]


def fewer_layers(side: Side, feeds: list[tuple[Tensor, ...]], layers: int | None) -> tuple[str, ...]:
    """Leave out, in place, all but `layers` layers of the side (None: all stay), those without which its outputs turn
    least; returns their names."""
    depth = len(blocks_of(side.tower)) if layers is not None else 0
    return leave_out_least(side, feeds, max(0, depth - (layers or 0)), "prune: text layers")


def _fewer_tokens(side: Side, spec: TextSpec, asked: Mapping[str, Any], corpus: Corpus, out: Path) -> TextSpec:
    """The same for a tokenizer that came with a checkpoint: the data's own texts stay as they are."""
    wanted, text = fill(Words, asked, "prune.text_options").vocab, spec.tokenizer.read_text(encoding="utf-8")
    if not wanted:
        out.write_text(text, encoding="utf-8")
        return dataclasses.replace(spec, tokenizer=out)
    own = [*corpus.texts(), *dict.fromkeys(question.text for question in corpus.train.questions)]
    text, kept = fewer_tokens(text, wanted, own, (spec.options["end"], spec.options["pad"]))
    out.write_text(text, encoding="utf-8")
    places = {old: new for new, old in enumerate(kept)}
    changed = {"vocab": len(kept), **{name: places[spec.options[name]] for name in ("end", "pad")}}
    options = {**spec.options, **changed}
    state = side.tower.state_dict()
    rows = torch.tensor(kept, device=state["words.weight"].device)
    tower = text_tower(spec.name).build(options, pretrained=False)
    leave_out(tower, spec.without)
    tower.load_state_dict({**state, "words.weight": state["words.weight"][rows]}, strict=True)
    side.tower = tower.to(rows.device).eval()
    return dataclasses.replace(spec, options=options, tokenizer=out)
