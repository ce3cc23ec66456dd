"""Every error this project raises on purpose, in one tree.

    PupilError                 catch this to catch them all
    ├── Unavailable            an engine, device, target or task that is not here; the text says what to install
    ├── FeedError              a frame, text or label that cannot be used
    ├── BundleError            a bundle that is damaged, hostile, or newer than this reader
    ├── VerifyError            a target whose answers leave the bundle's golden outputs
    ├── RecipeError            a recipe, step, field or folder named wrongly
    └── GateFailed             a student that lost more than its recipe allows

Each message says what was wanted, what came, and what to do next. Foreign exceptions (engine, OpenCV, tokenizer)
are translated where they enter, so that an app needs to know only these.
"""


class PupilError(Exception):
    """Base of every error raised on purpose by Edge Pupil."""


class Unavailable(PupilError):
    """An engine, driver, device, target or task that is not on this machine (or not in this bundle)."""


class FeedError(PupilError, ValueError):
    """Input that cannot be used: a frame, a text, a label, or an array of the wrong shape or dtype."""


class BundleError(PupilError):
    """A bundle that is damaged, hostile, incomplete, or needs a newer reader."""


class VerifyError(PupilError):
    """A target ran, but its answers leave the tolerance around the bundle's golden outputs."""


class RecipeError(PupilError):
    """A recipe, step, field, data set or output folder that was named wrongly."""


class GateFailed(PupilError):
    """A student that lost more accuracy than its recipe allows."""
