"""Folders in open_clip's layout, as train_clip.py writes them: open_clip_config.json and the weights.

With a vocabulary.json the ids of the tokens are those of CompactTokenizer; a transformer of open_clip's plain kind is
then read by towers.py, and everything else by open_clip.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from t2i.encoders.pretrained.network import CONFIG, FORMS, SHIPPED, Pretrained, Tokens, reason
from t2i.encoders.pretrained.towers import Towers
from t2i.encoders.pretrained.vocabulary import FILE as VOCABULARY
from t2i.encoders.pretrained.vocabulary import CompactTokenizer
from t2i.errors import UserError, closest

WEIGHTS = "model.safetensors"
PLAIN = {
    "vision_cfg": {"image_size", "patch_size", "width", "layers", "head_width"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}


def read(name: str, folder: Path) -> Pretrained:
    """Raises UserError where it is no such folder, or one that cannot be read."""
    if not folder.is_dir():
        raise UserError(f"encoder {name!r}: no such folder; write {FORMS}; {closest(name, SHIPPED)}")
    if not (folder / CONFIG).is_file():
        hint = f"for a Hugging Face model write hf:{name}" if (folder / "config.json").is_file() else f"write {FORMS}"
        raise UserError(f"encoder {name!r}: the folder has no {CONFIG}; {hint}")
    try:
        config = json.loads((folder / CONFIG).read_text())
        tokens = json.loads((folder / VOCABULARY).read_text()) if (folder / VOCABULARY).is_file() else None
        if tokens is not None and is_plain(config) and (folder / WEIGHTS).is_file():
            return _plain(name, folder, config, tokens)
        from t2i.encoders.pretrained import open_clip_models

        return open_clip_models.read_folder(name, folder, config["model_cfg"], tokens)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"encoder {name!r}: cannot be read: {reason(error)}") from None


def is_plain(config: dict[str, Any]) -> bool:
    """Whether towers.py knows the model: a vision transformer and a text transformer with nothing out of the way."""
    model, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
    return (
        set(model) == {"embed_dim", *PLAIN}
        and all(set(model[tower]) == keys for tower, keys in PLAIN.items())
        and isinstance(model["vision_cfg"]["layers"], int)  # four numbers are a ResNet's
        and isinstance(model["vision_cfg"]["image_size"], int)
        and isinstance(model["vision_cfg"]["patch_size"], int)
        and {"mean", "std"} <= set(preprocess)
    )


def _plain(name: str, folder: Path, config: dict[str, Any], vocabulary: list[str]) -> Pretrained:
    model, preprocess = config["model_cfg"], config["preprocess_cfg"]
    network = Towers(**model)
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    tokenizer = CompactTokenizer(vocabulary, model["text_cfg"]["context_length"])

    def tokenize(captions: Sequence[str]) -> Tokens:
        return Tokens.byte_pairs(tokenizer(captions))

    def fits(caption: str) -> bool:
        return len(tokenizer.encode(caption)) + 2 <= tokenizer.context_length

    return Pretrained(
        name, network, tokenize, fits, tokenizer.context_length, lambda tokens: network.encode_text(tokens.ids),
        network.encode_image, network.visual.image_size, tuple(preprocess["mean"]), tuple(preprocess["std"]),
    )  # fmt: skip
