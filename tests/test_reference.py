"""Agreement with the published networks, on vectors computed with them. What to run, with which sizes and options,
is read from the folder's JSON files, so vectors that this file has never seen can be put to it."""

import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from t2i.nets.discriminators.stylegan2 import Critic
from t2i.nets.generators import stylegan3
from t2i.nets.generators.stylegan2 import Synthesis
from t2i.nets.layers import filtered, ops
from t2i.nets.layers.equalised import Mapping, channels

FOLDER = Path(os.environ.get("T2I_REFERENCE") or Path(__file__).parents[2] / "shared" / "reference")
NAMES = sorted(p.stem for p in FOLDER.glob("*.json"))
CASES = json.loads((FOLDER / "ops.json").read_text()) if "ops" in NAMES else []
DTYPES = {torch.float32: 1e-4, torch.float64: 1e-5}  # tolerance, relative to the largest magnitude

pytestmark = pytest.mark.skipif(not NAMES, reason=f"no reference vectors in {FOLDER}")


def arrays(name, dtype):
    return {k: torch.from_numpy(v).to(dtype) for k, v in np.load(FOLDER / f"{name}.npz").items()}


def options(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def parameters(data):
    return {k.removeprefix("param/"): v for k, v in data.items() if k.startswith("param/")}


def assert_close(ours, theirs, tolerance, name=""):
    assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)} is not {tuple(theirs.shape)}"
    ours = ours.detach()
    error = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)) if theirs.numel() else 0.0
    assert error <= tolerance, f"{name}: relative error {error:.2g}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=[c["output"] for c in CASES])
def test_op(case, dtype):
    function = getattr(ops, case["op"], None) or getattr(filtered, case["op"])
    data = arrays("ops", dtype)
    known = inspect.signature(function).parameters
    renamed = {"input": "x", "filter": "f", "weight": "w", "bias": "b"}
    arguments = {}
    for key, value in case.items():
        if key not in ("op", "output"):
            key = renamed.get(key, key)
            assert key in known, f"{case['op']} takes no {key}"
            is_array = isinstance(value, str) and key != "act"
            arguments[key] = data[value] if is_array else value
    assert_close(function(**arguments), data[case["output"]], DTYPES[dtype], case["output"])


def generator(o, **text):
    """The published generator of these options: our parts under its parameter names."""
    widths = channels(o["channel_base"], o["channel_max"], o["img_resolution"])
    synthesis = Synthesis(
        o["w_dim"], widths, o.get("img_channels", 3), o.get("architecture", "skip"), o.get("conv_clamp"), **text
    )
    mapping = Mapping(o["z_dim"], o.get("c_dim", 0), o["w_dim"], synthesis.num_ws, o["mapping_num_layers"])
    return nn.ModuleDict({"synthesis": synthesis, "mapping": mapping})


def discriminator(o, **text):
    return Critic(
        channels(o["channel_base"], o["channel_max"], o["img_resolution"]),
        c_dim=o.get("c_dim", 0), cmap_dim=o.get("cmap_dim"), colours=o.get("img_channels", 3),
        architecture=o.get("architecture", "resnet"), clamp=o.get("conv_clamp"),
        mbstd_group=o.get("mbstd_group_size", 4), mbstd_channels=o.get("mbstd_num_channels", 1), **text,
    )  # fmt: skip


