"""Against transformers' own ViT and Dinov2 with the same random weights, and by hand."""

import pytest
import torch

from train.models.image_teacher import Config, make_teacher
from train.models.vision_transformer import SIZES, Size, VisionTransformer

transformers = pytest.importorskip("transformers")

DINO = Size(24, 2, 3, 8, 5, False)
DINOV2 = Size(24, 2, 3, 14, 5, True)
INNER = {
    "norm1.": ("norm1.", "layernorm_before."),
    "norm2.": ("norm2.", "layernorm_after."),
    "attn.proj.": ("attention.o_proj.",) * 2,
    "mlp.fc1.": ("mlp.fc1.",) * 2,
    "mlp.fc2.": ("mlp.fc2.",) * 2,
}


def published(theirs, size):
    """Their tensors under the names of the published files."""
    state, which = theirs.state_dict(), 0 if size.has_scale else 1
    layer = ("encoder.layer.", "layers.")[which]
    new = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
    }
    for part in ("weight", "bias"):
        new[f"patch_embed.proj.{part}"] = state[f"embeddings.patch_embeddings.projection.{part}"]
        new[f"norm.{part}"] = state[f"layernorm.{part}"]
        for i in range(size.depth):
            mixed = [state[f"{layer}{i}.attention.{x}_proj.{part}"] for x in "qkv"]
            new[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(mixed)
            for ours, names in INNER.items():
                new[f"blocks.{i}.{ours}{part}"] = state[f"{layer}{i}.{names[which]}{part}"]
    for i in range(size.depth if size.has_scale else 0):
        for which_scale in (1, 2):
            name = f"{layer}{i}.layer_scale{which_scale}.lambda1"
            new[f"blocks.{i}.ls{which_scale}.gamma"] = state[name]
    if size.has_scale:
        new["mask_token"] = state["embeddings.mask_token"]
    return new


def their_model(size, seed=0):
    torch.manual_seed(seed)
    options = {
        "hidden_size": size.dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "image_size": size.grid * size.patch,
        "patch_size": size.patch,
        "layer_norm_eps": 1e-6,
    }
    if size.has_scale:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**options))
    else:
        config = transformers.ViTConfig(intermediate_size=4 * size.dim, **options)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    with torch.no_grad():  # as they are drawn, norms and scales are 1 and biases 0
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.1)
    return model.eval()


@pytest.mark.parametrize("size", [DINO, DINOV2], ids=["dino", "dinov2"])
@pytest.mark.parametrize("grid", [(5, 5), (3, 7)])
def test_equals_transformers(size, grid):
    theirs = their_model(size)
    ours = VisionTransformer(size).eval()
    state = published(theirs, size)
    state.pop("mask_token", None)
    ours.load_state_dict(state)
    images = torch.randn(2, 3, grid[0] * size.patch, grid[1] * size.patch)
    with torch.no_grad():
        more = {} if size.has_scale else {"interpolate_pos_encoding": True}
        expected = theirs(images, **more).last_hidden_state[:, 1:]
        out = ours(images)
    assert out.shape == (2, size.dim, *grid)
    torch.testing.assert_close(out.flatten(2).transpose(1, 2), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "million"),
    [
        ("dino_vits16", 21.7),
        ("dino_vitb8", 85.8),
        ("dinov2_vits14", 22.1),
        ("dinov2_vitl14", 304.4),
    ],
)
def test_sizes_are_the_published_ones(kind, million):
    with torch.device("meta"):
        network = VisionTransformer(SIZES[kind])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(million, abs=0.06)


def test_an_image_between_patches_is_enlarged_to_the_next():
    network = VisionTransformer(DINOV2).eval()
    images = torch.rand(1, 3, 42, 65)
    larger = torch.nn.functional.interpolate(images, (42, 70), mode="bilinear")
    with torch.no_grad():
        assert network(images).shape == (1, 24, 3, 5)
        assert torch.equal(network(images), network(larger))


def test_positions_of_the_own_grid_are_the_table():
    network = VisionTransformer(DINO)
    assert network.positions(5, 5) is network.pos_embed
    assert network.positions(10, 3).shape == (1, 31, 24)
    assert torch.equal(network.positions(10, 3)[:, :1], network.pos_embed[:, :1])


def test_as_a_teacher(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "dinov2_vits14", DINOV2)
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(published(their_model(DINOV2), DINOV2), path)
    teacher = make_teacher(Config("dinov2_vits14", weights=str(path)))
    assert (teacher.dim, teacher.stride) == (24, 14)
    assert teacher(torch.rand(1, 3, 28, 56)).shape == (1, 24, 2, 4)
