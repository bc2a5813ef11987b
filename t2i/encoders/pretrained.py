"""Names of encoders → frozen networks. Everything text.py and clip.py need of one, whichever library it is from."""

import contextlib
import functools
import hashlib
import json
import logging
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import torch
import torch.nn.functional as F
import transformers
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from t2i.encoders.vocabulary import FILE as VOCABULARY
from t2i.encoders.vocabulary import CompactTokenizer
from t2i.errors import UserError, closest

ASSETS = Path(__file__).parents[1] / "assets"
SHIPPED = ("scenes-clip", "scenes-clip-score")
CONFIG = "open_clip_config.json"
FORMS = "a shipped name, a folder made by train_clip.py, open_clip:ARCH/TAG_OR_FILE or hf:NAME_OR_FOLDER"
MAX_WORDS = 77  # Hugging Face models that could read more are held to CLIP's length: words have one shape [B, L, C']
TIMEOUT = 5  # seconds until a server that does not answer counts as unreachable


@dataclass
class Tokens:
    """Captions as numbers. `words` leaves out start, end and padding, which `attend` only does for padding."""

    ids: Tensor  # [B, L] int64
    attend: Tensor  # [B, L] bool
    words: Tensor  # [B, L] bool

    def to(self, device: torch.device | str) -> "Tokens":
        return Tokens(self.ids.to(device), self.attend.to(device), self.words.to(device))


@dataclass
class Pretrained:
    """A frozen network, in eval mode."""

    name: str
    network: nn.Module
    tokenize: Callable[[Sequence[str]], Tokens]
    fits: Callable[[str], bool]  # whether all of a caption is read
    max_words: int
    encode_text: Callable[[Tokens], tuple[Tensor, Tensor]]  # → sentence [B, C], words [B, L, C']
    encode_image: Callable[[Tensor], Tensor] | None = None  # [B, 3, size, size] normalised by mean, std → [B, C]
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that its features depend on: weights, preprocessing and tokens. The same on
        every device, and whatever name it was loaded by."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        tokens = self.tokenize(["A zebra, two red kites: 3 don't fly!"]).ids.tolist()
        digest.update(repr((tokens, self.max_words, self.image_size, self.mean, self.std)).encode())
        return digest.hexdigest()


def load(name: str, device: torch.device | str = "cpu") -> Pretrained:
    """The named encoder (the forms of `FORMS`), read once for a device however often it is asked for.

    Raises UserError with one line: the unknown part and its closest names, or the file that is missing and the
    command that fetches it.
    """
    return _load(name, str(torch.device(device)))


@functools.cache
def _load(name: str, device: str) -> Pretrained:
    kind, _, rest = name.partition(":")
    if kind == "open_clip" and rest:
        found = _open_clip(name, *_open_clip_network(name, rest))
    elif kind == "hf" and rest:
        found = _hugging_face(name, rest)
    else:
        folder = ASSETS / name if name in SHIPPED else Path(name)
        found = _open_clip(name, *_folder_network(name, folder))
    found.network.to(device).eval().requires_grad_(False)
    return found


# open_clip


def _folder_network(name: str, folder: Path) -> tuple[nn.Module, Any]:
    """A folder in open_clip's own layout; with a vocabulary.json the token ids are those of train_clip.py."""
    if not folder.is_dir():
        raise UserError(f"encoder {name!r}: no such folder; write {FORMS}; {closest(name, SHIPPED)}")
    if not (folder / CONFIG).is_file():
        hint = f"for a Hugging Face model write hf:{name}" if (folder / "config.json").is_file() else f"write {FORMS}"
        raise UserError(f"encoder {name!r}: the folder has no {CONFIG}; {hint}")
    overrides = {}
    try:
        text = json.loads((folder / CONFIG).read_text())["model_cfg"]["text_cfg"]
        if "hf_model_name" in text:  # the Hugging Face tower's config and tokenizer lie in the folder itself
            overrides["text_cfg"] = text | {"hf_model_name": str(folder), "hf_model_pretrained": False}
        with _quiet():
            network = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True, **overrides)
            if (folder / VOCABULARY).is_file():
                tokens = json.loads((folder / VOCABULARY).read_text())
                return network, CompactTokenizer(tokens, network.context_length)
            return network, open_clip.get_tokenizer(f"local-dir:{folder}")
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"encoder {name!r}: cannot be read: {_line(error)}") from None


