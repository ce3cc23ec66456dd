"""What the commands of this folder share: mistakes in their arguments are one line, as all others are."""

import argparse
import sys
from typing import NoReturn

from runtimes import RecipeError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{message}; run: {self.prog} --help")


def complain(what: object) -> None:
    """One line on the error output, whatever line breaks `what` holds."""
    print(" ".join(str(what).split()), file=sys.stderr)
