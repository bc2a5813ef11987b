"""How models of the Hugging Face hub are read, by transformers or by open_clip: from the cache first, quietly, and
without executing anything of theirs."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from transformers import dynamic_module_utils

from t2i.encoders.pretrained.network import reason
from t2i.errors import UserError
from t2i.files import ANSWER


def from_hub(name: str, repo: str, read: Callable[[], Any], file: str = "") -> Any:
    """read() from the cache alone, else with the network, else one line."""
    with contextlib.suppress(Exception), reading(), _cache_only():
        return read()
    try:
        if huggingface_hub.is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        # The hub's client tries an address that does not answer for minutes.
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=ANSWER)
        print(f"{name}: fetching {repo}", file=sys.stderr)
        with reading():
            return read()
    except Exception as error:  # the hub's client raises errors of several libraries
        folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
        raise UserError(
            f"{name}: {file or 'the model'} is not on this machine (looked in {folder}) and could not be fetched "
            f"({reason(error)}); fetch it with: hf download {repo} {file}".rstrip()
        ) from None


@contextlib.contextmanager
def _cache_only() -> Iterator[None]:
    """The hub's client looks into its cache and nowhere else."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """No progress bars and reports of transformers; and open_clip, which logs to the root, does not configure it.

    A model that comes with code of its own is refused: transformers would ask at the terminal whether to run it, unless
    it is given no time for that. open_clip passes on no other answer.
    """
    root, handler, before = logging.getLogger(), logging.NullHandler(), transformers.logging.get_verbosity()
    patience, dynamic_module_utils.TIME_OUT_REMOTE_CODE = dynamic_module_utils.TIME_OUT_REMOTE_CODE, 0
    root.addHandler(handler)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        root.removeHandler(handler)
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience
        transformers.logging.set_verbosity(before)
        transformers.logging.enable_progress_bar()
