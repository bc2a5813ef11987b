"""The Inception network of FID, KID and IS: torch-fidelity's, which resizes as TensorFlow 1 did, on weights of a file.

Both published files hold the same numbers under the same names: torch-fidelity's and pytorch-fid's.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i import files
from t2i.errors import UserError, one_line
from t2i.metrics.networks import Network, Setting, Settings

FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # of either
HOMES = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/",
)

SETTINGS = {
    "inception": Setting("FILE", "weights of FID's network, as torch-fidelity or pytorch-fid publish them"),
}


def find(file: str | Path | None = None) -> Path | None:
    """The file given, or either published one in torch's cache; None where there is none."""
    return next((p for p in ([Path(file)] if file else [_cache() / name for name in FILES]) if p.is_file()), None)


def missing(settings: Settings) -> str | None:
    """What is looked for, where it is usually had, and how to know it."""
    return None if find(settings["inception"]) else _where(settings)


def _where(settings: Settings) -> str:
    return (
        f"no Inception weights at {settings['inception'] or _cache()}: they are {FILES[0]} from {HOMES[0]} or "
        f"{FILES[1]} from {HOMES[1]} (sha256 {SHA256}); give the file with {settings.spell('inception')}, or put it "
        "into torch's cache"
    )


def load(settings: Settings, device: Any) -> Network:
    """ "inception" [N, 2048] pooled, "logits" [N, 1008] without bias, of pictures looked at as uint8.

    Warns where the file is not the published one: its scores then compare with none but its own.
    """
    import torch

    from t2i.pictures import to_uint8

    network, fingerprint = read(settings, device)

    @torch.no_grad()
    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        pooled, logits = network(to_uint8(images).permute(0, 3, 1, 2).contiguous())
        return {"inception": pooled, "logits": logits}

    return Network(see, fingerprint)


def read(settings: Settings, device: Any) -> tuple[Any, str]:
    """The network of the file, and the fingerprint of its weights; the warning is `load`'s."""
    import torch

    from t2i.metrics.protocol import hashed

    path = find(settings["inception"])
    assert path is not None
    try:
        network = _build(torch.load(path, map_location="cpu", weights_only=True)).to(device)
    except Exception as error:  # unpickling raises whatever a damaged or another file leads it to
        said = f"{settings.spell('inception')} {path}: cannot be read as {FILES[0]} ({one_line(error)})"
        raise UserError(f"{said}; {_where(settings)}") from None
    digest = files.sha256(path)
    if digest != SHA256:
        warnings.warn(
            f"{settings.spell('inception')} {path}: sha256 {digest[:16]}..., not {SHA256[:16]}... of the published "
            "file: what it gives is no FID that compares with others'",
            stacklevel=3,
        )
    return network, SHA256[:16] if digest == SHA256 else hashed(network)


def _build(weights: dict[str, Any]) -> Any:
    """The network, frozen and in eval mode. weights: as both published files name them; RuntimeError for others."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # Batch norm counts its batches, which nothing reads: files written by older versions lack the counts.
    state = {k.removeprefix("module."): v for k, v in weights.items() if "AuxLogits" not in k}
    for key in [k for k in state if k.endswith(".running_mean")]:
        state.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    file = io.BytesIO()  # the constructor reads a file, and unpickles whatever is in it: only these tensors
    torch.save(state, file)
    file.seek(0)
    with torch.random.fork_rng(devices=[]):
        return FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], file)


def _cache() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"
