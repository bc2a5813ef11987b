"""From a configuration to networks, losses and optimisers: for training, loading and searching alike."""

import copy
from typing import Any

import torch
from torch import nn

from t2i import conditioning, encoders, losses, nets, stages
from t2i.config import Adam, Config
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.nets.contract import Dimensions
from t2i.run import Objective, Run


def objectives(config: Config) -> list[Objective]:
    """What D and G are trained for, in each stage."""
    return [
        Objective(losses.choose("discriminator", part.config), losses.choose("generator", part.config))
        for part in stages.plan(config)
    ]


def dimensions(config: Config, text: int, words: int) -> Dimensions:
    """What a run asks of its networks. text, words: channels of Text.sentence and Text.words."""
    terms = [t for o in objectives(config) for t in [*o.discriminator, *o.generator]]
    return Dimensions(
        config.model.resolution,
        text,
        words,
        config.model.width,
        stages.resolutions(config),
        any(t.loss.regions for t in terms),
    )


def generator(config: Config, text: int, words: int) -> Any:
    """The generator of a run, with new weights."""
    network = nets.find("generators", config.generator.name).Generator
    return network(config.generator, dimensions(config, text, words))


def discriminator(config: Config, text: int, words: int) -> Any:
    """The discriminator of a run, with new weights."""
    network = nets.find("discriminators", config.discriminator.name).Discriminator
    return network(config.discriminator, dimensions(config, text, words))


def build(config: Config, device: torch.device, precision: str = "fp32", rank: int = 0, world: int = 1) -> Run:
    """A run at step 0."""
    goals = objectives(config)
    if not any(o.generator for o in goals):
        raise UserError("loss: none with weight acts on the generator; give one weight, as loss.adversarial.weight=1")
    d_terms, g_terms = ([t for o in goals for t in getattr(o, name)] for name in ("discriminator", "generator"))
    guides = {name for t in [*d_terms, *g_terms] for name in t.frozen}
    if config.text.source != "captions":
        guides.add("clip")
    text_encoder = load_text_encoder(config.encoders.text, device)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    torch.manual_seed(config.seed)  # the same first weights on every process
    sizes = (text_encoder.dim, text_encoder.word_dim)
    G = generator(config, *sizes).to(device, memory_format=layout)
    for t in g_terms:
        if t.loss.styles and not G.w_dim:
            name = config.generator.name
            raise UserError(f"loss.{t.name}: generator.name={name} has no intermediate space W; set its weight to 0")
    D = discriminator(config, *sizes).to(device, memory_format=layout)
    learnt = losses.temperatures(d_terms).to(device)
    perturb = conditioning.Perturbation(text_encoder.dim).to(device) if config.text.source == "image_nn" else None
    return Run(
        settings=config,
        plan=stages.plan(config),
        objectives=goals,
        G=G,
        D=D,
        G_ema=copy.deepcopy(G).eval().requires_grad_(False),
        text_encoder=text_encoder,
        encoders={name: encoders.load(name, config.encoders, device, layout) for name in sorted(guides)},
        perturb=perturb,
        learnt=learnt,
        d_optimizer=_adam(config.optim.d, {"D": D, "learnt": learnt}, device),
        g_optimizer=_adam(config.optim.g, {"G": G} | ({"perturb": perturb} if perturb else {}), device),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        device=device,
        precision=precision,
        rank=rank,
        world=world,
        ada_p=0.0 if isinstance(config.ada.p, list) else float(config.ada.p),
    )


def _adam(options: Adam, parts: dict[str, nn.Module], device: torch.device) -> torch.optim.Adam:
    """Of all that learns in named parts; with learning rate and betas that every step sets anew."""
    parameters = [
        (f"{part}.{name}", p)
        for part, module in parts.items()
        for name, p in module.named_parameters()
        if p.requires_grad
    ]
    return torch.optim.Adam(parameters, eps=options.eps, fused=device.type in ("cuda", "cpu"))
