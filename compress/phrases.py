"""Texts to calibrate a text tower with, where no store of phrases was made: the data's own, and phrases of the words
that its tokenizer knows."""

import numpy as np
from tokenizers import Tokenizer

from compress.data import Corpus
from compress.steps.embed import HELD_OUT_WORDS, TEMPLATES
from compress.tokenizer_json import whole_words

FREQUENT = 5000  # words


def phrases(corpus: Corpus, tokenizer: Tokenizer, count: int, held_out: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts to calibrate with, `count` everyday phrases among them, and `held_out` other phrases; fewer where the
    tokenizer knows few words, and the data's own texts for both where it knows none."""
    known = dict.fromkeys(corpus.texts())
    words = [word for word in whole_words(tokenizer) if word not in HELD_OUT_WORDS][:FREQUENT]
    rng, made = np.random.default_rng(seed), dict[str, None]()
    for _ in range(10 * (count + held_out) if words else 0):
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        phrase = template.format(*(words[at] for at in rng.integers(len(words), size=template.count("{}"))))
        if phrase not in known and len(made) < count + held_out:
            made[phrase] = None
    fresh = list(made)[:held_out]
    return [*known, *list(made)[held_out:]], fresh or list(known)[:held_out]
