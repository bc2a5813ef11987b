"""Networks that are looked through and never learn, though they may be a part of one that does."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from t2i.rng import Rng


class Frozen(nn.Module):
    """A network that never learns, wherever it stands: a judge of pictures, or the first layers of a discriminator.

    It keeps itself in eval mode, since `train()` of the network around it would otherwise move the statistics of its
    normalisations. No parameter requires a gradient, which is what optimisers, the averaging of gradients and norms
    go by; gradients still pass through to the input. A network around it saves and loads (strictly) without it: its
    weights are published elsewhere and may be larger than everything that is learnt. `copy.deepcopy` gives the same
    object, so that a copy of the network around it, such as the averaged one, shares it.

    Asked on its own, `state_dict()` gives its weights, to take a fingerprint of.
    """

    def __init__(self, **parts: nn.Module):
        """parts: name → network; they become attributes."""
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part.requires_grad_(False))
        self.train()

    def features(self, image: Tensor, rng: Rng | None = None) -> Any:
        """image [B, 3, H, W] in [-1, 1] → its features, differentiable with respect to the picture.

        rng: of what is drawn, where the features are of random views of the picture; None looks at it as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features of pictures")

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode."""
        return super().train(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self

    def state_dict(self, *args: Any, destination: Any = None, **options: Any) -> Any:
        """Its weights; nothing where a network around it collects its own in `destination`."""
        return super().state_dict(*args, **options) if destination is None else destination

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        if prefix:  # a network around it loads: whatever is there under this name is not for this one, which stays
            unexpected_keys.extend(state_dict)
            state_dict.clear()
            state_dict.update(OrderedDict(self.state_dict(prefix=prefix)))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient: those that are optimised, averaged over processes, and clipped."""
    return [p for p in module.parameters() if p.requires_grad]


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters outside of every Frozen, whether or not they require a gradient just now (an average's do not)."""
    shared = {id(p) for part in module.modules() if isinstance(part, Frozen) for p in part.parameters()}
    return [p for p in module.parameters() if id(p) not in shared]


def own_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers outside of every Frozen."""
    shared = {id(b) for part in module.modules() if isinstance(part, Frozen) for b in part.buffers()}
    return [b for b in module.buffers() if id(b) not in shared]
