"""The model card that a student's bundle carries (Mitchell et al. 2019, arXiv 1810.03993): what it was made from, how
good it was measured to be, and what it cannot do."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables import grid
from compress.data import Corpus
from compress.licence import RESTRICTED
from compress.tables import main_rows
from sdk.bundle import Bundle
from sdk.text import Tokenizer

WORST = 5  # classes that are named


def card(bundle: Bundle, corpus: Corpus, table: Mapping[str, Any], wrong: Mapping[str, tuple[int, int]]) -> str:
    """Markdown. `table`: what [pack] measured. `wrong`: class -> (test images that were wrong, test images)."""
    manifest, data = bundle.manifest, table["data"]
    upstream = [f"- {name}: {licence}" for name, licence in sorted(manifest.licences.upstream.items())]
    parts = [
        f"# {manifest.name}",
        f"Recognises images by text, at {manifest.image.size} px; made for: {', '.join(manifest.tasks)}. Its label "
        f"bank has {len(corpus.labels)} labels, and can be edited at run time.",
        *_restriction(manifest.licences.package),
        "## Made from",
        "\n".join([_data(corpus), *upstream, f"- this package: {manifest.licences.package}"]),
        "## Measured",
        f"On {data['images']} images of the {data['split']} split, after every choice was made, through the deployed "
        "graphs; brackets hold 95 % intervals.\n\n" + grid(main_rows(dict(table))),
        "## What it cannot do",
        "\n".join(f"- {line}" for line in limits(bundle, corpus, wrong)),
    ]
    return "\n\n".join(parts) + "\n"


def _restriction(licence: str) -> list[str]:
    return (
        [f"**Licence: {licence}.** It is made of weights that are for research only."] if RESTRICTED in licence else []
    )


def _data(corpus: Corpus) -> str:
    train, val, test = (len(split.images) for split in (corpus.train, corpus.val, corpus.test))
    return f"- data: {corpus.name}, {corpus.licence}; {train} images to train, {val} to choose, {test} to test"


def limits(bundle: Bundle, corpus: Corpus, wrong: Mapping[str, tuple[int, int]]) -> list[str]:
    """What the student cannot do, a sentence each. `wrong`: as for `card`."""
    worst = sorted((item for item in wrong.items() if item[1][0]), key=lambda item: -item[1][0] / item[1][1])[:WORST]
    named = ", ".join(f"{name} ({bad} of {n} wrong)" for name, (bad, n) in worst)
    found = [
        "The figures hold for images like those of its test split; other cameras, light and places were not tried.",
        f"Only the {len(corpus.labels)} labels of the bank were measured. A label that is added at run time is "
        "recognised from its text alone; try it on images of your own first.",
        *([f"It is worst at: {named}."] if named else []),
        "It names what the whole frame shows: it does not find, count or read.",
        *_cut(bundle, corpus),
    ]
    threshold = bundle.manifest.unknown_threshold
    if threshold is None:
        found.append("It has no answer for things that are none of its labels: it always names one.")
    else:
        found.append(
            f'Below a cosine of {threshold:.3f} it says "none of these"; how often that is right stands in the table.'
        )
    return found


def _cut(bundle: Bundle, corpus: Corpus) -> list[str]:
    spec = bundle.manifest.text
    if spec is None:
        return []
    texts = list(dict.fromkeys(wording for wordings in corpus.captions for wording in wordings))
    longer = sum(map(bool, Tokenizer.of(bundle)(texts).cut))
    if not longer:
        return []
    return [f"It reads the first {spec.length} tokens of a text: {longer} of the {len(texts)} of its data are longer."]
