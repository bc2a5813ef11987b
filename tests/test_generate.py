"""Model folders, prompts → pictures, grids and the generate command, on a tiny random StyleGAN2."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

import t2i
from t2i import build, config
from t2i import model as models
from t2i.encoders.pretrained.vocabulary import CompactTokenizer, collect
from t2i.errors import UserError, run_command
from t2i.model import find_model, load_model, save_model
from t2i.pictures import picture_grid, to_uint8

ROOT = Path(__file__).parents[1]
WORDS = "a green train is coming down the tracks"


def script():
    spec = importlib.util.spec_from_file_location("generate_script", ROOT / "scripts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_of(encoder: Path, *more: str) -> config.Config:
    sizes = [f"generator.{o}" for o in ("channel_base=128", "channel_max=16", "latent_dim=12", "style_dim=16")]
    return config.load(None, [f"encoders.text={encoder}", "model.resolution=16", *sizes, *more])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A random CLIP in the layout of train_clip.py: 12 tokens long, sentences of width 10."""
    folder = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_ENCODERS", str(folder))  # the user's word for an encoder outside of model and project
        yield make_encoder(folder)


def make_encoder(folder: Path) -> Path:
    tokens = collect([WORDS])
    text = {"context_length": 12, "vocab_size": CompactTokenizer(tokens, 12).vocab_size, "width": 16, "heads": 2}
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    model = {"embed_dim": 10, "vision_cfg": vision, "text_cfg": text | {"layers": 1}}
    torch.manual_seed(0)
    save_file(
        {k: v.contiguous() for k, v in open_clip.CLIP(**model).state_dict().items()}, folder / "model.safetensors"
    )
    half = (0.5, 0.5, 0.5)
    description = {"model_cfg": model, "preprocess_cfg": {"mean": half, "std": half}}
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    return folder


def weights(encoder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """A generator's, in which noise and truncation show."""
    torch.manual_seed(seed)
    generator = build.generator(settings_of(encoder), 10, 0)
    generator.mapping.w_avg.normal_()
    state = generator.state_dict()
    return {k: torch.full_like(v, 0.3) if k.endswith("noise_strength") else v for k, v in state.items()}


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, weights(encoder), settings_of(encoder), 10, 12.5)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> models.Model:
    return t2i.load(folder)


