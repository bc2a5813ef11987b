"""Networks that never learn, inside of one that does."""

import copy

import pytest
import torch
from torch import Tensor, nn

from t2i.encoders.frozen import Frozen, learning, own_buffers, own_parameters


class Look(Frozen):
    def __init__(self):
        super().__init__(net=nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)))
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))

    def features(self, image, rng=None):
        return self.net(image - self.mean)


class Nested(Frozen):
    """One frozen network within another."""

    def __init__(self):
        super().__init__(inner=Look(), last=nn.Linear(4, 4))

    def features(self, image, rng=None):
        return self.last(self.inner.features(image).mean((2, 3)))


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.look = nn.ModuleDict({"one": Look(), "two": Nested()})
        self.head = nn.Linear(4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(image)
        seen = self.look["one"].features(x).mean((2, 3)) + self.look["two"].features(x)
        return self.head(seen)[:, 0]


LEARNT = {"norm.weight", "norm.bias", "head.weight", "head.bias"}
SAVED = LEARNT | {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def everything(module: nn.Module) -> list[Tensor]:
    return [t.detach().clone() for t in (*module.parameters(), *module.buffers())]


def test_it_never_trains():
    critic = Critic()
    critic.train()
    assert critic.training
    assert critic.norm.training
    assert not any(m.training for m in critic.look["two"].modules())
    assert {n for n, p in critic.named_parameters() if p.requires_grad} == LEARNT
    assert len(learning(critic)) == len(own_parameters(critic)) == 4
    critic.requires_grad_(False)
    assert (len(learning(critic)), len(own_parameters(critic))) == (0, 4)
    assert len(own_buffers(critic)) == 3
    assert own_parameters(Look()) == own_buffers(Nested()) == []


def test_gradients_pass_through_it():
    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    critic = Critic()
    critic(image).sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None for p in critic.look.parameters())
    weights = Look()
    assert torch.autograd.gradcheck(weights.double().features, torch.randn(1, 3, 4, 4).double().requires_grad_())


def test_a_hundred_steps_leave_it_as_it_was():
    """While a caller turns gradients off and on around other updates, and gives back what it found."""
    torch.manual_seed(0)
    critic = Critic()
    before, learnt = everything(critic.look), everything(critic.head)
    adam = torch.optim.Adam(learning(critic), lr=0.1)
    for _ in range(100):
        found = [(p, p.requires_grad) for p in critic.parameters()]
        critic.requires_grad_(False)
        critic.eval()
        critic(torch.randn(2, 3, 8, 8))
        critic.train()
        for p, required in found:
            p.requires_grad_(required)
        adam.zero_grad()
        critic(torch.randn(2, 3, 8, 8)).square().mean().backward()
        adam.step()
    assert all(a.equal(b) for a, b in zip(before, everything(critic.look)))
    assert not any(a.equal(b) for a, b in zip(learnt, everything(critic.head)))
    assert len(adam.state) == 4


@pytest.mark.parametrize("assign", [False, True])
def test_a_network_saves_and_loads_without_it(assign):
    one, two = Critic(), Critic()
    state = one.state_dict()
    assert set(state) == SAVED
    kept = everything(two.look)
    assert two.load_state_dict(state, assign=assign) == ([], [])
    assert two.head.weight.equal(one.head.weight)
    assert all(a.equal(b) for a, b in zip(kept, everything(two.look)))
    assert not any(p.requires_grad for p in two.look.parameters())


def test_what_is_saved_for_it_is_unexpected():
    critic = Critic()
    state = critic.state_dict() | {"look.one.net.0.bias": torch.zeros(4), "look.two.inner.net.0.bias": torch.zeros(4)}
    kept = everything(critic.look)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*look\.one\.net\.0\.bias.*look\.two\.inner\.net\.0\.bias"):
        critic.load_state_dict(state)
    assert critic.load_state_dict(state, strict=False).missing_keys == []
    assert all(a.equal(b) for a, b in zip(kept, everything(critic.look)))
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.bias"):
        critic.load_state_dict({k: v for k, v in critic.state_dict().items() if k != "head.bias"})


def test_alone_it_has_its_weights():
    look, other = Look(), Look()
    state = look.state_dict()
    assert {"net.0.weight", "net.1.running_mean", "mean"} <= set(state)
    assert other.load_state_dict(state) == ([], [])
    assert all(a.equal(b) for a, b in zip(everything(look), everything(other)))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


def test_copies_share_it():
    critic = Critic()
    average = copy.deepcopy(critic)
    assert average.look["one"] is critic.look["one"]
    assert average.look["two"] is critic.look["two"]
    assert average.head.weight is not critic.head.weight
    assert average.head.weight.equal(critic.head.weight)
    with torch.no_grad():  # how an average is updated
        for a, b in zip(own_parameters(average), own_parameters(critic), strict=True):
            a.lerp_(b, 0.5)
        for a, b in zip(own_buffers(average), own_buffers(critic), strict=True):
            a.copy_(b)


def test_it_moves_with_the_network():
    critic = Critic().to(torch.float64).to(memory_format=torch.channels_last)
    look = critic.look["one"]
    assert look.net[0].weight.dtype == look.mean.dtype == torch.float64
    assert look.net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(p.requires_grad for p in critic.look.parameters())
    meta = critic.to("meta").look["two"]
    assert {t.device.type for t in (*meta.parameters(), *meta.buffers())} == {"meta"}


def test_it_says_when_it_has_no_features():
    with pytest.raises(NotImplementedError, match="Frozen has no features of pictures"):
        Frozen(net=nn.Identity()).features(torch.zeros(1, 3, 4, 4))
