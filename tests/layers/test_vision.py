"""Image encoders: the grid, what is frozen, and what a bundle needs to build them again."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

from rnnzoo.errors import InputError
from rnnzoo.layers.vision import OWN_NETWORKS, ImageEncoder, LocalCNN, SmallCNN

MOBILENET = Path(__file__).parents[2].parent / "shared" / "data" / "mobilenet_v1_1.0_224"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {  # model type → configuration, places of an image of 32 × 32, numbers of each
    "resnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, 16, 16),
    "mobilenet_v1": ({"depth_multiplier": 0.05}, 1, 51),
    "vit": ({**SMALL, "patch_size": 8, "image_size": 32}, 16, 16),
    "deit": ({**SMALL, "patch_size": 8, "image_size": 32}, 16, 16),
    "dinov2_with_registers": ({**SMALL, "patch_size": 8, "image_size": 32}, 16, 16),
    "swin": (
        {"image_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1]},
        16,
        16,
    ),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def pretrained(tmp_path):
    """Return a function that writes a small vision model of a type and returns its folder."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()

    def write(kind, **extra):
        config = transformers.AutoConfig.for_model(kind, **VISION.get(kind, ({},))[0], **extra)
        model = transformers.AutoModel.from_config(config)
        for name, value in model.named_buffers():  # batch-norm statistics that differ from those of a new layer
            if "running" in name:
                value.uniform_(0.5, 1.5)
        model.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return write


def images(count=2, size=32):
    return torch.randn(count, 3, size, size)


def state(encoder):
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# The small network


def test_small_cnn_halves_the_sides_with_each_stage():
    for channels, side in (((8,), 16), ((8, 16), 8), ((8, 16, 24), 4)):
        encoder = ImageEncoder(image_size=32, channels=channels)
        assert encoder(images()).shape == (2, side * side, channels[-1])
        assert (encoder.region_count, encoder.output_size) == (side * side, channels[-1])
        assert encoder.grid == (side, side)


def test_places_go_row_by_row():
    encoder = ImageEncoder(image_size=32, channels=(8, 8, 8))
    picture = images(1)
    changed = picture.clone()
    changed[:, :, :8, 24:] += 3  # the upper right corner
    difference = (encoder(changed) - encoder(picture)).abs().sum(2).view(4, 4)
    assert difference.argmax() == 3


def test_an_image_alone_gives_what_it_gives_in_a_batch_in_training_too():
    network = SmallCNN().train()
    batch = images(3)
    assert torch.allclose(network(batch)[1:2], network(batch[1:2]), atol=1e-5)


def test_small_cnn_tells_places_apart():
    encoder = ImageEncoder(image_size=32, channels=(8,))
    inner = encoder(torch.zeros(1, 3, 32, 32)).view(16, 16, 8)[4:12, 4:12]
    assert (inner[0, 0] - inner[7, 7]).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(OWN_NETWORKS))
def test_a_network_from_scratch_is_trained_whole(name):
    encoder = ImageEncoder(name=name, image_size=16, channels=(8, 8))
    encoder(images(2, 16)).square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in encoder.parameters())


@pytest.mark.parametrize("network", [SmallCNN, LocalCNN])
@pytest.mark.parametrize("channels", [(), (12,), (0,)])
def test_channels_are_checked(channels, network):
    with pytest.raises(InputError, match="multiples of 8"):
        network(channels)


# The local network


@pytest.mark.parametrize(("channels", "seen"), [((8,), 4), ((8, 8), 10), ((8, 8, 8), 22)])
def test_what_a_cell_of_the_local_network_sees_is_centred_on_it(channels, seen):
    network = LocalCNN(channels).double()
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):  # its statistics are of the whole image
            module.forward = lambda hidden: hidden
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 0.1)  # no ReLU is closed
    picture = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    side = 2 ** len(channels)
    row, column = 32 // side, 16 // side
    network(picture)[0, :-2, row, column].sum().backward()
    for axis, cell in ((2, row), (1, column)):
        pixels = picture.grad[0].abs().sum((0, axis)).nonzero()
        margin = (seen - side) // 2
        assert (pixels.min(), pixels.max()) == (cell * side - margin, (cell + 1) * side - 1 + margin)


