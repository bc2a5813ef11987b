"""Configuration: defaults, YAML, overrides, published settings, networks' options, and one line a mistake."""

import dataclasses
from pathlib import Path

import pytest

from t2i import config
from t2i.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
RUNS = sorted(p for p in CONFIGS.rglob("*.yaml") if not p.stem.startswith("ablation"))
ADA = CONFIGS / "stylegan2_ada"


def test_overrides_come_after_yaml_and_its_base(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        f"base: {ADA / 'paper256.yaml'}\nmodel: {{resolution: 256}}\ntrain: {{kimg: 7}}\noptim: {{g: {{lr: 0.001}}}}\n"
    )
    c = config.load(path, ["train.kimg=9", "loss.img_txt_d.weight=0.25"])
    assert (c.train.batch, c.discriminator.mbstd_group, c.generator.mapping_layers) == (64, 8, 8)  # the base's
    assert c.optim.g.lr == 0.001
    assert c.optim.d.lr == 0.0025
    assert c.train.kimg == 9
    assert c.loss["img_txt_d"] == {"weight": 0.25, "temperature": 0.1}
    assert c.loss["r1"]["gamma"] == 1.0


PUBLISHED = {  # batch, group of minibatch stddev, channel base, learning rate, γ, EMA's kimg and ramp, mapping layers
    "stylegan2": (32, 4, 32768, 0.002, 10.0, 10.0, None, 8),
    "paper256": (64, 8, 16384, 0.0025, 1.0, 20.0, None, 8),
    "paper512": (64, 8, 32768, 0.0025, 0.5, 20.0, None, 8),
    "paper1024": (32, 4, 32768, 0.002, 2.0, 10.0, None, 8),
    "cifar": (64, 32, 32768, 0.0025, 0.01, 500.0, 0.05, 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name):
    c = config.load(ADA / f"{name}.yaml")
    batch, group, base, lr, gamma, ema, ramp, layers = PUBLISHED[name]
    assert (c.train.batch, c.discriminator.mbstd_group) == (batch, group)
    assert c.generator.channel_base == c.discriminator.channel_base == base
    assert c.generator.channel_max == c.discriminator.channel_max == 512
    assert c.generator.latent_dim == c.generator.style_dim == 512
    assert c.optim.g.lr == c.optim.d.lr == lr
    assert (c.loss["r1"]["gamma"], c.loss["r1"]["every"]) == (gamma, 16)
    assert (c.train.ema_kimg, c.train.ema_ramp, c.generator.mapping_layers) == (ema, ramp, layers)
    small = name == "cifar"
    assert c.discriminator.architecture == ("orig" if small else "resnet")
    assert c.generator.style_mixing == (0 if small else 0.9)
    assert c.loss.get("path_length", {}) == ({} if small else {"weight": 2, "every": 4})
    assert {p.stem for p in ADA.glob("*.yaml")} == PUBLISHED.keys()


def test_defaults_are_of_no_particular_network_but_of_its_game():
    c = config.load()
    assert c.loss.keys() == {"adversarial", "r1", "img_txt_d", "img_txt_clip"}
    assert not c.stages
    assert (c.train.d_steps, c.train.d_blur, c.text.noise) == (1, 0, 0)


def test_resolved_yaml_reads_back_equal(tmp_path):
    c = config.load(
        ADA / "cifar.yaml",
        [
            "train.batch=128",
            "train.d_blur=[[0, 4], [8, 0]]",
            "generator.text=mapping",
            "log.prompts=[a red bus, 'a dog: sitting']",
        ],
    )
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
        ("preset=paper256", "unknown key 'preset'"),
        ("generator.name=stylegan22", "did you mean 'stylegan2'"),
        ("discriminator.name=stylegan3", "did you mean 'stylegan2'"),
        ("generator.mapping_layer=3", "did you mean 'mapping_layers'"),
        ("discriminator.mbstd_groups=3", "did you mean 'mbstd_group'"),
        ("generator.mapping_layers=many", "generator.mapping_layers"),
        ("generator.mapping_layers=0", "generator.mapping_layers=0: above 0"),
        (
            "generator.architecture=skipp",
            "generator.architecture=skipp: known: orig, resnet, skip; did you mean 'skip'",
        ),
        ("discriminator.text=lafit", "did you mean 'lafite'"),
        ("generator=stylegan3", "generator=stylegan3: a mapping with a name"),
        ("generator.equivariance=r", "unknown key 'generator.equivariance'"),
        ("optim.g.lr=[[0,0.1],[0,0.2]]", "optim.g.lr=[[0, 0.1], [0, 0.2]]: the kimg of a schedule must rise"),
        ("optim.g.lr=[[0,0.1],[4,0]]", "optim.g.lr=[[0, 0.1], [4, 0]]: must be above 0"),
        ("train.d_blur=[]", "train.d_blur=[]: a number, or [[kimg, value], ...]"),
        ("train.d_blur=much", "train.d_blur=much: a number, or [[kimg, value], ...]"),
        ("ada.p=[[0,0],[9,0.5]]", "a schedule only with ada.mode=fixed"),
        ("train.accumulate=3", "must be a multiple of train.accumulate=3"),
        ("train.d_steps=0", "train.d_steps=0: must be above 0"),
        ("ada.p=1.5", "0 to 1"),
        ("loss.r1.every=0", "loss.r1.every=0"),
        ("loss.r1.weight=lots", "loss.r1.weight=lots"),
        ("kimg", "key=value"),
        ("name=a/b", "plain folder name"),
        ("[=4", "argument '[=4': write key=value"),
        ("train.batch=[", "argument 'train.batch=[': "),
        ("model.width=inf", "model.width=inf: "),
        ("seed=99999999999999999999", "seed=99999999999999999999: "),
        ("train.d_blur=1e9", "train.d_blur=1000000000.0: pixels, 0 to model.resolution=64"),
        ("train.ema_ramp=nan", "train.ema_ramp=nan: "),
        ("ada.every=0", "ada.every=0: "),
        ("ada.speed_kimg=0", "ada.speed_kimg=0.0: "),
        ("ada.target=nan", "ada.target=nan: "),
        ("log.grid=0", "log.grid=0: "),
        ("log.snapshot_kimg=nan", "log.snapshot_kimg=nan: "),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override, said):
    with pytest.raises(UserError) as error:
        config.load(None, [override])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_off_may_be_written():
    assert config.load(None, ["ada.mode=off"]) == config.load(None, ["ada.mode=false"]) == config.load()


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


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("resolution", [16, 64, 256, 1024])
def test_published_settings_are_valid_at_any_resolution(name, resolution):
    c = config.load(ADA / f"{name}.yaml", [f"model.resolution={resolution}"])
    assert c.train.batch >= c.discriminator.mbstd_group


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_config_of_any_networks_is_its_dictionary(kind):
    for name in (p.stem for p in (CONFIGS.parent / "t2i" / "nets" / f"{kind}s").glob("[a-z]*.py")):
        c = config.load(None, [f"{kind}.name={name}"])
        options = getattr(c, kind)
        assert type(options).__module__ == f"t2i.nets.{kind}s.{name}"
        assert config.from_dict(dataclasses.asdict(c)) == c


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_shipped_configs_load_and_their_losses_exist(path):
    losses = pytest.importorskip("t2i.losses")
    c = config.load(path)
    assert losses.choose("discriminator", c)
    assert losses.choose("generator", c)


def test_another_network_on_the_command_line_takes_what_it_knows_of_the_files_options():
    scenes = Path(__file__).parents[1] / "configs" / "scenes.yaml"
    found = config.load(scenes, ["generator.name=stylegan3", "generator.layers=6"]).generator
    assert (found.name, found.layers, found.channel_base, found.latent_dim) == ("stylegan3", 6, 1024, 64)
    assert not hasattr(found, "noise")
    with pytest.raises(UserError, match=r"generator\.noise"):
        config.load(scenes, ["generator.name=stylegan3", "generator.noise=true"])
