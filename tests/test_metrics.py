"""The mathematics of every metric, on numbers alone: closed forms, hand-made sets and independent implementations."""

import math
import random
import warnings
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2i.errors import UserError
from t2i.metrics import (
    clip_score,
    cmmd,
    frechet,
    kid,
    known,
    lpips_distance,
    lpips_diversity,
    metric,
    ms_ssim,
    ppl,
    prdc,
    r_precision,
    soa,
    swd,
)
from t2i.metrics.captions import Caption, read_captions
from t2i.metrics.networks import detector
from t2i.rng import derive_seed

inception_score = import_module("t2i.metrics.is")  # no name that Python can import otherwise


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- Fréchet distances


def test_fid_of_normal_distributions_and_of_one_set_with_itself():
    """N(0, I) and N((3, 4), diag(4, 9)), exactly: 25 + (2 − 1)² + (3 − 1)²."""
    base = math.sqrt(1.5) * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    other = base * torch.tensor([2.0, 3.0]) + torch.tensor([3.0, 4.0])
    assert frechet.compute(base, other, "fid")["fid"] == pytest.approx(30)
    assert frechet.compute(other, other, "fid")["fid"] == pytest.approx(0, abs=1e-9)
    x = normal(0, 60, 5)
    assert frechet.compute(x, x[torch.randperm(60)], "fid")["fid"] == pytest.approx(0, abs=1e-9)


def test_fid_is_torch_fidelitys():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = normal(1, 80, 12), 1.3 * normal(2, 50, 12) @ torch.diag(torch.linspace(0.5, 2, 12).double()) + 0.2
    expected = fid_statistics_to_metric(*(fid_features_to_statistics(x) for x in (a, b)), verbose=False)
    assert frechet.compute(a, b, "fid")["fid"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-8)


