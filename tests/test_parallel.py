"""Two processes compute what one does with the whole batch: the gradients of every loss agree."""

import os
import sys

import pytest
import torch
import torch.multiprocessing as mp

from t2i import config, losses, parallel, train
from t2i.data.loader import Loader
from t2i.rng import Rng, SampleRng, derive_seed
from t2i.step import train_step

SETTINGS = [
    "model.resolution=16", "model.channel_base=128", "model.channel_max=8", "model.latent_dim=8", "model.style_dim=8",
    "model.mapping_layers=1", "model.mbstd_group=2", "train.batch=8", "ada.mode=fixed", "ada.p=0.4",
    "loss.r1.every=1", "loss.path_length.every=1", "train.style_mixing=1",
]  # fmt: skip


def two_steps(shards: str, names: list[str]) -> dict[str, torch.Tensor]:
    """Parameters after two plain gradient steps of both networks: unlike Adam's, they show the gradients' sizes."""
    settings = config.load(None, [*SETTINGS, f"data.shards={shards}"])
    settings.loss = {n: {**settings.loss[n], "weight": 1.0} for n in names}
    run = train.build(settings, train.start(settings))
    for parameter in [*run.G.parameters(), *run.D.parameters()]:
        # exact zeros (noise strengths) would hide gradients, and the default layout is not worth testing here
        parameter.data += 0.01 * torch.ones_like(parameter)
    run.d_optimizer = torch.optim.SGD(run.D.parameters(), 1e-3)
    run.g_optimizer = torch.optim.SGD(run.G.parameters(), 1e-3)
    batch = settings.train.batch // run.world
    batches = iter(Loader(shards, batch, rank=run.rank, world=run.world, workers=0, resolution=16))
    for _ in range(2):
        train_step([next(batches)], run)
    return {f"{n}.{k}": v.clone() for n in ("G", "D") for k, v in getattr(run, n).state_dict().items()}


def worker(rank: int, port: int, shards: str, names: list[str], path: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    state = {name: two_steps(shards, name.split("+")) for name in names}
    state["layout"] = {"error": torch.tensor(error_of_a_step_in_channels_last())}
    torch.save(state, f"{path}/{rank}.pt")
    torch.distributed.destroy_process_group()


def error_of_a_step_in_channels_last() -> float:
    """The largest difference of a weight after fused Adam on averaged gradients from plain Adam without layout."""
    torch.manual_seed(0)
    weight, gradient = torch.randn(2, 4, 3, 3, 3)
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


def test_one_process_and_two_have_the_same_gradients(tiny_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    names = ["adversarial+r1", "adversarial+path_length", "adversarial+img_txt_d", "adversarial+img_txt_clip"]
    names.append("adversarial+r1+path_length+img_txt_d+img_txt_clip")
    mp.start_processes(worker, (free_port(), str(tiny_shards), names, str(tmp_path)), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert first["layout"]["error"] < 1e-6, "averaged gradients lie in memory unlike their parameters"
    threads = torch.get_num_threads()
    for name in names:
        alone = two_steps(str(tiny_shards), name.split("+"))
        torch.set_num_threads(threads)
        start = two_steps_start(str(tiny_shards))
        for key, value in alone.items():
            assert torch.equal(first[name][key], second[name][key]), f"{name}: {key} differs between the processes"
            moved = (value - start[key]).norm()
            error = (value - first[name][key]).norm()
            # float32 sums in another order; where the gradient is nought both stay where they were
            assert error <= 1e-4 * moved + 1e-6 * value.norm() + 1e-9, f"{name}: {key}: {error} of {moved}"


def two_steps_start(shards: str) -> dict[str, torch.Tensor]:
    settings = config.load(None, [*SETTINGS, f"data.shards={shards}"])
    run = train.build(settings, train.start(settings))
    return {
        f"{n}.{k}": v + 0.01 if k in dict(getattr(run, n).named_parameters()) else v
        for n in ("G", "D")
        for k, v in getattr(run, n).state_dict().items()
    }


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
    assert losses.DISCRIMINATOR.keys() | losses.GENERATOR.keys() == {
        "adversarial", "r1", "path_length", "img_txt_d", "img_txt_clip",
    }  # fmt: skip