@pytest.fixture
def broken(folder, tmp_path) -> Path:
    """A copy of the model folder, to be spoilt."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


# ---- prompts → pictures


def test_pictures(model):
    images = model(["a green train", "the tracks"], count=3, seed=5)
    assert images.shape == (6, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 6
    assert model.resolution == 16
    assert model.kimg == 12.5
    assert model("a green train").shape == (1, 3, 16, 16)


@pytest.mark.parametrize("noise", ["const", "random"])
def test_same_seed_same_picture_whatever_the_batch(model, noise):
    prompts = ["a green train", "the tracks", "a green train"]
    images = model(prompts, count=5, seed=7, noise=noise)
    for batch in (1, 2, 7):
        assert torch.equal(model(prompts, count=5, seed=7, noise=noise, batch=batch), images)
    # Alone, from the middle, beside other prompts, or by a list of seeds.
    assert torch.equal(model("the tracks", seed=9, noise=noise)[0], images[7])
    assert torch.equal(model(prompts[:2], count=2, seed=8, noise=noise)[2:], images[6:8])
    assert torch.equal(model(prompts, seeds=[11, 7, 8], noise=noise), images[[4, 5, 11]])
    assert torch.equal(torch.cat(list(model.stream(prompts, 5, 7, noise=noise))), images)
    assert torch.equal(images[:5], images[10:])


def test_passes_of_several_pictures_agree(model):
    """As on a GPU: passes filled up to the batch, the same pictures but for the last bits."""
    prompts = ["a green train", "the tracks"]
    images = model(prompts, count=5, noise="random")
    there = models.Model(**{**vars(model), "device": torch.device("meta")})  # any type but cpu makes full passes
    there.device = Device("cpu")
    many = there(prompts, count=5, noise="random", batch=4)
    torch.testing.assert_close(many, images, atol=1e-4, rtol=0)


class Device(str):
    """Says that it is an accelerator and works as the CPU."""

    type = "other"


def test_noise_and_truncation(model):
    const, random = model("a train", seed=1), model("a train", seed=1, noise="random")
    assert not torch.allclose(const, random)
    mean = model("a train", count=3, truncation=0.0)
    assert torch.equal(mean[0], mean[2])  # every style is the mean one
    assert not torch.allclose(mean[0], const[0])
    spread = [float(model("a train", count=8, truncation=t).std(0).mean()) for t in (0.3, 0.7, 1.0)]
    assert spread == sorted(spread)


@pytest.mark.parametrize(
    ("prompts", "options", "line"),
    [
        ("", {}, "empty"),
        (["a train", " \n"], {}, "empty"),
        ([], {}, "none given"),
        ("a", {"count": 0}, "count=0"),
        ("a", {"batch": 0}, "batch=0"),
        ("a", {"noise": "randon"}, "did you mean 'random'"),
        ("a", {"truncation": float("nan")}, "truncation=nan"),
        (["a", "b"], {"seeds": [1]}, "seeds: 1 for 2 prompts"),
        (["a", "b"], {"seeds": [1, 2], "count": 2}, "with count=1"),
    ],
)
def test_calls_that_cannot_be_answered(model, prompts, options, line):
    with pytest.raises(UserError, match=line) as error:
        model(prompts, **options)
    assert "\n" not in str(error.value)


# ---- model folders


def test_folder_holds_config_and_weights(folder, encoder, model):
    assert sorted(p.name for p in folder.iterdir()) == ["generator.safetensors", "model.json"]
    assert model.config == settings_of(encoder)
    for name, value in weights(encoder).items():
        assert torch.equal(model.generator.state_dict()[name], value)
    assert not any(p.requires_grad for p in model.generator.parameters())
    assert not model.generator.training


def test_half_precision_halves_the_file(folder, encoder, model, tmp_path):
    save_model(tmp_path, weights(encoder), settings_of(encoder), 10, 12.5, dtype=torch.float16)
    size = [(p / "generator.safetensors").stat().st_size for p in (tmp_path, folder)]
    assert size[0] < 0.65 * size[1]  # names and shapes take as much as before
    half = load_model(tmp_path)("a green train", count=2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, model("a green train", count=2), atol=0.03, rtol=0)


def test_weights_that_are_no_numbers_are_not_written(encoder, tmp_path):
    state = weights(encoder)
    name = next(iter(state))
    for value, dtype in ((float("nan"), None), (1e6, torch.float16)):
        spoilt = state | {name: torch.full_like(state[name], value)}
        with pytest.raises(UserError, match=f"{name} is not finite"):
            save_model(tmp_path, spoilt, settings_of(encoder), 10, 1, dtype=dtype)
        assert not list(tmp_path.iterdir())


def rewrite(folder: Path, **changes) -> None:
    path = folder / "model.json"
    values = json.loads(path.read_text())
    for key, value in changes.items():
        place, *keys = key.split("__")
        if keys:
            values[place][keys[0]][keys[1]] = value
        else:
            values[place] = value
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def truncate(folder: Path) -> None:
    data = (folder / "generator.safetensors").read_bytes()
    (folder / "generator.safetensors").write_bytes(data[: len(data) // 2])


def drop_a_weight(folder: Path) -> None:
    state = load_file(folder / "generator.safetensors")
    state.pop(sorted(state)[0])
    save_file(state, folder / "generator.safetensors")
    rewrite(folder, sha256={})  # whoever made it so has made the description so


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (truncate, "generator.safetensors: cannot be read"),
        (lambda f: (f / "generator.safetensors").write_bytes(b""), "generator.safetensors: cannot be read"),
        (drop_a_weight, "does not fit the config in model.json"),
        (lambda f: rewrite(f, config__generator__style_dim=24), "does not fit the config in model.json"),
        (lambda f: (f / "model.json").write_text("{"), "model.json: cannot be read"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "model.json: cannot be read"),
        (lambda f: (f / "model.json").write_text("[]"), "not the description of a model"),
        (lambda f: rewrite(f, kimg=None), "lacks 'kimg'"),
        (lambda f: rewrite(f, format=3, version="9.0"), r"written by t2i 9.0, this is t2i .* update t2i"),
        (lambda f: rewrite(f, format=0), "use the t2i that wrote it"),
        (lambda f: rewrite(f, version="0.3", config__model__colour="red"), r"colour.*written by t2i 0.3"),
        (lambda f: rewrite(f, config__model__resolution="big"), "resolution"),
        (lambda f: rewrite(f, config__model__resolution=48), "a power of two"),
        (lambda f: rewrite(f, config__generator__name="stylegan22"), "did you mean 'stylegan2'"),
        (lambda f: rewrite(f, config__generator__name="ops"), "generator.name=ops: known"),
        (lambda f: rewrite(f, config__generator__name="..errors"), "generator.name=..errors: known"),
        (lambda f: rewrite(f, config__encoders__text="hf:${oc.env:HOME}"), r"stored configuration: holds \$\{"),
        (lambda f: rewrite(f, stage={"resolution": 16, "alpha": float("nan")}), r"stage\.alpha=nan: from 0 to 1"),
        (lambda f: rewrite(f, stage={"resolution": 16, "alpha": 7}), r"stage\.alpha=7\.0: from 0 to 1"),
        (lambda f: rewrite(f, stage={"resolution": float("inf"), "alpha": 1}), "infinity"),
        (lambda f: rewrite(f, text_dim=77), "width 77, but encoders.text=.* has 10"),
        (lambda f: rewrite(f, config__encoders__text="gone"), "gone"),
    ],
)
def test_folders_that_cannot_be_loaded(broken, spoil, line):
    spoil(broken)
    with pytest.raises(UserError, match=line) as error:
        load_model(broken)
    assert "\n" not in str(error.value)


def test_unknown_device(folder):
    for device in ("cpux", "cuda:99"):
        with pytest.raises(UserError, match=f"device {device}: .*; use cpu") as error:
            load_model(folder, device)
        assert "\n" not in str(error.value)


@pytest.fixture
def runs(folder, tmp_path, monkeypatch) -> Path:
    """runs/old and runs/new with checkpoints, runs/started without; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)
    names = ("old/checkpoints/000000900", "old/checkpoints/001000000", "new/checkpoints/000000010")
    for age, name in enumerate((*names, "new/checkpoints/.partial-000000020")):
        at = tmp_path / "runs" / name
        at.mkdir(parents=True)
        for file in folder.iterdir():
            (at / file.name).write_bytes(file.read_bytes())
            os.utime(at / file.name, (1e9 + age, 1e9 + age))
    (tmp_path / "runs/new/checkpoints/000000030").mkdir()  # empty: not a checkpoint
    (tmp_path / "runs/started").mkdir()
    (tmp_path / "runs/started/config.yaml").touch()
    (tmp_path / "runs/README").touch()
    return tmp_path