def test_the_local_network_sees_a_thing_alike_everywhere_and_tells_where_apart():
    encoder = ImageEncoder(name="local_cnn", image_size=64, channels=(8, 8))
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, 24:28, 24:28] = 1
    cells, moved = (encoder(each).view(16, 16, 10) for each in (picture, picture.roll((8, 4), (2, 3))))
    assert torch.allclose(moved[8, 7, :8], cells[6, 6, :8], atol=1e-5)
    assert (cells[8, 7, :8] - cells[6, 6, :8]).abs().max() > 0.1
    assert torch.allclose(cells[:, 3, 8], torch.linspace(-1, 1, 16))  # y
    assert torch.allclose(cells[3, :, 9], torch.linspace(-1, 1, 16))  # x
    assert encoder.grid == (16, 16)


def test_a_local_network_is_built_again_from_its_settings():
    encoder = ImageEncoder(name="local_cnn", image_size=16, channels=(8, 8))
    again = ImageEncoder(image_size=16, **encoder.settings())
    again.load_state_dict(encoder.state_dict())
    assert again.checksum() == encoder.checksum()
    assert not again.frozen


# Pretrained networks


@pytest.mark.parametrize("kind", VISION)
def test_maps_and_tokens_become_a_grid(pretrained, kind):
    _, count, size = VISION[kind]
    encoder = ImageEncoder(name=pretrained(kind), image_size=32)
    found = encoder(images())
    assert found.shape == (2, count, size)
    assert (encoder.region_count, encoder.output_size) == (count, size)


def test_a_map_is_read_row_by_row(pretrained):
    encoder = ImageEncoder(name=pretrained("resnet"), image_size=32)
    batch = images()
    with torch.no_grad():
        grid = encoder.network(batch).last_hidden_state  # [B, D, Y, X]
    assert torch.allclose(encoder(batch)[:, 4 * 1 + 2], grid[:, :, 1, 2], atol=1e-6)


@pytest.mark.parametrize(("kind", "extra"), [("vit", 1), ("deit", 2), ("dinov2_with_registers", 5)])
def test_the_tokens_before_the_places_are_dropped(pretrained, kind, extra):
    encoder = ImageEncoder(name=pretrained(kind), image_size=32)
    batch = images()
    with torch.no_grad():
        tokens = encoder.network(batch).last_hidden_state
    assert tokens.shape[1] == 16 + extra
    assert torch.allclose(encoder(batch), tokens[:, extra:], atol=1e-6)


def test_the_image_part_of_a_model_of_images_and_texts(pretrained):
    vision, text = {**SMALL, "image_size": 32, "patch_size": 8}, {**SMALL, "vocab_size": 49408}
    folder = pretrained("clip", vision_config=vision, text_config=text)
    encoder = ImageEncoder(name=folder, image_size=32)
    assert encoder(images()).shape == (2, 16, 16)
    assert not any("text" in name for name in encoder.state_dict())
    again = ImageEncoder(image_size=32, **encoder.settings())
    again.load_state_dict(encoder.state_dict())


def test_images_larger_than_those_of_the_pretraining(pretrained):
    assert ImageEncoder(name=pretrained("vit"), image_size=48)(images(1, 48)).shape == (1, 36, 16)


@pytest.mark.parametrize("kind", ["resnet", "mobilenet_v1", "vit"])
def test_a_frozen_encoder_is_left_as_it_came_by_training(pretrained, kind):
    encoder = ImageEncoder(name=pretrained(kind), image_size=32)
    model = torch.nn.Sequential(encoder, torch.nn.Linear(encoder.output_size, 2)).train()
    before, batch = state(encoder), images(4)
    expected = encoder(batch)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()
    assert not any(value.requires_grad for value in encoder.parameters())
    assert not any(module.training for module in encoder.network.modules())
    assert same(before, state(encoder))
    assert torch.equal(encoder(batch), expected)


