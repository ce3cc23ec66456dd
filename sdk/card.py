"""The model card: what a bundle is made of, how good it is and what it cannot do, in Markdown, for people."""

from __future__ import annotations

from pathlib import Path

from runtimes import BundleError

MAX_CARD = 1 << 20


def read_card(path: Path) -> str:
    """The text of a model card. Raises BundleError for a file that is too large, cannot be read, or is not UTF-8."""
    try:
        size = path.stat().st_size
        if size > MAX_CARD:
            raise BundleError(f"the model card {path} has {size} bytes; at most {MAX_CARD}: shorten it")
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"the model card {path} cannot be read as UTF-8: {error}; copy the bundle again") from error
