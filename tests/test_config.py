"""Configuration: defaults, YAML, overrides, presets, and one line for each mistake."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i import config
from t2i.errors import UserError

CONFIGS = sorted(p for p in (Path(__file__).parents[1] / "configs").glob("*.yaml") if not p.stem.startswith("ablation"))


def test_overrides_come_after_yaml_and_preset(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("preset: paper256\nmodel: {resolution: 256}\ntrain: {kimg: 7}\noptim: {g: {lr: 0.001}}\n")
    c = config.load(path, ["train.kimg=9", "loss.img_txt_d.weight=0.25"])
    assert (c.train.batch, c.discriminator.mbstd_group, c.generator.mapping_layers) == (64, 8, 8)  # the preset's
    assert c.optim.g.lr == 0.001
    assert c.optim.d.lr == 0.0025
    assert c.train.kimg == 9
    assert c.loss["img_txt_d"] == {"weight": 0.25, "temperature": 0.1}
    assert c.loss["r1"]["gamma"] == 1.0


@pytest.mark.parametrize(
    ("resolution", "devices", "batch", "gamma", "lr"),
    [
        (256, 1, 16, 0.0002 * 256**2 / 16, 0.0025),
        (256, 8, 64, 0.0002 * 256**2 / 64, 0.0025),
        (1024, 1, 4, 0.0002 * 1024**2 / 4, 0.002),
        (64, 1, 32, 0.0002 * 64**2 / 32, 0.0025),
    ],
)
def test_auto_preset_follows_resolution_and_devices(resolution, devices, batch, gamma, lr):
    c = config.load(None, ["preset=auto", f"model.resolution={resolution}"], devices)
    assert c.train.batch == batch
    assert c.loss["r1"]["gamma"] == pytest.approx(gamma)
    assert c.optim.d.lr == lr
    assert c.discriminator.mbstd_group == 4
    assert c.model.channel_base == (32768 if resolution >= 512 else 16384)
    assert c.train.ema_kimg == pytest.approx(batch * 10 / 32)


def test_resolved_yaml_reads_back_equal(tmp_path):
    c = config.load(None, ["preset=cifar", "train.batch=128", "log.prompts=[a red bus, 'a dog: sitting']"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(c))
    assert config.load(path) == c
    assert config.from_dict(dataclasses.asdict(c)) == c


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.batc=8", "did you mean 'batch'"),
        ("trian.batch=8", "did you mean 'train'"),
        ("train.batch=many", "train.batch"),
        ("train.batch=0", "train.batch=0"),
        ("model.resolution=48", "power of two"),
        ("train.precision=fp61", "did you mean 'fp16'"),
        ("preset=paper265", "did you mean 'paper256'"),
        ("ada.p=1.5", "0 to 1"),
        ("loss.r1.every=0", "loss.r1.every=0"),
        ("loss.r1.weight=lots", "loss.r1.weight=lots"),
        ("kimg", "key=value"),
        ("name=a/b", "plain folder name"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override, said):
    with pytest.raises(UserError) as error:
        config.load(None, [override])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_all_problems_at_once():
    with pytest.raises(UserError) as error:
        config.load(None, ["model.resolution=48", "train.precision=fp8", "ada.mode=on"])
    assert all(name in str(error.value) for name in ("model.resolution", "train.precision", "ada.mode"))


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        config.load(tmp_path / "absent.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("train: {batch: 8\n")
    with pytest.raises(UserError, match=r"broken\.yaml"):
        config.load(path)


def test_a_yaml_may_start_from_another(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\ntrain: {kimg: 7, batch: 8}\nloss: {r1: {gamma: 3}}\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.yaml").write_text("base: ../a.yaml\nname: b\ntrain: {kimg: 9}\n")
    (tmp_path / "deep" / "c.yaml").write_text("base: b.yaml\nloss: {lpips: {weight: 1}}\n")
    c = config.load(tmp_path / "deep" / "c.yaml", ["train.batch=16"])
    assert (c.name, c.train.kimg, c.train.batch, c.loss["r1"]["gamma"]) == ("b", 9, 16, 3)
    assert c.loss["r1"]["every"] == 16
    assert c.loss["lpips"] == {"weight": 1}
    (tmp_path / "saved.yaml").write_text(config.to_yaml(c))
    assert config.load(tmp_path / "saved.yaml") == c

    (tmp_path / "d.yaml").write_text("base: e.yaml\n")
    with pytest.raises(UserError, match=r"e\.yaml, the base of .*d\.yaml: no such file"):
        config.load(tmp_path / "d.yaml")
    (tmp_path / "e.yaml").write_text("base: d.yaml\n")
    with pytest.raises(UserError, match="its own base"):
        config.load(tmp_path / "d.yaml")


@given(st.sampled_from(config.PRESETS), st.sampled_from([16, 64, 256, 1024]), st.integers(1, 8))
def test_every_preset_is_valid(name, resolution, devices):
    c = config.load(None, [f"preset={name}", f"model.resolution={resolution}"], devices)
    assert c.train.batch >= c.discriminator.mbstd_group


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_load_and_their_losses_exist(path):
    losses = pytest.importorskip("t2i.losses")
    c = config.load(path)
    assert losses.choose(losses.DISCRIMINATOR, c.loss)
    assert losses.choose(losses.GENERATOR, c.loss)
