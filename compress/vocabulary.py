"""A tokenizer.json with fewer tokens. A text all of whose tokens stay is taken apart as before; any other text falls
into smaller tokens that stay, down to single characters or bytes.

Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) builds a token by merging smaller ones: with a token stays
all that it may be merged from, and so every merge on the way to it, in the same order. The unigram model (Kudo 2018,
arXiv 1804.10959) takes the likeliest way to divide a text: among fewer ways, it is still that one.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from runtimes import RecipeError


def fewer_tokens(text: str, size: int, keep: Sequence[str], numbers: Collection[int]) -> tuple[str, list[int]]:
    """The tokenizer.json `text` with at most `size` tokens, and their old numbers, ascending: the new number i is what
    was kept[i]. The tokens of the texts `keep` stay, those with `numbers`, what any text may need, and then those with
    the lowest numbers, which are the most frequent.

    Raises RecipeError for a model other than BPE and Unigram, and for a `size` that is above the whole, or below what
    must stay.
    """
    table: dict[str, Any] = json.loads(text)
    model = table["model"]
    if model["type"] not in MODELS:
        raise RecipeError(
            f"prune.text_options: the vocabulary of a {model['type']} tokenizer cannot be cut, only those of "
            f"{' and '.join(MODELS)}; leave vocab out"
        )
    names, closed = _names(table), _Closed(model)
    whole = Tokenizer.from_str(text)
    whole.no_padding()
    whole.no_truncation()
    needed = [*numbers, *_basic(table), *(each for code in whole.encode_batch(list(keep)) for each in code.ids)]
    kept = {number for each in needed for number in closed.below(each)}
    if not len(kept) <= size <= len(names):
        raise RecipeError(
            f"prune.text_options: the tokenizer has {len(names)} tokens, of which {len(kept)} must stay for single "
            f"characters and the data's own texts; vocab lies between, got {size}"
        )
    for number in names:
        if len(kept) == size:
            break
        more = closed.below(number) - kept
        if len(kept) + len(more) <= size:
            kept |= more
    places = {old: new for new, old in enumerate(sorted(kept))}
    MODELS[model["type"]](model, places)
    _renumber(table, places)
    return json.dumps(table, ensure_ascii=False), sorted(kept)


class _Closed:
    """What a token is made of, in numbers."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._parts: dict[int, set[int]] = {}
        vocab = model["vocab"]
        for first, second in _merges(model):
            made = vocab.get(first + second)
            if made is not None and first in vocab and second in vocab:
                self._parts.setdefault(made, set()).update((vocab[first], vocab[second]))

    def below(self, number: int) -> set[int]:
        """The token, all that it may be merged from, and so on down."""
        found, ahead = set[int](), [number]
        while ahead:
            at = ahead.pop()
            if at not in found:
                found.add(at)
                ahead += self._parts.get(at, ())
        return found


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of tokens, which older files write as one text."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges", ()))
    return [(first, second) for first, second in pairs]


def _names(table: Mapping[str, Any]) -> dict[int, str]:
    """Number to token, ascending, added ones too."""
    vocab, added = table["model"]["vocab"], {token["id"]: token["content"] for token in table["added_tokens"]}
    own = {at: piece for at, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else {}
    own |= {number: token for token, number in vocab.items()} if isinstance(vocab, dict) else {}
    return dict(sorted((own | added).items()))


def _basic(table: Mapping[str, Any]) -> Iterable[int]:
    """The numbers of what any text may need: special tokens, and single characters, or bytes in their place."""
    model, names = table["model"], _names(table)
    yield from (token["id"] for token in table["added_tokens"])
    yield from _special(table["post_processor"])
    pad = table.get("padding")
    yield from [pad["pad_id"]] if pad else []
    # CLIP writes a character at a word's end in another way.
    end = model.get("end_of_word_suffix") or ""
    single = {number for number, name in names.items() if len(name.removesuffix(end) or end) == 1}
    spare = {number for number, name in names.items() if len(name) == 6 and name.startswith("<0x")}
    yield from spare if model.get("byte_fallback") else single
    yield from [names_of for names_of, name in names.items() if name == model.get("unk_token")]
    if model["type"] == "Unigram":
        yield from [model["unk_id"]] if model.get("unk_id") is not None else []
        # The library derives from the least likely piece how unlikely an unknown character is.
        yield min(range(len(model["vocab"])), key=lambda at: float(model["vocab"][at][1]))


def _special(part: Any) -> Iterable[int]:
    """The numbers in a post-processor."""
    found: list[int] = []

    def note(number: int) -> int:
        found.append(number)
        return number

    _with_numbers(part, note)
    return found


def _renumber(table: dict[str, Any], places: Mapping[int, int]) -> None:
    """New numbers everywhere but in the model."""
    for token in table["added_tokens"]:
        token["id"] = places[token["id"]]
    table["post_processor"] = _with_numbers(table["post_processor"], places.__getitem__)
    if table.get("padding"):
        table["padding"]["pad_id"] = places[table["padding"]["pad_id"]]


def _with_numbers(part: Any, new: Callable[[int], int]) -> Any:
    """A post-processor with other numbers: of pairs of token and number, and of lists of ids."""
    if isinstance(part, list):
        return [_with_numbers(value, new) for value in part]
    if not isinstance(part, dict):
        return part
    found = {}
    for name, value in part.items():
        if name in {"sep", "cls"}:
            found[name] = [value[0], new(value[1])]
        else:
            found[name] = [new(number) for number in value] if name == "ids" else _with_numbers(value, new)
    return found


def _cut_bpe(model: dict[str, Any], places: Mapping[int, int]) -> None:
    model["vocab"] = {token: places[number] for token, number in model["vocab"].items() if number in places}
    known = model["vocab"]
    pairs = ((first, second) for first, second in _merges(model))
    model["merges"] = [[a, b] for a, b in pairs if a in known and b in known and a + b in known]


def _cut_unigram(model: dict[str, Any], places: Mapping[int, int]) -> None:
    model["vocab"] = [piece for number, piece in enumerate(model["vocab"]) if number in places]
    if model.get("unk_id") is not None:
        model["unk_id"] = places[model["unk_id"]]


MODELS = {"BPE": _cut_bpe, "Unigram": _cut_unigram}
