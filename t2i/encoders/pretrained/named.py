"""Which encoders a model folder may name: a file from elsewhere decides neither what is fetched nor what is read."""

import os
from pathlib import Path

from t2i.encoders.pretrained.network import PACKAGED, SHIPPED, TRUNKS
from t2i.errors import UserError

WORD = "T2I_ENCODERS"  # the user's word for others: names and folders, with commas between


def named_by(name: str, folder: Path) -> str:
    """The name of an encoder that the description in a model folder gives, as `load` and `load_trunk` take it.

    What ships and what packages bring, tags that open_clip and timm know, what lies in the model folder or below the
    folder one works in, and what of the hub is in its cache already. UserError for anything else, unless T2I_ENCODERS
    names it.
    """
    word = [part.strip() for part in os.environ.get(WORD, "").split(",") if part.strip()]
    if name in (*SHIPPED, *PACKAGED, *TRUNKS, *word):
        return name
    kind, _, rest = name.partition(":")
    if kind == "open_clip" and rest.startswith("hf-hub:"):
        return _cached(name, rest.removeprefix("hf-hub:"))
    if kind in ("open_clip", "timm") and rest:
        model, slash, where = rest.partition("/")
        if (kind == "timm" and not slash) or (kind == "open_clip" and _is_tag(model, where)):
            return name
        start = f"{kind}:{model}/"
    else:
        start, where = ("hf:", rest) if kind == "hf" and rest else ("", name)
    inside = folder / where
    if inside.exists() and inside.resolve().is_relative_to(folder.resolve()):
        return f"{start}{inside}"
    if start == "hf:" and not Path(where).exists():
        return _cached(name, where)
    whole = Path(where).resolve()
    if any(whole.is_relative_to(place) for place in (Path.cwd(), *(Path(part).resolve() for part in word))):
        return name
    raise UserError(
        f"encoder {name!r}: only the model's description names it, and it lies neither in {folder} nor below the "
        f"folder you work in; if you know it, set {WORD}={where}"
    )


def _is_tag(model: str, tag: str) -> bool:
    import open_clip  # takes seconds, which whoever loads such a model pays anyway

    return tag in open_clip.list_pretrained_tags_by_model(model)


def _cached(name: str, repo: str) -> str:
    import huggingface_hub

    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    if ".." not in repo and (cache / f"models--{repo.replace('/', '--')}").is_dir():
        return name
    raise UserError(
        f"encoder {name!r}: only the model's description names it, and it is not on this machine; nothing is fetched "
        f"on a file's word: hf download {repo}, if you know it"
    )