def named(prefix):
    return [n for n in NAMES if n.startswith(prefix)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", named("stylegan2_generator"))
def test_stylegan2_generator(name, dtype):
    data, tolerance = arrays(name, dtype), DTYPES[dtype]
    g = generator(options(name)).to(dtype)
    g.load_state_dict(parameters(data), strict=True)
    z = data["z"].requires_grad_()
    w = g["mapping"](z, data["c"])
    w_trunc = g["mapping"](z, data["c"], truncation=0.6, cutoff=3)
    image = g["synthesis"](w, noise="const")
    (grad_z,) = torch.autograd.grad((image * data["probe"]).sum(), z)
    ours = {"w": w, "w_trunc": w_trunc, "img": image, "grad_z": grad_z}
    ours["img_trunc"] = g["synthesis"](w_trunc, noise="const")
    for key, value in ours.items():
        assert_close(value, data[key], tolerance, key)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", named("stylegan2_discriminator"))
def test_stylegan2_discriminator(name, dtype):
    """Logits, R1, and the gradient of R1 for every parameter: second-order gradients."""
    data, tolerance = arrays(name, dtype), DTYPES[dtype]
    d = discriminator(options(name)).to(dtype)
    d.load_state_dict(parameters(data), strict=True)
    image = data["img"].requires_grad_()
    logits, _ = d.judge(image, data["c"])
    (slope,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    r1 = slope.square().sum((1, 2, 3))
    r1.mean().backward()
    assert_close(logits[:, None], data["logits"], tolerance, "logits")
    assert_close(r1, data["r1"], tolerance, "r1")
    ours = dict(d.named_parameters())
    theirs = {k.removeprefix("r1grad/"): v for k, v in data.items() if k.startswith("r1grad/")}
    assert set(theirs) == set(ours)
    tolerance = max(tolerance, 3e-5)  # the vectors' own rounding in float32 already makes 0.7e-5 here
    for key, value in theirs.items():
        grad = ours[key].grad
        # A parameter that R1 does not depend on may have no gradient; theirs is zero.
        assert_close(torch.zeros_like(value) if grad is None else grad, value, tolerance, f"r1grad/{key}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", named("lafite_generator"))
def test_lafite_generator(name, dtype):
    data, tolerance, o = arrays(name, dtype), DTYPES[dtype], options(name)
    g = generator(o, text_dim=o["text_dim"], text_hidden=512, change=o["change"]).to(dtype)
    g.load_state_dict(parameters(data), strict=True)
    w = g["mapping"](data["z"])
    w_trunc = g["mapping"](data["z"], truncation=o["truncation_psi"])
    assert_close(w, data["w"], tolerance, "w")
    for key, ws in (("img", w), ("img_trunc", w_trunc)):
        assert_close(g["synthesis"](ws, data["text"], noise=o["noise_mode"]), data[key], tolerance, key)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", named("lafite_discriminator"))
def test_lafite_discriminator(name, dtype):
    data, tolerance, o = arrays(name, dtype), DTYPES[dtype], options(name)
    d = discriminator(o, text_dim=o["text_dim"]).to(dtype)
    d.load_state_dict(parameters(data), strict=True)
    score, embedding = d.judge(data["img"])
    product = embedding * data["text"]
    assert_close(embedding, data["features"], tolerance, "features")
    assert_close((score + product.sum(1))[:, None], data["logits_per_sample"], tolerance, "logits_per_sample")
    # The published code sums over the batch too, so that every logit holds one number of the whole batch.
    assert_close((score + product.sum())[:, None], data["logits_published"], tolerance, "logits_published")


def stylegan3_plan(o):
    layers = {"layers": "num_layers", "critical": "num_critical", "margin": "margin_size", "colours": "img_channels"}
    names = {n: n for n in ("first_cutoff", "first_stopband", "last_stopband_rel")} | layers
    return stylegan3.plan(
        o["img_resolution"], o["channel_base"], o["channel_max"], **{n: o[k] for n, k in names.items() if k in o}
    )


def stylegan3_synthesis(o):
    return stylegan3.Synthesis(
        o["w_dim"], stylegan3_plan(o), o.get("conv_kernel", 3), o.get("use_radial_filters", False),
        o.get("num_critical", 2), o.get("conv_clamp", 256), o.get("output_scale", 0.25),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [n for n in named("stylegan3_generator") if not n.endswith("_layers")])
def test_stylegan3_generator(name, dtype):
    data, tolerance, o = arrays(name, dtype), DTYPES[dtype], options(name)
    synthesis = stylegan3_synthesis(o)
    mapping = Mapping(o["z_dim"], o.get("c_dim", 0), o["w_dim"], synthesis.num_ws, o["mapping_num_layers"])
    g = nn.ModuleDict({"synthesis": synthesis, "mapping": mapping}).to(dtype)
    g.load_state_dict(parameters(data), strict=True)
    z = data["z"].requires_grad_()
    w = mapping(z, data["c"])
    w_trunc = mapping(z, data["c"], truncation=0.6, cutoff=3)
    image = synthesis(w)
    (grad_z,) = torch.autograd.grad((image * data["probe"]).sum(), z)
    ours = {"w": w, "w_trunc": w_trunc, "img": image, "grad_z": grad_z, "img_trunc": synthesis(w_trunc)}
    for key, value in ours.items():
        assert_close(value, data[key], tolerance, key)


def assert_layers(synthesis, table):
    """Names, sizes, rates, cutoffs and padding of every layer."""
    assert synthesis.names == [row["name"] for row in table]
    for row in table:
        layer = getattr(synthesis, row["name"])
        into, out = layer.into, layer.out
        ours = {
            "in_channels": into.channels, "out_channels": out.channels, "in_size": [into.size] * 2,
            "out_size": [out.size] * 2, "up": layer.up, "down": layer.down, "up_factor": layer.up,
            "down_factor": layer.down, "padding": list(layer.padding), "in_sampling_rate": into.rate,
            "out_sampling_rate": out.rate, "in_cutoff": into.cutoff, "out_cutoff": out.cutoff,
            "in_half_width": into.half_width, "out_half_width": out.half_width,
        }  # fmt: skip
        for key in ours.keys() & row.keys():
            assert ours[key] == pytest.approx(row[key]), f"{row['name']}: {key}"


@pytest.mark.parametrize("name", [n for n in named("stylegan3_generator") if n.endswith("_layers")])
def test_stylegan3_layers(name):
    assert_layers(stylegan3_synthesis(options(name.removesuffix("_layers"))), options(name))


@pytest.mark.parametrize("kind", options("stylegan3_layer_tables") if "stylegan3_layer_tables" in NAMES else [])
def test_stylegan3_layer_tables(kind):
    """The published networks: "t256" is configuration T at 256×256, channels 32768 / resolution but at most 512."""
    r = kind.startswith("r")
    o = {"w_dim": 512, "img_resolution": int(kind[1:]), "channel_base": 32768 << r, "channel_max": 512 << r}
    with torch.device("meta"):
        synthesis = stylegan3_synthesis(o | {"conv_kernel": 1 if r else 3, "use_radial_filters": r})
    assert_layers(synthesis, options("stylegan3_layer_tables")[kind])


KNOWN = (
    "ops",
    "stylegan2_generator",
    "stylegan2_discriminator",
    "stylegan3_generator",
    "stylegan3_layer_tables",
    "lafite",
)
OTHERS = [n for n in NAMES if not n.startswith(KNOWN)]


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks(name):
    pytest.skip(f"{name}: t2i/nets has no such network yet")