def test_which_model(runs, monkeypatch):
    newest = Path("runs/new/checkpoints/000000010")
    assert find_model() == newest
    assert find_model("runs/new") == find_model("new") == find_model(newest) == newest
    assert find_model(runs / "runs/old") == runs / "runs/old/checkpoints/001000000"
    assert find_model("runs/old/checkpoints/000000900").name == "000000900"
    for path, line in (
        ("runs/ned", r"runs/ned: not found; known: runs/new, runs/old.* did you mean 'runs/new'"),
        ("runs/started", "no checkpoint yet"),
        ("runs/README", "is a file"),
        ("runs", "no model there"),
    ):
        with pytest.raises(UserError, match=line) as error:
            find_model(path)
        assert "\n" not in str(error.value)
    # Without runs: the shipped one, by name too; without that: what to do.
    monkeypatch.chdir(runs / "runs")
    shipped = runs / "runs/old/checkpoints/000000900"
    monkeypatch.setattr(models, "SHIPPED", shipped)
    assert find_model() == find_model("000000900") == shipped
    monkeypatch.setattr(models, "SHIPPED", runs / "nothing")
    with pytest.raises(UserError, match="train one: accelerate launch"):
        find_model()
    with pytest.raises(UserError, match="x: not found; there are no runs yet"):
        find_model("x")


# ---- pictures


def test_uint8_undoes_the_loader():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_uint8((pixels.float() / 127.5 - 1).permute(0, 3, 1, 2)), pixels)
    assert to_uint8(torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2))[0, 0, :, 0].tolist() == [0, 255]


def test_grid_places_pictures():
    images = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    sheet = np.asarray(picture_grid(images, 3, scale=2))
    assert sheet.shape == (16 + 2 + 16, 3 * 16 + 2 * 2, 3)
    for k, value in enumerate((0, 64, 128, 191, 255)):
        y, x = k // 3 * 18, k % 3 * 18
        assert (sheet[y : y + 16, x : x + 16] == value).all()
    assert (sheet[18:, 36:] == 255).all()  # the last row is not full


def test_grid_labels():
    images = -torch.ones(4, 3, 64, 64)
    plain = picture_grid(images, 2)
    rows = np.asarray(picture_grid(images, 2, ["a green train", ""]))
    band = len(rows) - plain.height
    assert 10 < band < 20  # one line, and no band for the empty label
    assert (rows[:band] < 100).any()
    assert (rows[band : band + 64, :64] == 0).all()
    each = np.asarray(picture_grid(images, 2, ["a", "b", "a green train is coming", "d"]))
    assert len(each) == plain.height + 3 * band  # the third needs two lines
    with pytest.raises(ValueError, match="3 labels for 2 rows of 4 pictures"):
        picture_grid(images, 2, ["a", "b", "c"])


@settings(max_examples=15)
@given(st.lists(st.text(max_size=100), min_size=3, max_size=3), st.integers(1, 3), st.integers(1, 40))
def test_grid_takes_any_label(labels, columns, size):
    sheet = picture_grid(torch.zeros(3, 3, size, size), columns, labels)
    assert sheet.width == columns * (size + 2) - 2
    assert sheet.height <= 3 * (size + 2 + 2 * 20)


# ---- the command


