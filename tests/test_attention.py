"""nets/layers/attention.py: against the definition in float64, first and second derivatives, masks, precisions."""

import copy

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from t2i.interfaces import Text
from t2i.nets.layers import attention as att
from t2i.nets.layers.attention import attention

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]


def inputs(batch=2, queries=5, keys=7, heads=2, width=4, value_width=3, dtype=torch.float64, device="cpu"):
    g = torch.Generator().manual_seed(0)
    shapes = (queries, width), (keys, width), (keys, value_width)
    return [torch.randn(batch, n, heads, d, generator=g).to(device, dtype).requires_grad_() for n, d in shapes]


def definition(q, k, v, mask=None, scale=None):
    """In loops and float64, over the visible keys alone."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.double() for x in (q, k, v))
    rows = []
    for b in range(len(q)):
        seen = torch.arange(k.shape[1], device=q.device) if mask is None else mask[b].nonzero()[:, 0]
        for n in range(q.shape[2]):
            logits = q[b, :, n] @ k[b, seen, n].T * scale
            p = logits.exp() / logits.exp().sum(1, keepdim=True)  # [L, visible]
            rows.append(p @ v[b, seen, n])
    return torch.stack(rows).view(len(q), q.shape[2], q.shape[1], -1).transpose(1, 2)


MASKS = {
    "none": None,
    "partly": torch.tensor([[True, False, True, True, False, True, False], [False] * 6 + [True]]),
    "fully": torch.tensor([[False] * 7, [True] * 7]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_is_its_definition(mask, dtype, device):
    """Values, the gradient of the kernel, and the one that can be differentiated further, which must agree."""
    q, k, v = inputs(dtype=dtype, device=device)
    mask = None if MASKS[mask] is None else MASKS[mask].to(device)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6 if device == "cpu" else 2e-3, torch.bfloat16: 2e-2}[dtype]
    out = attention(q, k, v, mask)
    exact = definition(q, k, v, mask)
    assert out.dtype == dtype
    assert out.shape == (2, 5, 2, 3)
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=tolerance * 3)
    if mask is not None and not mask[0].any():
        assert (out[0] == 0).all()
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    expected = torch.autograd.grad((exact * probe.double()).sum(), (q, k, v))
    for create_graph in (False, True):
        found = torch.autograd.grad((out * probe).sum(), (q, k, v), create_graph=create_graph, retain_graph=True)
        for a, b in zip(found, expected):
            assert a.isfinite().all()
            torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * 5)


@pytest.mark.parametrize("mask", MASKS)
def test_derivatives(mask):
    function = lambda q, k, v: attention(q, k, v, MASKS[mask], 0.7)
    assert gradcheck(function, inputs(), fast_mode=True)
    assert gradgradcheck(function, inputs(), fast_mode=True)
    small = inputs(1, 2, 3, 1, 2, 2)
    if mask == "none":
        assert gradgradcheck(function, small)


def test_hidden_keys_do_not_matter_and_get_no_gradient():
    q, k, v = inputs()
    mask = MASKS["partly"]
    out = attention(q, k, v, mask)
    k2, v2 = (x.detach().masked_fill(~mask[:, :, None, None], 1e4) for x in (k, v))
    torch.testing.assert_close(attention(q, k2, v2, mask), out)
    for g in torch.autograd.grad(out.square().sum(), (k, v)):
        assert (g[~mask] == 0).all()
        assert (g[0, mask[0]] != 0).all()


def test_one_query_one_key_and_large_logits():
    q, k, v = inputs(queries=1, keys=1)
    torch.testing.assert_close(attention(q, k, v), v)
    q, k, v = inputs()
    assert attention(q * 1e4, k * 1e4, v).isfinite().all()


def test_a_gradient_penalty_through_the_kernel_is_that_of_plain_mathematics():
    """R1's shape: a first gradient with create_graph, its square, a backward pass."""
    grads = []
    for function in (attention, definition):
        q, k, v = inputs()
        (slope,) = torch.autograd.grad(function(q, k, v).square().sum(), k, create_graph=True)
        grads.append(torch.autograd.grad(slope.square().sum(), (q, k, v)))
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_autocast():
    q, k, v = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), definition(q, k, v), rtol=0, atol=0.05)
    (g,) = torch.autograd.grad(out.float().sum(), v)
    assert g.dtype == torch.float32