def test_fine_tuning_changes_weights_but_not_batch_norm_statistics(pretrained):
    encoder = ImageEncoder(name=pretrained("resnet"), image_size=32, frozen=False).train()
    before = state(encoder)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(images(4)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any("running" in name or "tracked" in name for name in changed)
    assert {name for name, value in encoder.named_parameters() if value.grad is None} == set()


def test_weights_that_are_not_used_are_not_trained_and_not_in_the_checksum(pretrained):
    folder = pretrained("vit")
    encoder = ImageEncoder(name=folder, image_size=32, frozen=False)
    assert encoder.unused == ["pooler.dense.weight", "pooler.dense.bias"]
    encoder(images()).square().sum().backward()
    assert all(value.grad is not None for value in encoder.parameters() if value.requires_grad)
    before = encoder.checksum()
    torch.nn.init.ones_(encoder.network.pooler.dense.weight)
    assert encoder.checksum() == before


def test_the_checksum_is_of_the_weights(pretrained):
    folder = pretrained("resnet")
    first, second = (ImageEncoder(name=folder, image_size=32) for _ in range(2))
    assert first.checksum() == second.checksum()
    with torch.no_grad():
        next(iter(second.network.buffers())).add_(1)
    assert first.checksum() != second.checksum()


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_an_encoder_is_built_again_without_its_folder(pretrained, kind, tmp_path):
    encoder = ImageEncoder(name=pretrained(kind), image_size=32)
    (tmp_path / kind).rename(tmp_path / "gone")
    again = ImageEncoder(image_size=32, **encoder.settings())
    again.load_state_dict(encoder.state_dict())
    batch = images()
    assert torch.equal(again(batch), encoder(batch))
    assert again.frozen
    assert again.settings() == encoder.settings()
    assert torch.equal(copy.deepcopy(encoder)(batch), encoder(batch))


# What cannot be


def test_a_model_of_text_is_no_image_encoder(pretrained):
    with pytest.raises(InputError, match=r"expected a model that takes images, .*, got 'bert'"):
        ImageEncoder(name=pretrained("bert", **SMALL, vocab_size=10), image_size=32)


def test_a_folder_without_a_model_and_a_name_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"OSError: no config.json in it; check name and network$"):
        ImageEncoder(name=str(tmp_path), image_size=32)
    with pytest.raises(
        InputError, match="image encoder no/such-model: expected 'small_cnn', 'local_cnn', or a vision model"
    ):
        ImageEncoder(name="no/such-model", image_size=32)


def test_pickled_weights_are_not_read(pretrained):
    folder = Path(pretrained("resnet"))
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        ImageEncoder(name=str(folder), image_size=32)


def test_an_image_size_that_the_network_does_not_take(pretrained):
    with pytest.raises(InputError, match=r"expected one that takes images of 2 × 2, got .*; choose another --data"):
        ImageEncoder(name=pretrained("swin"), image_size=2)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install rnnzoo\[vision\]"):
        ImageEncoder(name="google/mobilenet_v1_1.0_224", image_size=32)


# A real one


@pytest.mark.skipif(not MOBILENET.is_dir(), reason="no pretrained MobileNet here")
def test_mobilenet():
    encoder = ImageEncoder(name=str(MOBILENET), image_size=128).train()
    before, batch = state(encoder), torch.rand(2, 3, 128, 128) * 2 - 1
    found = encoder(batch)
    assert found.shape == (2, 16, 1024)
    assert encoder.grid == (4, 4)
    assert 0 <= found.min() < found.max() <= 6
    assert same(before, state(encoder))
    # What a forward pass in training mode would do to it.
    again = copy.deepcopy(encoder)
    again.network.train()(batch)
    again.train()
    assert (again(batch) - found).norm() / found.norm() > 0.5