def _open_clip_network(name: str, rest: str) -> tuple[nn.Module, Any]:
    """rest: 'ARCH/TAG', 'ARCH/FILE' or 'hf-hub:OWNER/NAME'."""
    if rest.startswith("hf-hub:"):
        repo = rest.removeprefix("hf-hub:")
        both = lambda: (open_clip.create_model(rest, require_pretrained=True), open_clip.get_tokenizer(rest))
        return _from_hub(name, repo, both)
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
        with _quiet():
            network = open_clip.create_model(
                arch,
                pretrained=file,
                force_quick_gelu=entry.get("quick_gelu", False),
                force_preprocess_cfg={k: entry[k] for k in ("mean", "std") if k in entry},
            )
    except Exception as error:  # a damaged file makes the readers raise whatever it leads them to
        raise UserError(f"{name}: {file} cannot be read as {arch}: {_line(error)}") from None
    repo = open_clip.get_model_config(arch)["text_cfg"].get("hf_tokenizer_name", arch)
    return network, _from_hub(name, repo, lambda: open_clip.get_tokenizer(arch))


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

        return _from_hub(name, repo, first, files[0])
    url = entry["url"]
    target = Path.home() / ".cache" / "clip" / url.rpartition("/")[2]
    fetch(name, url, target)
    return str(target)


def fetch(name: str, url: str, target: Path) -> None:
    """Downloads `url` unless `target` is there. Raises UserError with the command that would do it."""
    if target.is_file():
        return
    try:
        if huggingface_hub.is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        print(f"{name}: fetching {url}", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        with urllib.request.urlopen(url, timeout=TIMEOUT) as source, open(partial, "wb") as out:
            shutil.copyfileobj(source, out)
        partial.rename(target)
    except OSError as error:
        raise UserError(
            f"{name}: {target} is not on this machine and could not be fetched ({_line(error)}); "
            f"fetch it with: curl -L --create-dirs -o {target} {url}"
        ) from None


def _from_hub(name: str, repo: str, read: Callable[[], Any], file: str = "") -> Any:
    """read() from the cache alone, else with the network, else one line."""
    with contextlib.suppress(Exception), _quiet(), _cache_only():
        return read()
    try:
        if huggingface_hub.is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        # The hub's client tries an address that does not answer for minutes.
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=TIMEOUT)
        print(f"{name}: fetching {repo}", file=sys.stderr)
        with _quiet():
            return read()
    except Exception as error:  # the hub's client raises errors of several libraries
        folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
        raise UserError(
            f"{name}: {file or 'the model'} is not on this machine (looked in {folder}) and could not be fetched "
            f"({_line(error)}); fetch it with: hf download {repo} {file}".rstrip()
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
def _quiet() -> Iterator[None]:
    """No progress bars and reports of transformers; and open_clip, which logs to the root, does not configure it."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), transformers.logging.get_verbosity()
    root.addHandler(handler)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        root.removeHandler(handler)
        transformers.logging.set_verbosity(before)
        transformers.logging.enable_progress_bar()


def _open_clip(name: str, network: Any, tokenizer: Any) -> Pretrained:
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
            # The end token has the highest id; what lies behind it is padding.
            position, end = torch.arange(ids.shape[1]), ids.argmax(1, keepdim=True)
            return Tokens(ids, position <= end, (position > 0) & (position < end))
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


# Hugging Face


def _hugging_face(name: str, where: str) -> Pretrained:
    """A two-tower model (CLIP, SigLIP), CLIP's text tower alone, or any encoder (T5, BERT and their kin)."""
    local = Path(where).is_dir()
    if not local and (where.startswith((".", "/", "~")) or where.count("/") > 1):
        raise UserError(f"encoder {name!r}: no such folder: {Path(where).absolute()}")

    def read(cls: Any, **options: Any) -> Any:
        if not local:
            return _from_hub(name, where, lambda: cls.from_pretrained(where, **options))
        try:
            with _quiet():
                return cls.from_pretrained(where, local_files_only=True, **options)
        except Exception as error:  # a damaged file makes the readers raise whatever it leads them to
            raise UserError(f"encoder {name!r}: cannot be read: {_line(error)}") from None

    config = read(transformers.AutoConfig)
    tokenizer = read(transformers.AutoTokenizer)
    if tokenizer.pad_token is None:  # of models that were trained without padding; attention never sees it
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    two_towers = hasattr(config, "text_config") and hasattr(config, "vision_config")
    cls: Any = transformers.AutoModel
    if config.model_type == "clip_text_model":
        projected = "CLIPTextModelWithProjection" in (config.architectures or ())
        cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    elif type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        cls = transformers.AutoModelForTextEncoding
    network, report = read(cls, output_loading_info=True, dtype=torch.float32)
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
        processor = read(transformers.AutoImageProcessor)
        found.encode_image = lambda image: network.get_image_features(pixel_values=image).pooler_output
        found.image_size = config.vision_config.image_size
        found.mean, found.std = tuple(processor.image_mean), tuple(processor.image_std)
    return found


def _line(error: Exception) -> str:
    """An error of another library as one line that is not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"


def pad_words(words: Tensor, length: int) -> Tensor:
    """[B, L, ...] → [B, length, ...] with zeros (False) behind."""
    return F.pad(words, (0, 0) * (words.dim() - 2) + (0, length - words.shape[1]))
