"""Choosing where to run by measuring, with runtimes planted for it: right and wrong, fast and slow, slow to open."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
import sdk
from runtimes import Unavailable, VerifyError
from sdk import RanOn, Student, Tried, attempts
from sdk.race import fastest, race, turns_won
from tests.bundles import BANK, colour_frame, damage
from tests.plant import bundle_for, module, planted

LONG = 300.0  # seconds that a test waits for what takes one


@pytest.fixture(autouse=True)
def plants(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("PUPIL_ON", raising=False)
    with planted():
        yield


@pytest.fixture
def patient() -> None:
    """The head start of conftest.py is not given here."""


@pytest.fixture(scope="module")
def shop(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`shop("ort", "hare")`: a bundle that is for these runtimes in this order."""
    made: dict[tuple[str, ...], Path] = {}

    def bundle(*families: str) -> Path:
        if families not in made:
            made[families] = bundle_for(colours, tmp_path_factory.mktemp("shop") / "b", *families)
        return made[families]

    return bundle


def settled(student: Student, tower: str = "image") -> RanOn:
    assert student.settle(LONG)
    return student.ran_on[tower]


def lost(ran: RanOn) -> dict[str, Tried]:
    return {tried.target: tried for tried in ran.tried}


def red(student: Student) -> None:
    assert student.classify(colour_frame("red"))[0].label == "red"


# Measuring


def test_a_fast_one_that_answers_wrong_and_a_right_one_that_is_slow_both_lose(shop: Any) -> None:
    with sdk.load(shop("ort", "liar", "sloth")) as student:
        red(student)
        ran = settled(student)
        assert ran.target == "ort:cpu"
        assert re.match(r"fastest of 2: \S+ ms, median of \d+ turns; golden error ", ran.why)
        tried = lost(ran)
        assert sorted(tried) == ["liar:cpu", "sloth:cpu"]
        assert "answers leave the golden outputs by" in tried["liar:cpu"].reason
        assert tried["liar:cpu"].ms is None
        assert re.fullmatch(r"\S+ ms, slower in (\d+) of \1 turns", tried["sloth:cpu"].reason)
        assert tried["sloth:cpu"].ms is not None and tried["sloth:cpu"].ms >= 50
        assert tried["sloth:cpu"].error is not None and tried["sloth:cpu"].error < 1e-5
        red(student)


def test_the_fastest_takes_over_from_the_first(shop: Any) -> None:
    with sdk.load(shop("sloth", "liar", "hare")) as student:
        assert student.ran_on["image"].target == "sloth:cpu"
        assert student.ran_on["image"].why.startswith("first that opened; golden error ")
        red(student)
        ran = settled(student)
        assert ran.target == "hare:cpu"
        assert sorted(lost(ran)) == ["liar:cpu", "sloth:cpu"]
        red(student)
        student.embed_texts(["purple"])  # another tower is chosen for on its own
        assert settled(student, "text").target == "hare:cpu"


def test_it_is_printed_for_people(shop: Any) -> None:
    with sdk.load(shop("ort", "liar", "sloth")) as student:
        lines = str(settled(student)).splitlines()
    assert re.fullmatch(
        r"ort:cpu, fp32, computed in f32 \(fastest of 2: \S+ ms, median of \d+ turns; golden error \S+ of 1e-05\)",
        lines[0],
    )
    assert re.match(r"not liar:cpu, fp32: answers leave the golden outputs by \S+ \(at most 1e-05", lines[1])
    assert re.fullmatch(r"not sloth:cpu, fp32: \S+ ms, slower in \d+ of \d+ turns; golden error \d\.\de-\d\d", lines[2])


def test_real_engines_and_variants_are_all_tried(colours: Path) -> None:
    with sdk.load(colours) as student:
        ran = settled(student)
        everything = {(t.target, t.variant) for t in ran.tried} | {(ran.target, ran.variant)}
        here = [str(target) for target in runtimes.targets("ov", "ort")]
        assert everything == {(target, variant) for target in here for variant in ("fp32", "int8")}
        assert all(tried.ms is not None for tried in ran.tried)
        red(student)


