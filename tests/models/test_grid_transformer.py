import math

import open_clip
import pytest
import timm
import torch
from torch.testing import assert_close

from crowdcount.models.grid_transformer import (
    GridTransformer,
    PromptTokens,
    SelfAttention,
    from_open_clip,
    from_timm,
)
from tests.models import small_backbones  # noqa: F401 - registers shrunken_siglip with timm

WIDTH, PATCH, BLOCKS = 32, 16, 3


def open_clip_transformer():
    torch.manual_seed(1)
    return open_clip.CLIP(
        embed_dim=8,
        vision_cfg={
            **{"layers": BLOCKS, "width": WIDTH, "head_width": 8, "patch_size": PATCH},
            **{"image_size": 64, "output_tokens": True},
        },
        text_cfg={"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1},
        quick_gelu=True,
    ).visual.eval()


@pytest.fixture
def encoder():
    return from_open_clip(open_clip_transformer()).eval()


def prompts(depth="deep", tokens=4, dropout=0.0):
    torch.manual_seed(2)
    return PromptTokens(
        **{"blocks": BLOCKS, "tokens": tokens, "patch": PATCH, "width": WIDTH},
        **{"depth": depth, "dropout": dropout},
    )


def test_positions_brought_to_another_grid_are_what_that_grid_was_shown(encoder):
    images = torch.rand(1, 3, 6 * PATCH, 6 * PATCH)
    own = encoder(images)
    encoder.regrid(6)
    assert encoder.positional_embedding.shape == (37, WIDTH)
    assert encoder.positional_embedding.requires_grad
    assert_close(encoder(images), own, rtol=0, atol=0)


def test_attention_is_that_of_torch_under_the_same_names():
    torch.manual_seed(3)
    own = torch.nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    torch.nn.init.normal_(own.in_proj_bias)
    tokens = torch.randn(2, 7, WIDTH)
    expected, _ = own(tokens, tokens, tokens, need_weights=False)
    ours = SelfAttention(own)
    given, weights = ours(tokens, tokens, tokens, need_weights=False, attn_mask=None)
    assert_close(given, expected)
    assert weights is None
    assert ours.state_dict().keys() == own.state_dict().keys()


def by_hand(encoder, images, tokens_of_block):
    """The published way: put tokens in before a block, take them out after it."""
    patches = encoder.conv1(images).flatten(2).transpose(1, 2)
    of_class = encoder.class_embedding.expand(len(images), 1, -1)
    tokens = torch.cat([of_class, patches], dim=1) + encoder.positions(4, 4)
    tokens = encoder.ln_pre(tokens)
    for block, fresh in zip(encoder.blocks, tokens_of_block, strict=True):
        fresh = fresh.expand(len(images), -1, -1)
        tokens = block(torch.cat([tokens[:, :1], fresh, tokens[:, 1:]], dim=1))
        tokens = torch.cat([tokens[:, :1], tokens[:, 1 + fresh.shape[1] :]], dim=1)
    return encoder.ln_post(tokens)[:, 1:].transpose(1, 2).reshape(len(images), WIDTH, 4, 4)


def test_the_grid_is_what_open_clip_pools():
    visual, images = open_clip_transformer(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        _, tokens = visual(images)
        features = from_open_clip(visual)(images)
    assert_close(features.flatten(2).transpose(1, 2), tokens)


@pytest.mark.parametrize("name", ["test_vit", "shrunken_siglip"])
def test_the_grid_is_what_timm_pools(name):
    torch.manual_seed(1)
    trunk = timm.create_model(name).eval()
    torch.nn.init.normal_(trunk.pos_embed)
    height, width = trunk.patch_embed.img_size
    images = torch.rand(2, 3, height, width)
    with torch.no_grad():
        tokens = trunk.forward_features(images)[:, trunk.num_prefix_tokens :]
        features = from_timm(trunk)(images)
    assert_close(features.flatten(2).transpose(1, 2), tokens)


def test_deep_prompts_enter_before_each_block_and_leave_after_it(encoder):
    images, tuned = torch.rand(2, 3, 64, 64), prompts()
    with torch.no_grad():
        features = encoder(images, tuned(2))
        assert_close(features, by_hand(encoder, images, tuned.tokens))
        for tokens in tuned.tokens:  # each of them acts
            tokens.mul_(-1)
            changed = encoder(images, tuned(2))
            assert (changed - features).abs().max() > 1e-4
            features = changed


def test_shallow_prompts_enter_once_and_are_carried_along(encoder):
    images, tuned = torch.rand(2, 3, 64, 64), prompts("shallow")
    (first,) = tuned.tokens
    carried = GridTransformer.forward(encoder, images, tuned(2))
    tokens = torch.cat([first.expand(2, -1, -1), _embedded_patches(encoder, images)[:, 1:]], dim=1)
    tokens = torch.cat([_embedded_patches(encoder, images)[:, :1], tokens], dim=1)
    for block in encoder.blocks:
        tokens = block(tokens)
    expected = encoder.ln_post(tokens)[:, 1 + len(first) :]
    assert_close(carried.flatten(2).transpose(1, 2), expected)
    assert (carried - by_hand(encoder, images, prompts().tokens)).abs().max() > 1e-4


def _embedded_patches(encoder, images):
    patches = encoder.conv1(images).flatten(2).transpose(1, 2)
    of_class = encoder.class_embedding.expand(len(images), 1, -1)
    return encoder.ln_pre(torch.cat([of_class, patches], dim=1) + encoder.positions(4, 4))


def test_prompts_start_uniform_in_the_published_bounds():
    bound = math.sqrt(6 / (3 * PATCH + WIDTH))
    numbers = torch.cat([each.detach().flatten() for each in prompts(tokens=200).tokens])
    assert numbers.abs().max() <= bound
    assert numbers.abs().max() > 0.99 * bound
    assert_close(numbers.std(), torch.tensor(bound / math.sqrt(3)), rtol=0.02, atol=0)


def test_dropout_of_prompts_differs_between_images_and_only_in_training():
    tuned = prompts(dropout=0.5)
    torch.manual_seed(3)
    one, other = tuned.train()(2)[0]
    assert not torch.equal(one, other)
    assert 0.3 < (one == 0).float().mean() < 0.7
    one, other = tuned.eval()(2)[0]
    assert torch.equal(one, other)


def test_positions_of_the_own_grid_are_as_they_are_and_of_another_keep_the_class(encoder):
    own = encoder.positional_embedding
    assert encoder.positions(4, 4) is own
    other = encoder.positions(7, 5)
    assert other.shape == (1 + 7 * 5, WIDTH)
    assert torch.equal(other[0], own[0])


def test_positions_keep_rows_and_columns_apart(encoder):
    # The embedding says: row number in channel 0, column number in channel 1.
    with torch.no_grad():
        rows, cols = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        encoder.positional_embedding[1:, 0] = rows.flatten()
        encoder.positional_embedding[1:, 1] = cols.flatten()
        grid = encoder.positions(8, 12)[1:].reshape(8, 12, WIDTH)
    assert_close(grid[:, :, 0], grid[:, :1, 0].expand(8, 12))
    assert_close(grid[:, :, 1], grid[:1, :, 1].expand(8, 12))
    assert (grid[2:6, 0, 0].diff() > 0).all()
    assert_close(grid[3, 0, 0] + grid[4, 0, 0], torch.tensor(3.0))  # symmetric about the middle


def test_shrinking_positions_is_not_antialiased(encoder):
    # At half the size each new cell lies between two old ones, and bicubic weighs four of them
    # with -3/32, 19/32, 19/32, -3/32. Antialiasing would look at eight.
    with torch.no_grad():
        encoder.grid = (1, 16)
        encoder.positional_embedding = torch.nn.Parameter(torch.zeros(17, WIDTH))
        encoder.positional_embedding[1 + 8] = 1.0
        halved = encoder.positions(1, 8)[1:, 0]
    assert_close(halved, torch.tensor([0, 0, 0, -3, 19, 0, 0, 0]) / 32)
