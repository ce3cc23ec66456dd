"""A full-size CLIP with random weights in int8: time, size and parity (`make slow`), and a smaller one by the same
command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.full_size import _drawn, main
from tests.photos import picture, save


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ViT-B-33", "--samples", "4"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: open_clip has no model 'ViT-B-33' (did you mean 'ViT-B-32'?); they are listed by")
    save(tmp_path / "one.jpg", picture(0, 40))
    assert main(["--photos", str(tmp_path)]) == 2
    assert "holds 1 photos; give a folder with over 50" in capsys.readouterr().err


def test_photos_are_drawn_and_not_the_first_by_name() -> None:
    photos = [Path(f"{number:03d}.jpg") for number in range(200)]
    drawn = _drawn(photos, 40)
    assert len(set(drawn)) == 40 and set(drawn) < set(photos)
    assert drawn == _drawn(photos, 40)
    assert sum(path >= photos[100] for path in drawn) > 5
    assert len(_drawn(photos[:7], 40)) == 7


def measured(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--out", str(tmp_path / "found.json")]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["bytes"]["int8"] < 0.3 * found["bytes"]["f32"]
    assert found["steps"]["teach.parity.tokens"] == 1
    assert found["steps"]["teach.parity.cosine_min"] >= 0.9995
    assert found["steps"]["teach.parity.score_error"] <= 1e-3
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        assert ("avx2" in found["machine"]["features"]) == ("avx2" in cpu.read_text(encoding="utf-8").split())
    return found


@pytest.mark.slow
def test_a_smaller_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(tmp_path, "ViT-S-32-alt", "--seconds", "0.1", "--samples", "8")
    for row in found["speed"]:
        assert row["cosine_mean"] > 0.9
        assert {*row["ms"]} == {"f32", "default", "int8"}
        assert row["ratio"]["f32"]["n"] >= 50
    out = capsys.readouterr().out
    assert "ViT-S-32-alt, random weights: " in out
    assert "| ov:cpu | " in out
    assert "| token ids | " in out


@pytest.mark.long
def test_vit_b_32_reaches_its_bars(tmp_path: Path) -> None:
    found = measured(tmp_path, "--seconds", "20")
    if not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(found["machine"]["features"]):
        pytest.skip("this CPU has no instructions for int8, of which the bars speak")
    (ratio,) = [row["ratio"] for row in found["speed"] if row["target"] == "ov:cpu"]
    assert ratio["f32"]["value"] >= 2.35, found["speed"]
    assert ratio["default"]["value"] >= 1.4, found["speed"]