def test_without_time_nothing_is_measured(shop: Any) -> None:
    with sdk.load(shop("sloth", "hare"), budget_s=0) as student:
        assert student.settle(0)
        assert student.ran_on["image"] == RanOn("sloth:cpu", "fp32", "f32", student.ran_on["image"].why)
    with sdk.load(shop("sloth", "tortoise", "hare"), budget_s=1e-9) as student:
        ran = settled(student)
        assert ran.target == "sloth:cpu"
        over = "not opened: the 1e-09 s for measuring were over; load with a larger budget_s"
        assert [(t.target, t.reason) for t in ran.tried] == [("tortoise", over), ("hare", over)]


def heavy(monkeypatch: pytest.MonkeyPatch, megabytes: int) -> None:
    """Let the hare take so much memory when it is opened."""
    quick, kept = module("hare").open_session, []

    def opened(*args: Any, **options: Any) -> Any:
        kept.append(np.ones(megabytes * 1_000_000, np.uint8))  # touched, so that it is resident
        return quick(*args, **options)

    monkeypatch.setattr(module("hare"), "open_session", opened)


def test_what_takes_more_memory_than_the_budget_is_left_alone(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "HEAD_START", LONG)
    heavy(monkeypatch, 100)
    path = bundle_for(colours, tmp_path / "b", "sloth", "hare")
    with sdk.load(path, budget_mb=50) as student:
        ran = settled(student)
        assert ran.target == "sloth:cpu"
        said = r"takes \d+ MB, more than is left of the budget of 50 MB for measuring"
        assert re.fullmatch(said, lost(ran)["hare:cpu"].reason)
    with sdk.load(path, budget_mb=10_000) as student:
        assert settled(student).target == "hare:cpu"
    larger = damage(
        path,
        tmp_path / "larger",
        {"weights.bin": bytes(60_000_000)},
        lambda table: table["graphs"]["image"]["fp32"].update(external=["weights.bin"]),
    )
    with sdk.load(larger, budget_mb=1) as student:
        reason = lost(settled(student))["hare:cpu"].reason
        assert reason == "takes 60 MB at least, more than is left of the budget of 1 MB for measuring"


def test_throughput_is_measured_with_threads(shop: Any) -> None:
    with sdk.load(shop("sloth", "hare", "ort", "ov"), prefer="throughput") as student:
        ran = settled(student)
        assert ran.target != "sloth:cpu"
        assert re.search(r" of 4: \S+ ms a frame from \d+ threads, median of \d+ turns", ran.why)
        with ThreadPoolExecutor(8) as pool:
            frames = [colour_frame(label) for label in BANK] * 8
            assert [each[0].label for each in pool.map(student.classify, frames)] == [*BANK] * 8