def read(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_command(runs, encoder, capsys):
    main = script().main
    (runs / "prompts.txt").write_text("the tracks\n\n  coming down  \n\n", encoding="utf-8")
    long = WORDS + " beside the big old station"
    main(["--prompt", long, "--prompts", "prompts.txt", "--count", "2", "--seed", "3", "--truncation", "0.8",
          "--noise", "random", "--checkpoint", "old", "--out", "new/grid.png", "--singles", "new/single",
          "--device", "cpu"])  # fmt: skip
    out = capsys.readouterr().out
    assert "runs/old/checkpoints/001000000 (12.5 kimg, 16×16)" in out
    assert "skipped 2 blank lines" in out
    assert "not read: 'big old station'" in out or "not read: 'the big old station'" in out
    assert "6 pictures: new/grid.png" in out
    assert "\nsingle pictures, each with a JSON of how it was made: new/single\n" in out

    grid = read("new/grid.png")
    assert grid.shape[1] == 2 * 256 + 2
    stems = [f"{prompt}-seed{seed}" for prompt in ("0001-the-tracks", "0002-coming-down") for seed in (3, 4)]
    files = sorted(p.name for p in Path("new/single").iterdir())
    assert files[4:] == sorted(f"{s}.{e}" for s in stems for e in ("png", "json"))
    facts = json.loads(Path("new/single/0001-the-tracks-seed4.json").read_text())
    file = Path("runs/old/checkpoints/001000000/generator.safetensors")
    assert facts.pop("versions")["t2i"] == t2i.__version__
    assert facts == {
        "prompt": "the tracks", "seed": 4, "truncation": 0.8, "noise": "random", "checkpoint": str(file.parent),
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "kimg": 12.5, "resolution": 16,
        "device": "cpu",
    }  # fmt: skip
    # What the JSON says makes the picture again, and it is the one in the grid.
    single = read("new/single/0001-the-tracks-seed4.png")
    again = load_model(facts["checkpoint"])(
        facts["prompt"], seed=facts["seed"], truncation=facts["truncation"], noise=facts["noise"]
    )
    assert (to_uint8(again)[0].numpy() == single).all()
    top = len(grid) - 2 * 258 + 2 - (len(grid) - 3 * 258 + 2) // 3  # the second of three equal rows
    assert (grid[top : top + 256, 258:] == single.repeat(16, 0).repeat(16, 1)).all()


@pytest.mark.parametrize(
    ("arguments", "name", "rows", "columns"),
    [
        (["--prompt", "A green, green TRAIN!"], "a-green-green-train", 1, 4),
        (["--prompt", "a", "--prompt", "b", "--count", "1"], "a-and-1-more", 1, 2),
        (["--prompt", "…", "--count", "9"], "prompt", 2, 8),
        (["--prompt", "a/../b", "--prompt", "b", "--prompt", "c"], "a-b-and-2-more", 3, 4),
    ],
)
def test_command_names_and_shapes(runs, arguments, name, rows, columns):
    script().main([*arguments, "--device", "cpu"])
    height, width, _ = read(f"out/{name}.png").shape
    assert width == columns * 258 - 2
    assert rows * 258 - 2 <= height - 16 <= rows * (258 + 40)  # one band at least


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no prompt"),
        (["--prompt", "  "], "empty"),
        (["--prompts", "absent.txt"], "absent.txt: No such file"),
        (["--prompts", "blank.txt"], "has no prompt"),
        (["--prompts", "binary.txt"], "not a UTF-8 text file"),
        (["--prompt", "a", "--checkpoint", "runs/nev"], "did you mean 'runs/new'"),
        (["--prompt", "a", "--out", "x.jpg"], "ends in .png"),
        (["--prompt", "a", "--out", "blank.txt/x.png"], "cannot write the pictures"),
        (["--prompt", "a", "--count", "0"], "count=0"),
        (["--prompt", "a", "--device", "tpu9"], "device tpu9"),
    ],
)
def test_command_refuses(runs, arguments, line):
    Path("blank.txt").write_text("\n \n")
    Path("binary.txt").write_bytes(b"\xff\xff\xff")
    with pytest.raises(UserError, match=line) as error:
        script().main(["--device", "cpu", *arguments])
    assert "\n" not in str(error.value)


def test_command_line(runs, capsys):
    """As typed, with nothing but a prompt."""
    command = [sys.executable, str(ROOT / "scripts" / "generate.py"), "--prompt", "a green train"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "4 pictures: out/a-green-train.png"
    assert read("out/a-green-train.png").shape[1] == 4 * 258 - 2
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: script().main(["--prompt", ""]))
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: --prompt '': empty; write what the picture should show\n"


def test_importing_t2i_is_cheap():
    code = "import sys, t2i; assert t2i.load; print('torch' in sys.modules, t2i.__version__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert out.split() == ["False", version]
