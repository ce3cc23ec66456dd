"""What a checkpoint's card says that may be done with it."""

import re
from pathlib import Path

from compress.checkpoints import read_config
from runtimes import RecipeError

# Apple's (MobileCLIP, DFN), every Creative Commons licence with NC in it, and what calls itself so.
RESEARCH = re.compile(r"\bapple\b|(?<![a-z])nc(?![a-z])|non[-_ ]?commercial|research", re.IGNORECASE)

RESTRICTED = "research only, not for commercial use"


def package_licence(restricted: str) -> str:
    """Of what we make: our own, but what is made of weights under the licence `restricted` is restricted too."""
    return f"{restricted} ({RESTRICTED})" if restricted else "Apache-2.0"


def licence_of(folder: Path, given: str, accepted: bool) -> tuple[str, bool]:
    """The licence that the card or the configuration of a checkpoint names, else `given` (teach.licence); and whether
    it is for research only.

    Raises RecipeError if none is named, if another is named than `given`, and for one that is for research only if it
    was not `accepted`.
    """
    stated = _stated(folder)
    if stated and given and stated != given:
        raise RecipeError(
            f"teach.licence is {given!r}, and the card of {folder} says {stated!r}; leave out teach.licence"
        )
    licence = stated or given
    if not licence:
        raise RecipeError(
            f"neither README.md nor config.json of {folder} names a licence; find out which one "
            "holds and say it: --set teach.licence=..."
        )
    research = RESEARCH.search(licence) is not None
    if research and not accepted:
        raise RecipeError(
            f"the weights of {folder} are for research only ({licence}), and so is every student made of them; if that "
            "is what you want, add --accept-licence"
        )
    return licence, research


def _stated(folder: Path) -> str:
    from huggingface_hub import metadata_load

    try:
        card = metadata_load(folder / "README.md") if (folder / "README.md").is_file() else None
    except Exception as error:  # whatever YAML raises
        raise RecipeError(f"the front matter of {folder / 'README.md'} cannot be read ({error}); mend it") from error
    for table in (card or {}, read_config(folder, "config.json")):
        named = table.get("license")
        if isinstance(
            named, list
        ):  # of parts under several licences, or to choose from: the strictest is taken to hold
            named = ", ".join(str(each) for each in named)
        if named == "other":  # then its name stands apart
            named = table.get("license_name")
        if isinstance(named, str) and named:
            return named
    return ""