def test_memory_is_compared_when_it_is_what_counts(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy(monkeypatch, 64)
    with sdk.load(shop("hare", "sloth"), prefer="memory") as student:
        ran = settled(student)
        assert ran.target == "sloth:cpu"
        assert re.match(r"least memory of 2: \d+ MB when it was opened; golden error", ran.why)
        assert re.fullmatch(r"\d+ MB, against \d+", lost(ran)["hare:cpu"].reason)


# The race itself


def test_a_race_is_run_in_turn_and_drops_the_hopeless() -> None:
    ran: list[str] = []

    def call(name: str, seconds: float) -> Any:
        def work() -> None:
            ran.append(name)
            time.sleep(seconds)

        return work

    times, failed = race({"a": call("a", 0), "b": call("b", 1e-4), "c": call("c", 0.03)}, 0, threading.Event())
    assert not failed
    assert ran[:6] == ["a", "a", "b", "b", "c", "c"]  # the first of each pair is not timed
    assert len(times["c"]) == 3
    assert fastest(times, "c") == "a"


def test_a_race_ends_when_it_is_told_to() -> None:
    stop = threading.Event()
    stop.set()
    assert race({"a": stop.wait}, 0, stop) == ({"a": []}, {})


def test_who_fails_is_out_of_the_race() -> None:
    def fail() -> None:
        raise Unavailable("gone")

    times, failed = race({"a": lambda: None, "b": fail}, 0, threading.Event())
    assert failed == {"b": "gone"}
    assert list(times) == ["a"]
    assert fastest(times, "b") == "a"


def test_noise_moves_no_frames() -> None:
    serving = [10.0, 10.0, 10.0, 10.0]
    assert turns_won([9.0, 11.0, 9.0, 9.0], serving) == (3, 4)
    assert fastest({"now": serving, "new": [9.0, 11.0, 9.0, 9.0]}, "now") == "new"
    assert fastest({"now": serving, "new": [9.9, 11.0, 11.0, 9.0, 1.0]}, "now") == "now"


# Serving at once, swapping between frames


def test_a_slow_open_holds_up_nobody(shop: Any) -> None:
    """The first in order takes ten seconds to open. Another one serves long before, and it takes over when it comes."""
    with sdk.load(shop("ort"), on="ort:cpu") as student:  # not timed: the engine's import
        red(student)
    started = time.monotonic()
    with sdk.load(shop("tortoise", "sloth")) as student:
        red(student)
        took = time.monotonic() - started
        assert student.ran_on["image"].target == "sloth:cpu"
        assert took < 2 or (took < 5 and module("tortoise").OPENED and not module("tortoise").OPENED[-1].ready), took
        assert re.fullmatch(r"being built, \d+% done", lost(student.ran_on["image"])["tortoise:cpu"].reason)
        ran = settled(student)
        assert (ran.target, list(lost(ran))) == ("tortoise:cpu", ["sloth:cpu"])
        assert time.monotonic() - started > 10
        red(student)


def test_a_build_ends_with_its_student(shop: Any) -> None:
    with sdk.load(shop("tortoise", "sloth")) as student:
        red(student)
        (building,) = [thread for thread in threading.enumerate() if thread.name == "pupil-open tortoise"]
    building.join(LONG)
    assert not module("tortoise").OPENED[-1].ready
    assert module("tortoise").OPENED[-1].closed


def test_openvino_with_a_cold_cache_holds_up_nobody(shop: Any, tmp_path: Path) -> None:
    runtimes.targets("ov", "ort")  # imports
    started = time.monotonic()
    with sdk.load(shop("ov", "ort"), cache_dir=tmp_path / "cold") as student:
        red(student)
        assert time.monotonic() - started < 2
        assert settled(student).target in {"ov:cpu", "ort:cpu"}


def test_what_comes_late_is_measured_all_the_same(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its opening takes longer than all the time there is for measuring."""
    monkeypatch.setattr(module("tortoise"), "SECONDS", 2.0)
    with sdk.load(shop("sloth", "tortoise"), budget_s=1.0) as student:
        ran = settled(student)
        assert ran.target == "tortoise:cpu"
        assert re.match(r"fastest of 2: \S+ ms, median of [37] turns; golden error", ran.why)
        assert sorted(lost(ran)) == ["sloth:cpu"]


def test_no_frame_goes_to_a_session_that_is_half_open(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads hammer while sessions come and go: every answer is right, and what takes over has proved itself."""
    monkeypatch.setattr(module("tortoise"), "SECONDS", 0.3)
    frames = {label: colour_frame(label, seed=77) for label in BANK}
    ours = {frame.tobytes() for frame in frames.values()}
    for _ in range(3):
        with sdk.load(shop("sloth", "tortoise", "hare", "ort")) as student, ThreadPoolExecutor(8) as pool:
            done = threading.Event()

            def hammer(thread: int, student: Student = student, done: threading.Event = done) -> int:
                count = 0
                while not done.is_set() or count < 4:
                    label = BANK[(thread + count) % len(BANK)]
                    assert student.classify(frames[label])[0].label == label
                    count += 1
                return count

            threads = [pool.submit(hammer, thread) for thread in range(8)]
            ran = settled(student)
            done.set()
            assert all(thread.result(LONG) >= 4 for thread in threads)
            assert ran.target in {"hare:cpu", "tortoise:cpu"}
    golden = 3  # rows that are replayed while loading
    for session in module("tortoise").OPENED:
        first = [feeds["image"].tobytes() for feeds in session.asked[:golden]]
        assert len(first) == golden and not ours & set(first)
    module("tortoise").OPENED.clear()


# Remembering


def choices(folder: Path) -> list[Path]:
    return sorted(folder.glob("choice-*.json"))


def test_the_choice_is_remembered(shop: Any, tmp_path: Path) -> None:
    path = shop("sloth", "liar", "hare")
    with sdk.load(path, cache_dir=tmp_path) as student:
        before = settled(student)
    assert len(choices(tmp_path)) == len(list(tmp_path.iterdir())) == 1
    with sdk.load(path, cache_dir=tmp_path) as student:
        assert student.settle(0)
        ran = student.ran_on["image"]
        assert ran.target == "hare:cpu"
        assert ran.why == f"remembered: {before.why}"
        assert ran.tried == before.tried
        red(student)
    for other in ({"prefer": "throughput"}, {"precision": "fp32"}, {"budget_mb": 9000.0}):  # each wish has its own
        with sdk.load(path, cache_dir=tmp_path, **other) as student:  # type: ignore[arg-type]
            assert student.ran_on["image"].target == "sloth:cpu"
            settled(student)
    assert len(choices(tmp_path)) == 4


def engine(folder: Path, version: str) -> None:
    """Install a package whose version is that of the planted engine."""
    for old in folder.glob("*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    info = folder / f"planted_engine-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: planted-engine\nVersion: {version}\n")


def test_another_version_of_an_engine_drops_the_choice(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    path, cache = shop("sloth", "hare"), tmp_path / "cache"
    engine(tmp_path / "site", "1.0")
    assert runtimes.versions("hare") == {"planted-engine": "1.0"}
    for _ in range(2):
        with sdk.load(path, cache_dir=cache) as student:
            ran = settled(student)
    assert ran.why.startswith("remembered: ")
    engine(tmp_path / "site", "1.1")
    with sdk.load(path, cache_dir=cache) as student:
        assert student.ran_on["image"].why.startswith("first that opened")
        settled(student)
    assert json.loads(choices(cache)[0].read_text())["engines"] == {"planted-engine": "1.1"}


def test_another_bundle_or_machine_drops_the_choice(
    colours: Path, shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sdk.load(shop("sloth", "hare"), cache_dir=tmp_path / "cache") as student:
        settled(student)
    changed = bundle_for(colours, tmp_path / "b", "sloth", "hare", variants=("int8",))
    with sdk.load(changed, cache_dir=tmp_path / "cache") as student:
        assert student.ran_on["image"].target == "sloth:cpu"
    table = json.loads(choices(tmp_path / "cache")[0].read_text())
    table["machine"] = "0" * 64  # as if the folder had come from another one
    choices(tmp_path / "cache")[0].write_text(json.dumps(table))
    with sdk.load(shop("sloth", "hare"), cache_dir=tmp_path / "cache") as student:
        assert student.ran_on["image"].why.startswith("first that opened")


@pytest.mark.parametrize(
    "text",
    ["", "{", '"choice"', '{"format": 1}', "[" * 100_000, '{"format": 1, "format": 1}', "\x00" * 50, " " * (2 << 20)],
)
def test_a_damaged_choice_is_measured_again(
    shop: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = shop("sloth", "hare")
    with sdk.load(path, cache_dir=tmp_path) as student:
        settled(student)
    (file,) = choices(tmp_path)
    file.write_text(text)
    with caplog.at_level(logging.WARNING), sdk.load(path, cache_dir=tmp_path) as student:
        assert student.ran_on["image"].target == "sloth:cpu"
        assert settled(student).target == "hare:cpu"
    assert "is no choice and is measured again: " in caplog.text
    assert json.loads(file.read_text())["choice"]["target"] == "hare:cpu"


@pytest.mark.parametrize("target", ["nope:cpu", "ov:cpu", "x", "hare:tpu"])
def test_a_choice_that_names_what_is_not_there_is_no_choice(shop: Any, tmp_path: Path, target: str) -> None:
    path = shop("sloth", "hare")
    with sdk.load(path, cache_dir=tmp_path) as student:
        settled(student)
    table = json.loads(choices(tmp_path)[0].read_text())
    table["choice"]["target"] = target
    choices(tmp_path)[0].write_text(json.dumps(table))
    with sdk.load(path, cache_dir=tmp_path) as student:
        if target == "hare:tpu":  # the planted runtimes take any device
            assert student.ran_on["image"].target == target
        else:
            assert student.ran_on["image"].why.startswith("first that opened")


def test_a_remembered_target_that_is_wrong_now_is_left(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop("sloth", "hare")
    with sdk.load(path, cache_dir=tmp_path) as student:
        assert settled(student).target == "hare:cpu"
    monkeypatch.setattr(module("hare"), "open_session", module("liar").open_session)
    with sdk.load(path, cache_dir=tmp_path) as student:
        ran = settled(student)
        assert ran.target == "sloth:cpu"
        assert ran.why.startswith("first that opened; ")
        assert "answers leave the golden outputs" in lost(ran)["hare:cpu"].reason


def test_a_choice_that_was_cut_short_goes_on_at_the_next_start(
    shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("tortoise"), "SECONDS", 1.5)
    path = shop("sloth", "tortoise", "hare")
    with sdk.load(path, cache_dir=tmp_path, budget_s=0.1) as student:
        assert settled(student).target == "tortoise:cpu"
        assert "hare" in lost(student.ran_on["image"])
    monkeypatch.setattr(module("tortoise"), "SECONDS", 0.0)  # as from an engine's cache
    with sdk.load(path, cache_dir=tmp_path, budget_s=5.0) as student:
        ran = student.ran_on["image"]
        assert ran.target == "tortoise:cpu"
        assert ran.why.startswith("remembered: fastest of 2: ")
        settled(student)
        opened = {tried.target for tried in student.ran_on["image"].tried} | {student.ran_on["image"].target}
        assert opened == {"sloth:cpu", "tortoise:cpu", "hare:cpu"}
    assert json.loads(choices(tmp_path)[0].read_text())["choice"]["complete"] is True


def test_a_cache_that_cannot_be_written_is_a_warning(
    shop: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING), sdk.load(shop("sloth", "hare"), cache_dir=tmp_path / "file") as student:
        assert settled(student).target == "hare:cpu"
        red(student)
    assert "the choice of image could not be kept in" in caplog.text


# What is asked for


def test_the_environment_can_ask(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUPIL_ON", "SLOTH:cpu")
    with sdk.load(shop("ort", "sloth", "hare")) as student:
        assert student.settle(0)
        ran = student.ran_on["image"]
        assert (ran.target, ran.tried) == ("sloth:cpu", ())
        assert ran.why.startswith("asked for; ")
    with sdk.load(shop("ort", "sloth"), on="ort:cpu") as student:
        assert student.ran_on["image"].target == "ort:cpu"
    monkeypatch.setenv("PUPIL_ON", "sloth")
    with pytest.raises(Unavailable, match="PUPIL_ON: 'sloth' is not a target; write runtime:device"):
        sdk.load(shop("ort"))


@pytest.mark.parametrize(("name", "value"), [("budget_s", -1), ("budget_s", float("nan")), ("budget_mb", "1 GB")])
def test_a_budget_is_a_number_from_0(shop: Any, name: str, value: Any) -> None:
    with pytest.raises(Unavailable, match=re.escape(f"{name}={value!r} is no budget; give a number from 0")):
        sdk.load(shop("ort"), **{name: value})


def test_only_wrong_ones_are_an_error(shop: Any) -> None:
    with pytest.raises(VerifyError, match=r"no target can run the image tower of .*: liar:cpu fp32: answers leave"):
        sdk.load(shop("liar"))
