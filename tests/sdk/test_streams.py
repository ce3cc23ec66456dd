"""A stream of frames while engines fail, students close and programs end: nothing hangs, every result tells."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sdk
from runtimes import Unavailable
from sdk import Student, attempts
from tests.bundles import BANK, colour_frame
from tests.plant import bundle_for, module, planted

ROOT = Path(__file__).parents[2]
LONG = 300.0


@pytest.fixture(autouse=True)
def plants(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("PUPIL_ON", raising=False)
    with planted():
        yield


@pytest.fixture(scope="module")
def shop(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`shop("ort", "hare")`: a bundle that is for these runtimes in this order."""
    made: dict[tuple[str, ...], Path] = {}

    def bundle(*families: str) -> Path:
        if families not in made:
            made[families] = bundle_for(colours, tmp_path_factory.mktemp("shop") / "b", *families)
        return made[families]

    return bundle


@pytest.fixture
def patient() -> None:
    """Without this one's, see conftest.py, the head start is what it is."""


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in order serves, also when it is slow to open: the frail one starts a process."""
    monkeypatch.setattr(attempts, "HEAD_START", LONG)


def kill_workers() -> None:
    """Kill the processes that the frail runtime runs in."""
    for session in module("frail").OPENED:
        session.worker.kill()
        session.worker.wait()


def look(student: Student, label: str = "red") -> Any:
    (answer,) = student.classify(colour_frame(label))
    assert answer.label == label
    return answer


# An engine that fails


def test_strict_raises_when_the_engine_is_killed(shop: Any) -> None:
    with sdk.load(shop("frail", "ort"), on="frail:cpu") as student:
        assert look(student).degraded == ""
        kill_workers()
        for _ in range(2):
            with pytest.raises(Unavailable, match="the worker process of frail:cpu is gone: "):
                look(student)
        assert student.ran_on["image"].target == "frail:cpu"
        assert student.degraded == ""


def test_strict_raises_without_a_target_too(shop: Any, in_order: None) -> None:
    with sdk.load(shop("frail", "ort"), budget_s=0) as student:
        look(student)
        kill_workers()
        with pytest.raises(Unavailable, match="the worker process of frail:cpu is gone: "):
            look(student)


@pytest.mark.parametrize("on", ["frail:cpu", None])
def test_degrade_moves_on_within_one_frame_and_every_result_says_so(
    shop: Any, in_order: None, on: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with sdk.load(shop("frail", "sloth", "ort"), on=on, policy="degrade", budget_s=0) as student:
        assert look(student).degraded == ""
        vectors = student.embed_images([colour_frame(label) for label in BANK])
        assert student.search(colour_frame("blue"), vectors, k=1)[0].degraded == ""
        kill_workers()
        with caplog.at_level(logging.WARNING):
            answer = look(student)  # the very frame that met the failure
        said = r"image on sloth:cpu, as frail:cpu failed while running: the worker process of frail:cpu is gone: .*"
        assert re.fullmatch(said, answer.degraded)
        assert student.degraded == answer.degraded
        assert "the image tower failed on frail:cpu fp32 and moves on: " in caplog.text
        many: Any = student.classify([colour_frame("green"), colour_frame("blue")], k=2)
        assert [row[0].label for row in many] == ["green", "blue"]
        assert {each.degraded for row in many for each in row} == {answer.degraded}
        (hit,) = student.search(colour_frame("blue"), vectors, k=1)
        assert (hit.index, hit.degraded) == (BANK.index("blue"), answer.degraded)
        assert student.ask(colour_frame("red"), "is it red?").degraded.startswith("image on sloth:cpu, as ")
        ran = student.ran_on["image"]
        assert ran.why.startswith("next, as frail:cpu fp32 failed while running; golden error ")
        assert re.match(r"failed while running: the worker process", ran.tried[0].reason)


def test_degrade_moves_on_with_many_threads(shop: Any, in_order: None) -> None:
    with (
        sdk.load(shop("frail", "ort", "sloth"), policy="degrade", budget_s=0) as student,
        ThreadPoolExecutor(8) as pool,
    ):
        look(student)

        def stream(thread: int) -> list[str]:
            return [look(student, BANK[(thread + turn) % len(BANK)]).degraded for turn in range(30)]

        threads = [pool.submit(stream, thread) for thread in range(8)]
        time.sleep(0.05)
        kill_workers()
        told = [thread.result(LONG) for thread in threads]
        assert student.ran_on["image"].target == "ort:cpu"
        for said in told:  # a thread that was told once is told for ever
            assert said[-1].startswith("image on ort:cpu, as frail:cpu failed while running: ")
            assert said == sorted(said, key=bool)


def test_degrade_goes_to_what_was_measured_fastest(shop: Any, in_order: None) -> None:
    with sdk.load(shop("sloth", "ort", "hare"), policy="degrade") as student:
        assert student.settle(LONG)
        left = {"ort:cpu", "hare:cpu"} - {student.ran_on["image"].target}
        student._session("image").close()  # as an engine whose device is gone answers
        answer = look(student)
        assert {student.ran_on["image"].target} == left
        assert answer.degraded.startswith(f"image on {left.pop()}, as ")


def test_degrade_without_another_target_says_what_failed(shop: Any, in_order: None) -> None:
    with sdk.load(shop("frail", "liar"), policy="degrade", budget_s=0) as student:
        look(student)
        kill_workers()
        said = (
            r"the worker process of frail:cpu is gone: .*; and no other target can go on with the image tower: "
            r"liar:cpu fp32: answers leave the golden outputs"
        )
        with pytest.raises(Unavailable, match=said):
            look(student)
        with pytest.raises(Unavailable, match="no other target can go on with the image tower"):
            look(student)


def test_degrade_returns_to_the_target_that_was_asked_for_when_it_opens_late(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("tortoise"), "SECONDS", 3.0)
    with sdk.load(shop("ort", "tortoise"), on="tortoise:cpu", policy="degrade") as student:
        assert look(student).degraded == "image on ort:cpu, as tortoise:cpu did not open"
        assert student.settle(LONG)
        assert student.ran_on["image"].target == "tortoise:cpu"
        assert student.ran_on["image"].why.startswith("asked for; it took its time to open; golden error ")
        assert look(student).degraded == ""


# Closing and ending


def measuring() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pupil-")]


def test_closing_while_it_measures_leaves_no_thread(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("sloth"), "SECONDS", 0.01)
    for pause in (0, 0.02, 0.1, 0.3):
        student = sdk.load(shop("sloth", "ort", "hare", "ov"))
        time.sleep(pause)
        student.close()
        assert not [name for name in measuring() if name.startswith("pupil-measure")]
        with pytest.raises(Unavailable, match="this student is closed; load the bundle again"):
            look(student)
        assert student.settle(0)
    deadline = time.monotonic() + LONG
    while measuring() and time.monotonic() < deadline:  # an engine that is being opened cannot be told to stop
        time.sleep(0.05)
    assert not measuring()


def test_closing_does_not_wait_for_what_is_still_being_opened(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("tortoise"), "SECONDS", 4.0)
    student = sdk.load(shop("tortoise", "ort"))
    look(student)
    started = time.monotonic()
    student.close()
    assert time.monotonic() - started < 2
    (late,) = [session for session in module("tortoise").OPENED if not session.ready]
    deadline = time.monotonic() + LONG
    while not late.closed and time.monotonic() < deadline:
        time.sleep(0.05)
    assert late.closed  # it was closed when it came
    assert not measuring()


def test_a_student_that_is_forgotten_stops_measuring(shop: Any) -> None:
    import gc

    student = sdk.load(shop("sloth", "tortoise", "ort"))
    look(student)
    del student
    gc.collect()
    assert not [name for name in measuring() if name.startswith("pupil-measure")]


def test_threads_see_a_closed_student_or_an_answer(shop: Any) -> None:
    student = sdk.load(shop("sloth", "ort", "hare"))

    def stream() -> int:
        count = 0
        try:
            while True:
                look(student)
                count += 1
        except Unavailable as error:
            assert str(error) == "this student is closed; load the bundle again"
            return count

    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(stream) for _ in range(6)]
        time.sleep(0.5)
        student.close()
        assert sum(thread.result(LONG) for thread in threads) > 0


def in_a_fresh_process(code: str, bundle: Path, timeout: float = LONG) -> subprocess.CompletedProcess[str]:
    head = """
    import os, sys, time
    import numpy as np
    import sdk
    from tests.plant import module, planted
    path, frame = sys.argv[1], np.full((20, 20, 3), 200, np.uint8)
    plants = planted()
    plants.__enter__()
    """
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(head) + textwrap.dedent(code), str(bundle)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
def test_a_program_may_end_while_it_measures(shop: Any, pause: float) -> None:
    done = in_a_fresh_process(
        f"student = sdk.load(path); student.classify(frame); time.sleep({pause}); print('end', flush=True)",
        shop("ort", "sloth", "ov", "hare"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_a_program_may_end_while_an_engine_opens(shop: Any) -> None:
    """It waits five seconds for it at most: here the opening takes longer than the test would wait."""
    done = in_a_fresh_process(
        """
        module("tortoise").SECONDS = 10_000
        student = sdk.load(path)
        student.classify(frame)
        print("end", flush=True)
        """,
        shop("tortoise", "ort"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_it_measures_is_refused_and_ends(shop: Any) -> None:
    done = in_a_fresh_process(
        """
        student = sdk.load(path)
        student.classify(frame)
        child = os.fork()
        if child == 0:
            try:
                student.classify(frame)
            except sdk.Unavailable as error:
                print(str(error)[:23], flush=True)
            student.close()
            sys.exit(7)  # with all that runs at the end of a program
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(student.classify(frame)), student.settle(300))
        """,
        shop("sloth", "ort", "hare"),
    )
    assert done.stdout.splitlines() == ["this process was forked", "7 1 True"]
    assert done.returncode == 0, done.stderr


def test_it_is_idle_once_it_has_measured(shop: Any) -> None:
    done = in_a_fresh_process(
        """
        import threading
        student = sdk.load(path)
        student.classify(frame)
        assert student.settle(300)
        time.sleep(0.5)
        before = time.process_time()
        time.sleep(10)
        print(time.process_time() - before, [t.name for t in threading.enumerate()])
        """,
        shop("ov", "ort", "hare"),
    )
    assert done.returncode == 0, done.stderr
    spent, _, threads = done.stdout.partition(" ")
    assert float(spent) < 0.1
    assert threads == "['MainThread']\n"


def test_two_processes_that_start_together_do_not_corrupt_the_choice(shop: Any, tmp_path: Path) -> None:
    code = """
    import sdk, sys
    from tests.plant import planted
    with planted():
        for _ in range(3):
            with sdk.load(sys.argv[1], cache_dir=sys.argv[2]) as student:
                assert student.settle(300)
                print(student.ran_on["image"].target, student.ran_on["image"].why.split(":")[0])
            for path in __import__("pathlib").Path(sys.argv[2]).glob("choice-*"):
                if len(sys.argv) > 3:
                    path.unlink(missing_ok=True)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), shop("sloth", "hare"), tmp_path]
    running = [
        subprocess.Popen([*command, *more], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for more in ([], [], ["drops it"])
    ]
    for process in running:
        out, err = process.communicate(timeout=LONG)
        assert (process.returncode, err) == (0, "")  # a damaged choice would be a warning
        assert {line.split()[0] for line in out.splitlines()} == {"hare:cpu"}
    assert not list(tmp_path.glob(".*"))  # no half of a file is left
    for path in tmp_path.glob("choice-*"):
        assert path.read_text().startswith('{\n "format": 1,')
