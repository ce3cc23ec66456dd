"""Labels that a text tower cannot tell apart: the second of them would never be answered."""

import logging
from collections import defaultdict
from collections.abc import Sequence

from tokenizers import Tokenizer

from compress.data import Label
from runtimes import RecipeError

UNKNOWN = "[UNK]"
EXAMPLES = 5
_log = logging.getLogger(__name__)


def check_labels(labels: Sequence[Label], tokenizer: Tokenizer) -> None:
    """Log labels with characters that the tokenizer has no pieces for.

    Raises RecipeError for labels whose prompts are the same tokens: written with other accents or capitals, of unknown
    characters alone, or alike up to where the tokenizer cuts.
    """
    read: dict[tuple[tuple[int, ...], ...], list[str]] = defaultdict(list)
    unknown = []
    for label in labels:
        texts = tokenizer.encode_batch([label.name, *label.prompts])
        read[tuple(tuple(each.ids) for each in texts[1:])].append(label.name)
        if UNKNOWN in texts[0].tokens:
            unknown.append(label.name)
    if alike := [names for names in read.values() if len(names) > 1]:
        raise RecipeError(
            f"the text tower reads labels alike that are meant to differ: {_some([' = '.join(n) for n in alike])}; to "
            "it accents and capitals are the same, and so are characters that it does not know: give them other names"
        )
    if unknown:
        _log.warning(
            "the text tower does not know all characters of %d labels, and tells them apart by the rest only: %s",
            len(unknown),
            _some(unknown),
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