def test_no_matrix_of_all_pairs_is_kept():
    """What lives on between forward and backward grows with L + S, not L·S."""
    length = 1024
    q, k, v = inputs(1, length, length, 1, 8, 8, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        out = attention(q, k, v)
    assert kept
    assert sum(kept) < length * length / 8
    out.sum().backward()
    assert q.grad.isfinite().all()


@cuda
def test_on_cuda_the_xformers_kernel_runs():
    from torch.profiler import ProfilerActivity, profile

    q, k, v = inputs(2, 64, 77, 2, 32, 32, dtype=torch.bfloat16, device="cuda")
    mask = torch.arange(77, device="cuda")[None] < torch.tensor([[77], [9]], device="cuda")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        attention(q, k, v, mask).float().sum().backward()
    names = " ".join(e.key for e in record.key_averages())
    assert "efficient_attention" in names or "fmha" in names
    assert "softmax" not in names.lower()


# ---- layers


def text(batch, words=4, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(words)[None] < torch.tensor([[words], [2]] * batch)[:batch]
    return Text(torch.nn.functional.normalize(torch.randn(batch, 5, generator=g)),
                torch.randn(batch, words, dim, generator=g), mask)  # fmt: skip


def layers():
    torch.manual_seed(0)
    yield att.SelfAttention(8), lambda layer, x, t: layer(x)
    yield att.CrossAttention(8, 6), lambda layer, x, t: layer(x, t)
    yield att.AttentionalModulation(8, 6, 7), lambda layer, x, t: layer(x, t, torch.ones(len(x), 7, dtype=x.dtype))


def opened(layer):
    """The layer as training would make it, no longer the identity."""
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    return layer


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_layers_start_as_the_identity_and_open(memory_format):
    x = torch.randn(2, 8, 3, 4).to(memory_format=memory_format)
    for layer, call in layers():
        torch.testing.assert_close(call(layer, x, text(2)), x)
        layer = opened(layer)
        y = call(layer, x, text(2))
        assert y.shape == x.shape
        assert (y - x).abs().max() > 0.01
        # places are treated alike: moving the picture moves the result
        moved = call(layer, x.roll((1, 2), (2, 3)), text(2))
        torch.testing.assert_close(moved, y.roll((1, 2), (2, 3)), rtol=1e-4, atol=1e-4)
        y.square().sum().backward()
        assert all(
            p.grad.isfinite().all() and p.grad.abs().sum() > 0 for n, p in layer.named_parameters() if n != "k.bias"
        )
        half = torch.autocast("cpu", torch.bfloat16)
        with half:
            again = call(layer, x, text(2))
        assert again.dtype == torch.float32
        torch.testing.assert_close(again, y, rtol=0.1, atol=0.1 * float(y.detach().abs().max()))


def test_words_and_their_mask_count():
    x = torch.randn(2, 8, 3, 3)
    for layer, call in list(layers())[1:]:
        layer, t = opened(layer), text(2)
        y = call(layer, x, t)
        assert not torch.allclose(call(layer, x, text(2, seed=3)), y, atol=1e-3)
        words = t.words.masked_fill(~t.mask[..., None], 77.0)
        torch.testing.assert_close(call(layer, x, Text(t.sentence, words, t.mask)), y)
        empty = Text(t.sentence, t.words, torch.zeros_like(t.mask))
        assert call(layer, x, empty).isfinite().all()


def test_layers_are_twice_differentiable():
    x = torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    for layer, call in layers():
        layer = opened(layer).double()
        t = text(1)
        t = Text(t.sentence.double(), t.words.double(), t.mask)
        assert gradgradcheck(lambda x, layer=layer, call=call, t=t: call(layer, x, t), (x,), fast_mode=True)
