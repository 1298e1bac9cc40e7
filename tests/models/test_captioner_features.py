"""Features of a trained network are large; the first state of the decoder must still tell images apart."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.batches import CaptionBatch
from rnnzoo.data import CaptionData
from rnnzoo.models.captioner import Captioner


@pytest.mark.parametrize("attention", ["none", "soft"])
def test_large_features_do_not_saturate_the_first_state(attention):
    torch.manual_seed(0)
    data = CaptionData(synthetic="scenes", limit=8)
    model = Captioner(processor=data.processor, hidden_size=64, attention=attention, region_size=32).eval()
    model.projection[0] = torch.nn.Linear(1024, 32)  # as wide as the features of a MobileNet
    regions = 6 * torch.rand(4, 16, 1024).square() * 20
    batch = CaptionBatch(
        ids=torch.arange(4),
        images=None,
        regions=regions,
        region_counts=torch.full((4,), 16),
        captions=None,
        caption_rows=None,
        lengths=torch.ones(4, dtype=torch.int64),
        references=None,
    )
    state = model.decoder.initial_state(model.describe(batch))
    hidden = (state.layers if hasattr(state, "layers") else state)[0].hidden  # [4, H]
    assert hidden.abs().mean() < 0.9
    assert hidden.std(0).mean() > 1e-3
