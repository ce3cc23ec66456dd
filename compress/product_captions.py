"""What can be said of a product: its name, its group and its text, in several wordings each."""

import re
from collections.abc import Iterable, Mapping, Sequence

from compress.layouts import Product

# The first is the plain one. They suit goods on a shelf and in a hand, one or many: nouns come without an article.
PROMPTS = ("a photo of {}", "{}", "a photo of {} in a shop", "a close-up photo of {}")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\Wa-z])")


def captions(products: Sequence[Product]) -> dict[tuple[str, ...], frozenset[int]]:
    """Captions as their wordings, with the positions of the products of which they are true.

    One per label, which is true of a whole group where that is called like the label; one per group that is called
    otherwise; one per product text, worded as the whole and as its sentences. No wording is in two captions: a sentence
    that two texts share would be called wrong of a product that it is true of.
    """
    groups = _members(product.group_noun or product.group for product in products)
    said = []
    for at, product in enumerate(products):
        called_so = [own for noun, own in groups.items() if noun.lower() == product.noun.lower()]
        said.append((_prompts(product.noun), frozenset({at}).union(*called_so)))
    said += [(_prompts(noun), own) for noun, own in groups.items()]
    texts = _members(product.text for product in products)
    often = [sentence for text in texts for sentence in set(sentences(text))]
    said += [
        ((text, *(each for each in dict.fromkeys(sentences(text)) if often.count(each) == 1 and each != text)), own)
        for text, own in texts.items()
    ]
    made: dict[tuple[str, ...], frozenset[int]] = {}
    taken: set[str] = set()
    for wordings, own in said:
        fresh = tuple(wording for wording in wordings if wording.lower() not in taken)
        taken.update(wording.lower() for wording in fresh)
        if fresh:
            made[fresh] = own
    return made


def sentences(text: str) -> list[str]:
    """The sentences of a text that are more than one word, for one word tells little."""
    return [sentence for sentence in _END_OF_SENTENCE.split(text) if " " in sentence]


def words(products: Sequence[Product], meanings: Mapping[tuple[str, ...], frozenset[int]]) -> tuple[str, ...]:
    """Every lower-case word of the captions, names and groups, sorted; runs of letters and digits are words."""
    texts = [wording for wordings in meanings for wording in wordings]
    texts += [text for product in products for text in (product.name, product.group, product.noun)]
    return tuple(sorted({word for text in texts for word in re.findall(r"[^\W_]+", text.lower())}))


def _prompts(noun: str) -> tuple[str, ...]:
    return tuple(prompt.format(noun) for prompt in PROMPTS)


def _members(values: Iterable[str]) -> dict[str, frozenset[int]]:
    """The positions at which each value stands, without ""."""
    found: dict[str, set[int]] = {}
    for at, value in enumerate(values):
        if value:
            found.setdefault(value, set()).add(at)
    return {value: frozenset(own) for value, own in found.items()}
