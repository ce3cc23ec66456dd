"""What the commands of this folder share: mistakes in their arguments are one line, as all others are."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from compress.installed import INSTALL, OURS
from compress.memory import keep_freed_memory
from compress.processes import others_failed, speaks
from runtimes import GateFailed, PupilError, RecipeError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: {self.prog} --help")


def exit_code(work: Callable[[], None], go_on: str) -> int:
    """Do the work of a command that can be gone on with, and return its exit code; an error is one line, and `go_on`
    says how. 0 done, 1 refused by the gate, 2 a mistake, 130 interrupted."""
    # Threads that wait by spinning take the cores from each other as soon as anything else runs: a training step took
    # 1.20 s beside one busy process, 0.58 s with this, against 0.30 and 0.40 s alone. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    # transformers loads torchao where it is installed, and torch then warns of torchao's own business at every start.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    try:
        work()
    except GateFailed as error:
        _tell(f"gate: {error}")
        return 1
    except PupilError as error:
        _tell(f"error: {error}")
        return 2
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        _tell(f"error: {error}; {'make room' if full else 'see to that'}, then {go_on}")
        return 2
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise  # a mistake of ours, not a package that is missing
        _tell(f"error: the maker's packages are not all here ({error}); run: {INSTALL}")
        return 2
    except KeyboardInterrupt:
        _tell(f"interrupted; {go_on}")
        return 130
    except RuntimeError:
        if not others_failed():
            raise
        return 2  # a connection that is lost because another process ended, which told why
    return 0


def _tell(what: str) -> None:
    """Once, however many processes there are."""
    if speaks():
        complain(what)


def complain(what: object) -> None:
    """One line on the error output, whatever line breaks `what` holds."""
    print(" ".join(str(what).split()), file=sys.stderr)
