"""Weight files that lie at an address."""

import re
import socket
import sys
from pathlib import Path

import huggingface_hub
import torch

from t2i.encoders.pretrained.network import one_line
from t2i.errors import UserError

TIMEOUT = 5  # seconds until a server that does not answer counts as unreachable


def fetch(name: str, url: str, target: Path) -> None:
    """Downloads `url` unless `target` is there; one that ends early leaves nothing behind.

    Where the file's name holds the start of its SHA-256, as torch's do, that is checked. Raises UserError with the
    command that would do it.
    """
    if target.is_file():
        return
    waits = socket.getdefaulttimeout()
    try:
        if huggingface_hub.is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        print(f"{name}: fetching {url}", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(TIMEOUT)  # torch.hub's own is none
        digest = re.search(r"-([0-9a-f]{8,})\.", target.name)
        torch.hub.download_url_to_file(url, str(target), digest and digest[1], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name}: {target} is not on this machine and could not be fetched ({one_line(error)}); "
            f"fetch it with: curl -L --create-dirs -o {target} {url}"
        ) from None
    finally:
        socket.setdefaulttimeout(waits)
