"""The students that come with the project: found by their names, and small."""

from pathlib import Path

import numpy as np
import pytest

import sdk
from sdk.bundle import open_bundle
from tests.conftest import ROOT

NAMES = ("grocery", "grocery-xs")


@pytest.mark.parametrize("name", NAMES)
def test_a_bare_name_answers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with sdk.load(name) as student:  # on an engine that answers the golden inputs rightly: not every CPU's int8 does
        frame = student.bundle.golden["feed/image/image"][0]
        first = student.classify(frame, k=3)
        assert len(first) == 3 and {answer.label for answer in first} <= set(student.labels)
        student.labels.add("a blue bucket")  # the text tower is here too
        assert "a blue bucket" in student.labels
        assert np.linalg.norm(student.embed_images([frame])) == pytest.approx(1)


def test_they_weigh_24_mb_together_and_say_what_they_cannot_do() -> None:
    files = [path for name in NAMES for path in (ROOT / "bundles" / name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 24e6
    for name in NAMES:
        bundle = open_bundle(ROOT / "bundles" / name)
        assert "## What it cannot do" in bundle.file("card.md").read_text(encoding="utf-8")
        assert bundle.manifest.quality["zero_shot.top1"]["student"].n == 1265
