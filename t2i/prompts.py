"""What a person asks for: prompts, and how their pictures are drawn. Imports nothing heavy: mistakes show at once."""

import math
from dataclasses import dataclass
from pathlib import Path

from t2i.errors import UserError, closest
from t2i.options import OPEN


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How any picture is drawn, whatever it shows. UserError where a value makes no sense."""

    seed: int = 0  # of a prompt's first picture, the next have seed + 1, ...; of a search all that is random in it
    truncation: float = 1.0  # below 1: more typical, less varied
    noise: str = "const"  # the generator's noise inputs: const or random
    batch: int = OPEN  # pictures a pass: 16, of a search on a GPU 64; without --search a CPU draws one at a time

    def __post_init__(self):
        if self.batch is not None and self.batch < 1:
            raise UserError(f"batch={self.batch}: must be 1 or more")
        if not math.isfinite(self.truncation):
            raise UserError(f"truncation={self.truncation}: must be a number, usually from 0.5 to 1")
        if self.noise not in ("const", "random"):
            raise UserError(f"noise={self.noise}: {closest(self.noise, ('const', 'random'))}")


@dataclass(frozen=True, kw_only=True)
class Drawing(Sampling):
    """How plain samples are drawn."""

    count: int = 4  # pictures a prompt; of a search --top-k

    def __post_init__(self):
        super().__post_init__()
        if self.count < 1:
            raise UserError(f"count={self.count}: 1 or more pictures a prompt")


def read_prompts(given: list[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then those of the file."""
    for prompt in given:
        if not prompt.strip():
            raise UserError(f"--prompt {prompt!r}: empty; write what the picture should show")
    prompts = list(given)
    if file is not None:
        lines = read_lines(file, "--prompts")
        prompts += [line.strip() for line in lines if line.strip()]
        if blank := sum(not line.strip() for line in lines):
            print(f"{file}: skipped {blank} blank line{'s' if blank > 1 else ''}", flush=True)
        if not prompts:
            raise UserError(f"--prompts {file}: has no prompt; write one a line")
    if not prompts:
        raise UserError('no prompt: say --prompt "a green train" or --prompts FILE')
    return prompts


def read_lines(file: Path, option: str) -> list[str]:
    """The lines of a text file that an option names."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{option} {file}: not a UTF-8 text file; one prompt a line") from None
    except OSError as error:
        raise UserError(f"{option} {file}: {error.strerror}; give a text file, one prompt a line") from None


def slug(prompts: list[str]) -> str:
    """A file name for prompts: 'a-green-train', 'a-green-train-and-2-more'."""
    words = "".join(c if c.isalnum() else " " for c in prompts[0].lower()).split()
    more = f"-and-{len(prompts) - 1}-more" if len(prompts) > 1 else ""
    return ("-".join(words)[:60].strip("-") or "prompt") + more
