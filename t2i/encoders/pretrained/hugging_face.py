"""Models of Hugging Face's transformers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from t2i.encoders.pretrained.hub import from_hub, reading
from t2i.encoders.pretrained.network import Pretrained, Tokens, reason
from t2i.errors import UserError

MAX_WORDS = 77  # models that could read more are held to CLIP's length: words have one shape [B, L, C']


def reader(name: str, where: str, kind: str = "encoder") -> Callable[..., Any]:
    """part(cls, **options): what a class of transformers reads of a model of the hub, or of a folder; nothing of it
    runs. kind: what users know `name` as. UserError where there is no such folder or it cannot be read."""
    local = Path(where).is_dir()
    if not local and (where.startswith((".", "/", "~")) or where.count("/") > 1):
        raise UserError(f"{kind} {name!r}: no such folder: {Path(where).absolute()}")

    def part(cls: Any, **options: Any) -> Any:
        options["trust_remote_code"] = False
        if not local:
            return from_hub(name, where, lambda: cls.from_pretrained(where, **options))
        try:
            with reading():
                return cls.from_pretrained(where, local_files_only=True, **options)
        except Exception as error:  # a damaged file makes the readers raise whatever it leads them to
            raise UserError(f"{kind} {name!r}: cannot be read: {reason(error)}") from None

    return part


def read(name: str, where: str) -> Pretrained:
    """A two-tower model (CLIP, SigLIP), CLIP's text tower alone, or any encoder (T5, BERT and their kin)."""
    part = reader(name, where)
    config = part(transformers.AutoConfig)
    tokenizer = part(transformers.AutoTokenizer)
    if tokenizer.pad_token is None:  # of models that were trained without padding; attention never sees it
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    two_towers = hasattr(config, "text_config") and hasattr(config, "vision_config")
    cls: Any = transformers.AutoModel
    if config.model_type == "clip_text_model":
        projected = "CLIPTextModelWithProjection" in (config.architectures or ())
        cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    elif type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        cls = transformers.AutoModelForTextEncoding
    network, report = part(cls, output_loading_info=True, dtype=torch.float32)
    missing = [key for key in report["missing_keys"] if "pooler" not in key]
    if missing:
        raise UserError(f"encoder {name!r}: the weights lack {missing[0]} and {len(missing) - 1} more that it needs")
    if getattr(config, "is_encoder_decoder", False) and hasattr(network, "get_encoder"):
        network = network.get_encoder()
    text = config.text_config if two_towers else config
    longest = getattr(text, "max_position_embeddings", None) or MAX_WORDS
    length = min(tokenizer.model_max_length, longest, MAX_WORDS)

    def tokenize(captions: Sequence[str]) -> Tokens:
        # SigLIP was trained on captions padded to the full length and reads the padding too.
        padding = "max_length" if two_towers else "longest"
        out = tokenizer(
            list(captions), padding=padding, truncation=True, max_length=length,
            return_special_tokens_mask=True, return_attention_mask=True, return_tensors="pt",
        )  # fmt: skip
        attend = out["attention_mask"].bool()
        return Tokens(out["input_ids"], attend, attend & ~out["special_tokens_mask"].bool())

    def fits(caption: str) -> bool:
        return len(tokenizer(caption).input_ids) <= length

    def encode_text(tokens: Tokens) -> tuple[Tensor, Tensor]:
        if two_towers:
            reads_mask = config.model_type.startswith(("clip", "chinese_clip", "align", "groupvit", "altclip"))
            masks = {"attention_mask": tokens.attend} if reads_mask else {}
            out = network.get_text_features(input_ids=tokens.ids, **masks)
            return out.pooler_output, out.last_hidden_state
        out = network(input_ids=tokens.ids, attention_mask=tokens.attend.long())
        words = out.last_hidden_state  # [B, L, C]
        if config.model_type == "clip_text_model":
            return out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output, words
        weight = tokens.attend[..., None].to(words.dtype)
        return (words * weight).sum(1) / weight.sum(1).clamp(min=1), words

    found = Pretrained(name, network, tokenize, fits, length, encode_text)
    if two_towers:
        processor = part(transformers.AutoImageProcessor)
        found.encode_image = lambda image: network.get_image_features(pixel_values=image).pooler_output
        found.image_size = config.vision_config.image_size
        found.mean, found.std = tuple(processor.image_mean), tuple(processor.image_std)
    return found
