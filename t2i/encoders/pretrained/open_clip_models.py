"""Models of open_clip: its published architectures and weights, its files on the hub, and folders in its layout."""

import contextlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from open_clip.hf_model import HFTextEncoder
from torch import Tensor

from t2i.encoders.pretrained.folding import fold
from t2i.encoders.pretrained.hub import from_hub, reading
from t2i.encoders.pretrained.network import Pretrained, Tokens, reason
from t2i.encoders.pretrained.vocabulary import CompactTokenizer
from t2i.errors import UserError
from t2i.files import download


def read(name: str, rest: str) -> Pretrained:
    """rest: 'ARCH/TAG', 'ARCH/FILE' or 'hf-hub:OWNER/NAME'."""
    if rest.startswith("hf-hub:"):
        both = lambda: (open_clip.create_model(rest, require_pretrained=True), tokenizer_of(rest))
        return pretrained(name, *from_hub(name, rest.removeprefix("hf-hub:"), both))
    arch, _, source = rest.partition("/")
    known, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(arch)
    if arch not in known:
        near = get_close_matches(arch, known, n=4, cutoff=0.3)
        raise UserError(f"{name}: unknown architecture {arch!r}; the closest are {', '.join(near) or 'none'}")
    if source in tags:
        entry = open_clip.get_pretrained_cfg(arch, source)
        file = _tag_file(name, entry)
    elif Path(source).is_file():
        # A bare file does not say how its pictures were normalised; the architecture's published weights do.
        entry = dict(open_clip.get_pretrained_cfg(arch, tags[0])) if tags else {}
        entry.pop("quick_gelu", None)  # this is for the architecture's name to say: ViT-B-32-quickgelu
        file = source
    elif "/" in source or Path(source).suffix in (".pt", ".pth", ".bin", ".safetensors"):
        raise UserError(f"{name}: no such weight file: {Path(source).absolute()}")
    else:
        near = get_close_matches(source, tags, n=4, cutoff=0.3) or tags
        raise UserError(f"{name}: unknown weights {source!r}; for {arch} the closest are {', '.join(near)}, or a file")
    try:
        with reading():
            network = open_clip.create_model(
                arch,
                pretrained=file,
                force_quick_gelu=entry.get("quick_gelu", False),
                force_preprocess_cfg={k: entry[k] for k in ("mean", "std") if k in entry},
            )
    except Exception as error:  # a damaged file makes the readers raise whatever it leads them to
        raise UserError(f"{name}: {file} cannot be read as {arch}: {reason(error)}") from None
    repo = open_clip.get_model_config(arch)["text_cfg"].get("hf_tokenizer_name", arch)
    return pretrained(name, network, from_hub(name, repo, lambda: tokenizer_of(arch)))


def read_folder(name: str, folder: Path, model: dict[str, Any], vocabulary: list[str] | None) -> Pretrained:
    """A folder in open_clip's layout. model: its model_cfg. vocabulary: the tokens that its ids stand for, if it has
    its own. ValueError where the towers are not known, other errors are open_clip's."""
    where, overrides = f"local-dir:{folder}", dict[str, Any]()
    vision, text = model["vision_cfg"], model["text_cfg"]
    if "hf_model_name" in text:  # the Hugging Face tower's config and tokenizer lie in the folder itself
        overrides["text_cfg"] = text | {"hf_model_name": str(folder), "hf_model_pretrained": False}
    if "timm_model_name" in vision:
        # A name such as hf-hub:... would be fetched.
        if not timm.is_model(vision["timm_model_name"].partition(".")[0]):
            raise ValueError(f"vision_cfg.timm_model_name={vision['timm_model_name']!r}: no name that timm has itself")
        overrides["vision_cfg"] = vision | {"timm_model_pretrained": False}
    with reading():
        network = open_clip.create_model(where, require_pretrained=True, **overrides)
        if "timm_model_name" in vision:
            fold(network.visual.trunk).to(memory_format=torch.channels_last)
        if vocabulary is None:
            return pretrained(name, network, tokenizer_of(where))
        return pretrained(name, network, CompactTokenizer(vocabulary, network.context_length))


def tokenizer_of(model: str) -> Any:
    """open_clip's tokenizer of a model (ARCH, local-dir:FOLDER or hf-hub:OWNER/NAME), whose configuration cannot make
    it run code."""
    by_transformers = open_clip.get_model_config(model)["text_cfg"].get("hf_tokenizer_name")
    return open_clip.get_tokenizer(model, **({"trust_remote_code": False} if by_transformers else {}))


def _tag_file(name: str, entry: dict[str, Any]) -> str:
    """The weight file of an open_clip tag: from the cache, else fetched."""
    repo, _, file = entry.get("hf_hub", "").rpartition("/")
    if repo:
        files = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]

        def first() -> str:
            for f in files[:-1]:
                with contextlib.suppress(EntryNotFoundError):
                    return huggingface_hub.hf_hub_download(repo, f)
            return huggingface_hub.hf_hub_download(repo, files[-1])

        return from_hub(name, repo, first, files[0])
    url = entry["url"]
    target = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
    download(name, url, target)
    return str(target)


def pretrained(name: str, network: Any, tokenizer: Any) -> Pretrained:
    """How to read an open_clip model (CLIP, CustomTextCLIP, CoCa; its own or a Hugging Face text tower)."""
    tower = getattr(network, "text", network)
    length = tokenizer.context_length
    kept: list[Any] = []
    tower.transformer.register_forward_hook(lambda module, args, out: kept.append(out))
    inner = getattr(tokenizer, "tokenizer", None)  # of Hugging Face, wrapped by open_clip
    image = open_clip.get_model_preprocess_cfg(network)
    size = network.visual.image_size

    def tokenize(captions: Sequence[str]) -> Tokens:
        ids = tokenizer(list(captions))  # [B, L]
        if inner is None:
            return Tokens.byte_pairs(ids)
        if isinstance(tower, HFTextEncoder):  # it never looks at padding, and a caption is a third of the length
            ids = ids[:, : max(1, int((ids != inner.pad_token_id).sum(1).max()))]
        special = torch.tensor([i for i in inner.all_special_ids if i != inner.unk_token_id])
        return Tokens(ids, ids != inner.pad_token_id, ~torch.isin(ids, special))

    def fits(caption: str) -> bool:
        if inner is None:
            return len(tokenizer.encode(caption)) + 2 <= length
        return (
            len(inner(tokenizer.clean_fn(caption) if hasattr(tokenizer, "clean_fn") else caption).input_ids) <= length
        )

    def encode_text(tokens: Tokens) -> tuple[Tensor, Tensor]:
        kept.clear()
        sentence = network.encode_text(tokens.ids)
        (words,) = kept
        kept.clear()
        words = getattr(words, "last_hidden_state", words)[:, : tokens.ids.shape[1]]  # CoCa appends a class token
        return sentence, tower.ln_final(words) if hasattr(tower, "ln_final") else words

    return Pretrained(
        name, network, tokenize, fits, length, encode_text, network.encode_image,
        size if isinstance(size, int) else size[0], tuple(image["mean"]), tuple(image["std"]),
    )  # fmt: skip
