"""A small run to measure: the colour bundle as teacher and as student, and an evaluation folder of it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from benchmarks.evalset import write_evalset
from sdk.manifest import BankSpec, FusionSpec, LabelSpec
from tests import towers
from tests.bundles import BANK, build_colour_bundle
from tests.evalsets import colour_evalset, shop_evalset


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """A folder with teacher, student and eval, which have every figure that there is. It is read, never written;
    reports go elsewhere."""
    folder = tmp_path_factory.mktemp("run")
    for who in ("teacher", "student"):
        shutil.copytree(colours, folder / who)
    (folder / "source").mkdir()
    shop = shop_evalset(folder / "source")
    asked = dataclasses.replace(shop, questions=colour_evalset(folder / "source").questions)
    write_evalset(folder / "eval", asked)
    return folder


@pytest.fixture(scope="session")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes red for green, as labels and as answers, and to which "white" means the same as "red"."""
    swap = {"red": "green", "green": "red"}
    rows = towers.text_rows()
    rows[towers.WORDS.index("white")] = rows[towers.WORDS.index("red")]
    items = tuple(LabelSpec(swap.get(name, name), (name,), 0) for name in BANK)
    answers = tuple(swap.get(name, name) for name in towers.ANSWERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(towers, "text_rows", lambda: rows)
        return build_colour_bundle(
            tmp_path_factory.mktemp("worse") / "bundle",
            labels=BankSpec("fp32", "labels.npy", items),
            fusion=FusionSpec(towers.WIDTH, towers.IMAGE_TOKENS, answers),
        ).path
