"""Edge Pupil's device side: open a bundle, give it frames, get answers. Imports no engine until a bundle is loaded.

import sdk

with sdk.load("out/easy_vqa/student") as student:
    print(student.classify("photo.jpg", labels=["a red circle", "a blue circle"]))
"""

from runtimes import (
    BundleError,
    FeedError,
    PupilError,
    Unavailable,
    VerifyError,
)
from sdk.bundle import Bundle, open_bundle
from sdk.frames import read_frame
from sdk.ran_on import RanOn, Tried
from sdk.student import Student, load
from sdk.tasks import Answer
from sdk.tasks.search import Hit

__all__ = [
    "Answer",
    "Bundle",
    "BundleError",
    "FeedError",
    "Hit",
    "PupilError",
    "RanOn",
    "Student",
    "Tried",
    "Unavailable",
    "VerifyError",
    "load",
    "open_bundle",
    "read_frame",
]
