"""The user's mistakes: one clear line instead of a traceback."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """What the user can put right. The message is one line: the field, its value and the remedy."""


def closest(name: str, known: Iterable[str]) -> str:
    """'known: a, b, c; did you mean b?' for an error about an unknown name."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"known: {', '.join(known)}" + (f"; did you mean {near[0]!r}?" if near else "")


def wrong(ok: bool, name: str, value: object, remedy: str) -> list[str]:
    """['name=value: remedy'], or nothing where all is well: what checks of settings are made of."""
    return [] if ok else [f"{name}={value}: {remedy}"]


def not_one_of(name: str, value: str, *known: str) -> list[str]:
    """`wrong` for a setting that must be one of some words."""
    return wrong(value in known, name, value, closest(value, known))


def run_command(main: Callable[[], None]) -> None:
    """Runs a script's main: a UserError becomes one line on stderr and exit status 2, Ctrl-C one word and 130.

    Of several processes the first speaks. Another does when it still lives a little later, so when the first had
    nothing to say: whoever launched them ends all as soon as one has ended.
    """
    try:
        main()
    except UserError as error:
        if int(os.environ.get("RANK", 0)) > 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(5)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


def one_line(error: Exception) -> str:
    """An error of another library as one line that is not too long."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