@given(st.integers(1, 70), st.integers(2, 40), st.floats(-1e4, 1e4))
def test_moments_added_up_in_any_pieces_are_numpys(piece, count, offset):
    x = normal(count, count, 3) + offset
    sums = frechet.moments(x[:1])
    for part in x[1:].split(piece):
        sums = sums.add(part)
    assert sums.count == count
    np.testing.assert_allclose(sums.mean, x.numpy().mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(sums.cov, np.cov(x.numpy(), rowvar=False), rtol=1e-7, atol=1e-7)


def test_moments_take_chunks_and_lose_no_digits(monkeypatch):
    """Features far from 0 in float32: sums of squares would have no digit left."""
    x = (1e4 + normal(3, 500, 4)).float()
    whole = frechet.moments(x)
    monkeypatch.setattr(frechet, "CHUNK", 64)
    torch.testing.assert_close(frechet.moments(x).cov, whole.cov, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.cov, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9)
    assert whole.cov.dtype == torch.float64
    y = normal(4, 90, 4)
    assert frechet.compute(whole, frechet.moments(y), "fid") == frechet.compute(x, y, "fid")
    torch.testing.assert_close(whole.part(slice(1, 3)).cov, frechet.moments(x[:, 1:3]).cov)


def test_fid_of_fewer_pictures_than_features_says_so():
    with pytest.warns(UserWarning, match="10 pictures but 12 features"):
        assert math.isfinite(frechet.compute(normal(0, 10, 12), normal(1, 30, 12), "fid")["fid"])


# --- KID


def test_kid_is_the_unbiased_estimate_of_others():
    from torch_fidelity.metric_kid import kernel_poly, mmd2
    from torchmetrics.image.kid import poly_mmd

    a, b = normal(0, 40, 6), normal(1, 40, 6) + 0.3
    ours = kid.mmd(a, b)
    assert ours == pytest.approx(float(poly_mmd(a, b)), rel=1e-9)
    kernel = lambda x, y: kernel_poly(x.numpy(), y.numpy(), kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1)
    assert ours == pytest.approx(mmd2(kernel(a, a), kernel(a, b), kernel(b, b)), rel=1e-9)


def test_kid_of_one_distribution_is_around_nought_and_grows_with_a_shift():
    a, b = normal(0, 600, 8), normal(1, 700, 8)
    values = kid.compute(a, b, subsets=60, size=100)["kid"]
    assert values.shape == (60,)
    assert abs(float(values.mean())) < 0.05
    assert values.min() < 0 < values.max()
    assert float(kid.compute(a, b + 0.5, 60, 100)["kid"].mean()) > 0.3
    assert torch.equal(kid.compute(a, b, 3, 50, seed=1)["kid"], kid.compute(a, b, 3, 50, seed=1)["kid"])


def test_kid_of_few_pictures_says_so_and_does_not_depend_on_their_order():
    a, b = normal(0, 30, 4), normal(1, 30, 4)
    with pytest.warns(UserWarning, match="subsets of 30 pictures, not of 1000"):
        values = kid.compute(a, b)["kid"]
    assert values.shape == (1,)
    with pytest.warns(UserWarning, match="subsets"):
        assert float(kid.compute(a.flip(0), b)["kid"]) == pytest.approx(float(values), rel=1e-9)
    with pytest.raises(UserError, match="2 or more"):
        kid.compute(a[:1], b)


# --- Inception Score


def test_inception_score_from_1_to_the_number_of_classes():
    assert inception_score.compute(torch.zeros(50, 7))["is"].mean() == pytest.approx(1)
    sure = 1000 * torch.eye(5).repeat(20, 1)
    assert inception_score.compute(sure, splits=1)["is"].mean() == pytest.approx(5)


def test_inception_score_is_torch_fidelitys():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * normal(0, 100, 9)
    order = np.random.default_rng(derive_seed(4, 0x15)).permutation(100)
    expected = isc_features_to_metric(logits[torch.from_numpy(order)], splits=10, shuffle=False)
    ours = inception_score.compute(logits, seed=4)["is"]
    assert float(ours.mean()) == pytest.approx(expected["inception_score_mean"])
    assert float(ours.std(correction=0)) == pytest.approx(expected["inception_score_std"])


def test_inception_score_of_pictures_sorted_by_class_is_that_of_shuffled_ones():
    """Ten classes of 100 pictures each, one class after the other, as a folder may be sorted."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 12 * torch.eye(10, dtype=torch.float64).repeat_interleave(100, 0)
    expected = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)["inception_score_mean"]
    assert expected > 9
    assert float(inception_score.compute(logits)["is"].mean()) == pytest.approx(expected, rel=0.02)


# --- precision, recall, density, coverage


def test_prdc_by_hand():
    """On a line, k = 1. Real 0 1 10 11: radii 1; fake 0.5 0.6 30 31: radii 0.1 0.1 1 1."""
    real = torch.tensor([[0.0], [1], [10], [11]])
    fake = torch.tensor([[0.5], [0.6], [30.0], [31]])
    scores = {k: v.tolist() for k, v in prdc.compute(fake, real, k=1).items()}
    assert scores["precision"] == [1, 1, 0, 0]
    assert scores["density"] == [2, 2, 0, 0]  # 0.5 and 0.6 lie in the balls of 0 and of 1
    assert scores["coverage"] == [1, 1, 0, 0]
    assert scores["recall"] == [0, 0, 0, 0]  # no real picture within 0.1 of a fake


def test_prdc_is_that_of_scikit_learns_neighbours_and_of_any_chunk():
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors

    fake, real, k = normal(0, 70, 4), 1.2 * normal(1, 55, 4), 5
    radius = lambda x: NearestNeighbors(n_neighbors=k + 1).fit(x.numpy()).kneighbors(x.numpy())[0][:, k]
    far = pairwise_distances(real.numpy(), fake.numpy())
    expected = {
        "precision": (far < radius(real)[:, None]).any(0).mean(),
        "recall": (far < radius(fake)[None]).any(1).mean(),
        "density": (far < radius(real)[:, None]).sum(0).mean() / k,
        "coverage": (far.min(1) < radius(real)).mean(),
    }
    for chunk in (1, 8, 1000):
        scores = prdc.compute(fake, real, k, chunk)
        assert {n: float(v.mean()) for n, v in scores.items()} == pytest.approx(expected)
    assert [len(scores[n]) for n in expected] == [70, 55, 70, 55]
    same = prdc.compute(real, real.flip(0), k)
    assert all(same[n].mean() == 1 for n in ("precision", "recall", "coverage"))
    with pytest.raises(UserError, match="more than k = 5"):
        prdc.compute(fake[:5], real)


def test_prdc_of_duplicates_is_that_of_exact_distances():
    """Far from 0, where |x|² + |y|² − 2 x·y of a duplicate is rounding: six copies have a radius of exactly 0."""
    real = 1000 + normal(0, 40, 16)
    real = torch.cat([real, real[:3].repeat(6, 1)])
    fake = torch.cat([real[:10], 1000 + normal(1, 30, 16), real[:1].repeat(7, 1)])
    assert (prdc.radii(real, 5)[:3] == 0).all()
    far = torch.cdist(real, fake, compute_mode="donot_use_mm_for_euclid_dist")
    radius = lambda x: torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sort(1).values[:, 5]
    scores = {k: float(v.mean()) for k, v in prdc.compute(fake, real, 5).items()}
    assert scores == pytest.approx({
        "precision": float((far < radius(real)[:, None]).any(0).double().mean()),
        "recall": float((far < radius(fake)).any(1).double().mean()),
        "density": float((far < radius(real)[:, None]).sum(0).double().mean()) / 5,
        "coverage": float((far.amin(1) < radius(real)).double().mean()),
    })  # fmt: skip


def test_prdc_is_the_prdc_packages():
    theirs = pytest.importorskip("prdc", reason="prdc, of the dev extra, is not installed")
    fake, real = normal(0, 70, 4), 1.2 * normal(1, 55, 4)
    expected = theirs.compute_prdc(real.numpy(), fake.numpy(), 5)
    assert {k: float(v.mean()) for k, v in prdc.compute(fake, real, 5).items()} == pytest.approx(expected)


# --- on CLIP's features


def test_cmmd_is_the_mmd_of_scikit_learns_kernel_in_any_chunk():
    from sklearn.metrics.pairwise import rbf_kernel

    a, b = normal(0, 40, 6), normal(1, 30, 6) + 1
    x, y = (torch.nn.functional.normalize(v, dim=1).numpy() for v in (a, b))
    k = lambda p, q: rbf_kernel(p, q, gamma=1 / 200).mean()
    expected = 1000 * (k(x, x) + k(y, y) - 2 * k(x, y))
    for chunk in (7, 1000):
        assert cmmd.compute(a, b, chunk=chunk)["cmmd"] == pytest.approx(expected, rel=1e-9)
    assert cmmd.compute(3 * a, a.flip(0))["cmmd"] == pytest.approx(0, abs=1e-9)
    assert cmmd.compute(a.float(), a + 2)["cmmd"] > 0


def test_clip_score_is_the_cosine():
    images, texts = torch.tensor([[2.0, 0], [0, 3], [1, 1]]), torch.tensor([[1.0, 0], [1, 0], [0, 5]])
    assert clip_score.compute(images, texts)["clip_score"].tolist() == pytest.approx([1, 0, math.sqrt(0.5)])
    with pytest.raises(UserError, match="a caption a picture"):
        clip_score.compute(images, texts[:2])


def test_clip_score_in_the_forms_that_others_report():
    """100 · max(cos, 0) and 2.5 · max(cos, 0), by hand and by torchmetrics."""
    from torchmetrics.functional.multimodal.clip_score import _clip_score_update

    images, texts = torch.tensor([[1.0, 0], [0, 2], [-3, 0.1]]), torch.tensor([[0.6, 0.8], [0, 1], [1, 0]])
    scores = clip_score.compute(images, texts)
    assert scores["clip_score_x100"].tolist() == pytest.approx([60, 100, 0])
    assert scores["clip_score_x2.5"].tolist() == pytest.approx([1.5, 2.5, 0])

    class Model:  # gives the features above, whatever it is shown
        to = lambda self, device: self
        get_image_features = lambda self, pixels: images
        get_text_features = lambda self, ids, mask: texts
        config = SimpleNamespace(text_config=SimpleNamespace(max_position_embeddings=8))

    def processor(text=None, images=None, return_tensors="pt", padding=True):
        ids = torch.ones(3, 2, dtype=torch.long)
        return {"pixel_values": torch.zeros(3, 3, 2, 2)} if images else {"input_ids": ids, "attention_mask": ids}

    theirs, _ = _clip_score_update(torch.zeros(3, 3, 2, 2), ["a", "b", "c"], Model(), processor)
    assert scores["clip_score_x100"].tolist() == pytest.approx(theirs.clamp(min=0).tolist())


def test_retrieval_by_hand():
    """Two captions for picture 0, one each for 1 and 2; the caption of 2 points at 1."""
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 1, 0.5]])
    found = clip_score.retrieval(images, texts, torch.tensor([0, 0, 1, 2]), (1, 2))
    assert found["image_to_text_r1"].tolist() == [1, 1, 1]  # the best of its captions counts
    assert found["text_to_image_r1"].tolist() == [1, 0, 1, 0]
    assert found["text_to_image_r2"].tolist() == [1, 1, 1, 1]


def test_an_encoder_that_sees_nothing_is_right_by_chance_only():
    owner, names = torch.arange(400), [str(i) for i in range(400)]
    random_ones = normal(0, 400, 16), normal(1, 400, 16)
    assert abs(float(clip_score.agreement(*random_ones, owner, names).mean()) - 0.5) < 0.08
    assert clip_score.retrieval(*random_ones, owner)["image_to_text_r1"].mean() < 0.02
    alike = torch.ones(400, 16)  # ties: half a point, and never found
    assert clip_score.agreement(alike, alike, owner, names).mean() == 0.5
    assert clip_score.retrieval(alike, alike, owner)["text_to_image_r10"].mean() == 0


def test_an_encoder_that_agrees_is_right_always():
    own = torch.eye(30)
    owner = torch.arange(30).repeat_interleave(2)
    names = [f"{i % 7} {i}" for i in range(60)]
    assert clip_score.agreement(own, own[owner], owner, names).mean() == 1
    assert clip_score.retrieval(own, own[owner], owner)["image_to_text_r1"].mean() == 1
    # Another picture's caption in the same words is not a wrong one: 0 and 1 share theirs, and none other is drawn.
    two = torch.tensor([[1.0, 0], [0, 1]])
    with pytest.raises(UserError, match="captions are alike"):
        clip_score.agreement(two, two, torch.arange(2), ["a dog", "a dog"])


def test_r_precision_of_orthogonal_and_of_random_features():
    captions = [str(i) for i in range(300)]
    assert r_precision.compute(torch.eye(300), torch.eye(300), captions)["r_precision"].mean() == 1
    chance = r_precision.compute(normal(0, 300, 20), normal(1, 300, 20), captions)["r_precision"]
    assert chance.mean() < 0.05  # 1 in 100
    assert r_precision.folds(chance).shape == (10,)
    assert float(r_precision.folds(chance).mean()) == pytest.approx(float(chance.mean()))
    ties = torch.ones(300, 4)
    assert r_precision.compute(ties, ties, captions)["r_precision"].sum() == 0


def test_r_precision_never_takes_the_same_words_for_wrong():
    features = torch.eye(2)[[0, 0, 0, 1]]  # three pictures of one caption: indistinguishable, and rightly so
    with pytest.warns(UserWarning, match="1 wrong captions"):
        assert r_precision.compute(features, features, ["a", "a", "a", "b"])["r_precision"].tolist() == [1, 1, 1, 1]
    with pytest.raises(UserError, match="alike"):
        r_precision.compute(features, features, ["a"] * 4)


# --- sliced Wasserstein


def test_pyramid_has_scipys_filter_and_adds_up_to_the_picture():
    from scipy.ndimage import convolve

    image = normal(0, 2, 3, 64, 64)
    levels = swd.pyramid(image)
    assert [x.shape[-1] for x in levels] == swd.sides(64) == [64, 32, 16]
    tap = np.array([1, 4, 6, 4, 1]) / 16
    small = convolve(image[0, 0].numpy(), np.outer(tap, tap), mode="mirror")[::2, ::2]
    wide = np.zeros((64, 64))
    wide[::2, ::2] = small
    up = 4 * convolve(wide, np.outer(tap, tap), mode="mirror")
    np.testing.assert_allclose(levels[0][0, 0], image[0, 0].numpy() - up, atol=1e-12)
    with pytest.raises(UserError, match="power of two from 16"):
        swd.sides(48)


def test_patches_are_cut_from_the_picture_by_its_own_seed():
    image = torch.arange(3 * 16 * 16.0).reshape(1, 3, 16, 16) / 8
    cut = swd.patches(image, [5])
    assert (cut.shape, cut.dtype) == ((1, 1, 128, 3, 49), torch.float16)
    one = cut[0, 0, 7].reshape(3, 7, 7).float()
    corner = int(one[0, 0, 0] * 8)
    top, left = divmod(corner, 16)
    assert torch.equal(one, image[0, :, top : top + 7, left : left + 7])
    corners = cut[0, 0, :, 0, 0].float() * 8
    assert corners.max() <= 9 * 16 + 9
    assert len(corners.unique()) > 40
    both = swd.patches(image.repeat(2, 1, 1, 1), [4, 5])
    assert torch.equal(both[1:], cut)


def test_swd_of_one_set_is_nought_and_else_scipys_distances():
    from scipy.stats import wasserstein_distance

    a, b = normal(0, 6, 2, 8, 3, 4).half(), (2 * normal(1, 6, 2, 8, 3, 4) ** 2).half()
    assert swd.compute(a, a.flip(0)) == pytest.approx({"swd": 0, "swd_32": 0, "swd_16": 0}, abs=1e-9)
    scores = swd.compute(a, b, repeats=1, directions=16)
    assert scores["swd"] == pytest.approx((scores["swd_32"] + scores["swd_16"]) / 2)
    from t2i.rng import Rng

    x, y = (v[:, 1].float() for v in (a, b))
    x, y = ((v - v.mean((0, 1, 3), keepdim=True)) / v.std((0, 1, 3), correction=0, keepdim=True) for v in (x, y))
    x, y = (v.reshape(48, 12) for v in (x, y))
    d = Rng(0, 0x5D, 1).randn(12, 16)
    d = d / d.norm(dim=0)
    expected = [wasserstein_distance((x @ v).numpy(), (y @ v).numpy()) for v in d.T]
    assert scores["swd_16"] == pytest.approx(1000 * np.mean(expected), rel=1e-4)


def test_swd_holds_no_set_in_float32():
    """1.2 GB for 16,384 pictures, as its docstring promises: 0.15 GB for 2,048, with what one chunk takes."""
    import subprocess
    import sys

    program = """
import resource, torch
from t2i.metrics import swd
a, b = (torch.rand(2048, 1, 128, 3, 49, dtype=torch.float16) for _ in range(2))
swd.compute(a[:300], b[:300], 1, 16)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
swd.compute(a, b, 1, 32)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.15


# --- diversity


def test_ms_ssim_of_a_picture_with_itself_and_with_noise():
    assert {side: ms_ssim.scales(side) for side in (16, 32, 64, 128, 256)} == {16: 2, 32: 2, 64: 3, 128: 4, 256: 5}
    a = normal(0, 3, 3, 64, 64, dtype=torch.float32).clamp(-1, 1)
    assert ms_ssim.compute(a, a)["ms_ssim"].tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    little, much = (ms_ssim.compute(a, (a + s * a.flip(0)).clamp(-1, 1))["ms_ssim"].mean() for s in (0.1, 1))
    assert 1 > little > much > 0
    with pytest.raises(UserError, match="11 pixels"):
        ms_ssim.compute(a[..., :8, :8], a[..., :8, :8])


def test_ms_ssim_of_a_darker_texture_by_hand():
    """Contrast and structure do not change by an offset; the luminance of the coarsest scale does: 2ab / (a² + b²)."""
    texture = 0.5 + 0.05 * torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    a, b = 2 * texture - 1, 2 * (texture - 0.05) - 1
    mean = float(texture.mean())
    luminance = 2 * mean * (mean - 0.05) / (mean**2 + (mean - 0.05) ** 2)
    found = float(ms_ssim.compute(a, b)["ms_ssim"])
    assert found == pytest.approx(luminance**0.1333, abs=1e-4)
    assert found == pytest.approx(0.999, abs=5e-4)


def test_ms_ssim_is_pytorch_msssims():
    theirs = pytest.importorskip("pytorch_msssim", reason="pytorch-msssim, of the dev extra, is not installed")
    measure = lambda a, b: theirs.ms_ssim((a + 1) / 2, (b + 1) / 2, data_range=1.0, size_average=False).double()
    a = 0.1 * torch.rand(2, 1, 192, 192, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    torch.testing.assert_close(ms_ssim.compute(a, a - 0.1)["ms_ssim"], measure(a, a - 0.1), rtol=0, atol=1e-5)
    # Of unlike pictures the third digit differs: torchmetrics mirrors the border of the coarsest scale, theirs cuts it.
    a = normal(1, 4, 1, 192, 192, dtype=torch.float32).mul(0.3).clamp(-1, 1).expand(-1, 3, -1, -1)
    b = (0.7 * a + 0.2 * normal(2, 4, 1, 192, 192, dtype=torch.float32)).clamp(-1, 1)
    torch.testing.assert_close(ms_ssim.compute(a, b)["ms_ssim"], measure(a, b), rtol=0, atol=2e-3)


def test_lpips_is_the_package_s_on_torchvisions_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        torch.manual_seed(0)
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = {f"features.{k.split('.', 1)[1]}": v for k, v in theirs.net.state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(1)}, tmp_path / "alexnet.pth")
    before = torch.get_rng_state()
    network = lpips_distance.load("alex", tmp_path / "alexnet.pth")
    assert torch.equal(before, torch.get_rng_state())
    a, b = normal(0, 2, 3, 64, 64, dtype=torch.float32).clamp(-1, 1), torch.zeros(2, 3, 64, 64)
    ours = lpips_diversity.compute(a, b, network)["lpips_diversity"]
    torch.testing.assert_close(ours, theirs(a, b).reshape(-1).double())
    assert (ours > 0).all()
    assert lpips_diversity.compute(a, a, network)["lpips_diversity"].abs().max() == 0
    with pytest.raises(UserError, match=r"no such file; it is torchvision's alexnet-owt-7be5be79\.pth"):
        lpips_distance.load("alex", tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"bad")
    with pytest.raises(UserError, match="cannot be read as vgg16"):
        lpips_distance.load("vgg", tmp_path / "bad.pth")


def test_ppl_of_a_linear_generator_is_the_length_of_its_paths():
    weight = normal(0, 5, 3 * 4 * 4)
    w0, w1 = normal(1, 50, 5), normal(2, 50, 5)
    squared = lambda a, b: (a - b).square().flatten(1).sum(1)
    lengths = ppl.distances(w0, w1, lambda w: (w @ weight).reshape(-1, 3, 4, 4), squared)
    expected = ((w1 - w0) @ weight).square().sum(1)
    torch.testing.assert_close(lengths, expected, rtol=1e-6, atol=0)
    low, high = np.percentile(expected, 1, method="lower"), np.percentile(expected, 99, method="higher")
    kept = expected[(expected >= low * (1 - 1e-9)) & (expected <= high * (1 + 1e-9))]
    assert ppl.compute(lengths)["ppl"].value == pytest.approx(float(kept.mean()), rel=1e-6)
    squares = torch.arange(1000.0).double().square()
    assert ppl.compute(squares)["ppl"].value == pytest.approx(float(squares[9:991].mean()))  # 9.99 → 9 … 989.01 → 990


def test_ppl_looks_at_large_pictures_at_256():
    sizes = []
    ppl.distances(
        torch.zeros(1, 2), torch.ones(1, 2), lambda w: w.sum().expand(1, 3, 512, 512),
        lambda a, b: (sizes.append(a.shape[-1]), torch.zeros(1))[1],
    )  # fmt: skip
    assert sizes == [256]


# --- objects


@pytest.mark.parametrize(
    ("caption", "classes"),
    [
        ("A hot dog and two apples.", {"hot dog", "apple"}),
        ("Two men riding horses near a bus stop", {"person", "horse"}),
        ("A teddy bear on a wooden bench", {"teddy bear", "bench"}),
        ("An orange couch and an orange on a plate", {"couch", "orange"}),
        ("A woman with knives, a cellphone and a tennis racquet", {"person", "knife", "cell phone", "tennis racket"}),
        ("A train on the train tracks beside buses", {"train", "bus"}),
        ("A scarf on a carpet", set()),
    ],
)
def test_classes_named_by_a_caption(caption, classes):
    assert soa.named(caption) == classes


def test_every_class_is_named_by_its_own_name():
    assert len(soa.CLASSES) == 80
    for name in soa.CLASSES:
        assert name in soa.named(f"There is one {name}."), name


def test_soa_by_hand():
    scores = soa.compute([{"cat"}, {"cat", "dog"}, {"cat"}, set()], [{"cat"}, {"dog"}, {"dog"}, {"cat"}])
    assert float(scores["soa_i"].mean()) == 2 / 4  # cat 1 of 3, dog 1 of 1
    assert scores["soa_c"].value == pytest.approx((1 / 3 + 1) / 2)
    with pytest.raises(UserError, match="no caption names"):
        soa.compute([set()], [{"cat"}])
    with pytest.raises(UserError, match="one a picture"):
        soa.compute([{"cat"}], [])


def test_soa_by_its_authors_rules():
    """A caption asks for the class whose list it is of; Top40 are the classes of most pictures."""
    assert soa.asked_by(Caption("a dog and a cat on a bench", object="dog")) == {"dog"}
    assert soa.asked_by(Caption("a dog and a cat", object="zoo")) == {"dog", "cat"}
    asked, found = [], []
    for number, name in enumerate(soa.CLASSES):  # 1, 2, ... pictures a class, of which the first 40 classes are missed
        asked += [{name}] * (number + 1)
        found += [{name} if number >= 40 else {"none"}] * (number + 1)
    scores = soa.compute(asked, found)
    assert (scores["soa_c"].value, scores["soa_c_top40"].value, scores["soa_c_bot40"].value) == (0.5, 1, 0)
    assert float(scores["soa_i"].mean()) == pytest.approx(sum(range(41, 81)) / sum(range(1, 81)))  # weighs pictures
    assert "soa_c_top40" not in soa.compute(asked[:-80], found[:-80])


def test_a_caption_file_says_which_class_each_is_listed_for(tmp_path):
    (tmp_path / "soa.jsonl").write_text('{"caption": "a dog and a cat", "object": "cat"}\n' * 3)
    assert [c.object for c in read_captions(tmp_path / "soa.jsonl")] == ["cat"] * 3


def test_a_detector_is_named_by_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "my_detector.py").write_text("def detect(images):\n    return [{'cat'} for _ in images]\nx = 1\n")
    monkeypatch.chdir(tmp_path)
    assert detector.imported("my_detector:detect")(torch.zeros(2)) == [{"cat"}, {"cat"}]
    for wrong in ("my_detector", "my_detector:none", "no_such_module:detect", "my_detector:x"):
        with pytest.raises(UserError, match=f"--detector {wrong}"):
            detector.imported(wrong)


# --- intervals and the table


def test_every_score_knows_its_metric_and_unknown_metrics_the_closest():
    asked = ("precision", "swd_64", "VGG relu1_2", "probe_both", "fid", "encoder_r1", "trunk_recall",
             "shape_kd", "vendi_0.5", "real_vendi_inf")  # fmt: skip
    assert {score: metric.owner(score).name for score in asked} == {
        "precision": "prdc", "swd_64": "swd", "VGG relu1_2": "vgg", "probe_both": "probe", "fid": "fid",
        "encoder_r1": "clip_score", "trunk_recall": "prdc_trunk", "shape_kd": "shape_kd", "vendi_0.5": "vendi",
        "real_vendi_inf": "vendi",
    }  # fmt: skip
    assert metric.owner("nonsense") is None
    shuffled = random.Random(0).sample(known(), len(known()))
    assert metric.named([*shuffled, "fid"]) == metric.every()
    assert [m.name for m in metric.every()] == [
        "fid", "clean_fid", "kid", "kd", "fd", "is", "prdc", "prdc_trunk", "vendi", "clip_score", "clip_fid", "cmmd",
        "r_precision", "swd", "ms_ssim", "lpips_diversity", "ppl", "eq_t", "eq_r", "soa", "vgg", "probe", "shape",
        "shape_kd",
    ]  # fmt: skip
    with pytest.raises(UserError, match="did you mean 'clip_score'"):
        metric.named(["clipscore"])


def test_what_is_told_beside_a_score_has_no_better():
    better = {s: metric.owner(s).better(s) for s in ("fid", "recall", "swd_64", "eq_t_frac", "VGG relu1_2")}
    assert list(better.values()) == ["lower", "higher", "lower", "higher", "lower"]
    for score in ("real_clip_score", "encoder_text_to_image_r1", "r_precision_fold_std"):
        assert metric.owner(score).better(score) == ""
    assert metric.of_reference("real_clip_score")
    assert metric.of_reference("real_vendi_2")
    assert metric.of_reference("encoder_image_to_text_r5")
    assert metric.of_reference("probe_floor_noise")
    assert metric.owner("probe_ceiling_both").better("probe_ceiling_both") == ""
    assert not metric.of_reference("probe_both")
    assert not metric.of_reference("r_precision_fold_std")
    assert not metric.of_reference("nonsense")
