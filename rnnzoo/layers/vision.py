"""Image encoders: pixels to a grid of vectors."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rnnzoo.errors import InputError

SMALL_CNN, LOCAL_CNN = "small_cnn", "local_cnn"
# Types of `transformers` whose configuration names no other model, file or code.
VISION_MODELS = """
beit bit clip clip_vision_model convnext convnextv2 cvt data2vec-vision deit dinov2 dinov2_with_registers
dinov3_convnext dinov3_vit efficientnet focalnet hiera ijepa levit mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2
poolformer pvt pvt_v2 regnet resnet siglip siglip2 siglip2_vision_model siglip_vision_model swiftformer swin swinv2
vit vit_mae vit_msn
""".split()  # noqa: SIM905
UNSAFE = (  # keys of a configuration that name code, other models or ways of loading
    *("auto_map", "custom_pipelines", "trust_remote_code", "quantization_config", "attn_implementation", "backbone"),
    *("backbone_config", "backbone_kwargs", "use_pretrained_backbone", "use_timm_backbone", "name_or_path"),
)
LARGEST = 1_000_000  # number in a configuration
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


class SmallCNN(nn.Module):
    """A residual network of a few layers, to be trained from scratch: images [B, 3, Y, X] → [B, D, Y / 2^N, X / 2^N].

    Each of the N stages halves the sides (a convolution of stride 2) and adds one residual block. Normalisation is by
    groups of channels within an image, so that an image alone gives what it gives in a batch, in training too. Two
    more channels hold the place (y, x) of each pixel from -1 to 1: captions speak of places, convolutions do not
    (CoordConv, Liu et al. 2018).

    Args:
        channels: of each stage, multiples of 8; the last is D.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        check_channels(SMALL_CNN, channels)
        self.stages = nn.ModuleList()
        before = 3 + 2
        for count in channels:
            self.stages.append(Stage(before, count))
            before = count

    def forward(self, images: Tensor) -> Tensor:
        """Return the grid [B, D, Y', X']."""
        hidden = with_positions(images)  # [B, 5, Y, X]
        for stage in self.stages:
            hidden = stage(hidden)
        return hidden


class Stage(nn.Module):
    """Halve the sides, then x + f(x).

    Args:
        input_size: channels that come in.
        output_size: channels that go out, a multiple of 8.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.down = nn.Sequential(*convolution(input_size, output_size, stride=2), nn.ReLU())
        self.block = nn.Sequential(
            *convolution(output_size, output_size), nn.ReLU(), *convolution(output_size, output_size)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [B, O, Y / 2, X / 2] for [B, I, Y, X]."""
        hidden = self.down(hidden)
        return torch.relu(hidden + self.block(hidden))


def convolution(input_size: int, output_size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a 3×3 convolution and the normalisation after it."""
    layer = nn.Conv2d(input_size, output_size, 3, stride=stride, padding=1, bias=False)
    return layer, nn.GroupNorm(output_size // 8, output_size)


class LocalCNN(nn.Module):
    """A few convolutions, to be trained from scratch, for grids in which a cell is about what lies in it.

    Images [B, 3, Y, X] → [B, D + 2, Y / 2^N, X / 2^N]. Each of the N stages is a convolution over 4 × 4 pixels of
    stride 2, a normalisation by groups of channels within an image, and a ReLU. What a cell sees is centred on it:
    10 pixels on a side for two stages, whose cells are 4 × 4 pixels, 22 for three. The last two channels are the
    position (y, x) of the cell from -1 to 1. The convolutions do not read it, so a thing looks the same wherever it
    is, and the mean of the grid, from which decoders start, does not tell which thing is where: attention has to.

    Args:
        channels: of each stage, multiples of 8; the last is D.

    Raises:
        InputError: for other channels.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        check_channels(LOCAL_CNN, channels)
        layers: list[nn.Module] = []
        for before, count in zip([3, *channels], channels, strict=False):
            layer = nn.Conv2d(before, count, 4, stride=2, padding=1, bias=False)
            layers += [layer, nn.GroupNorm(count // 8, count), nn.ReLU()]
        self.stages = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the grid [B, D + 2, Y', X']."""
        return with_positions(self.stages(images))


OWN_NETWORKS = {SMALL_CNN: SmallCNN, LOCAL_CNN: LocalCNN}  # which start from random weights


def with_positions(maps: Tensor) -> Tensor:
    """Return maps [B, C, Y, X] with two more channels, the position (y, x) from -1 to 1: [B, C + 2, Y, X]."""
    rows, columns = (torch.linspace(-1, 1, side, device=maps.device) for side in maps.shape[2:])
    positions = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(maps.dtype)  # [2, Y, X]
    return torch.cat([maps, positions.expand(len(maps), -1, -1, -1)], dim=1)


def check_channels(name: str, channels: Sequence[int]) -> None:
    """Refuse numbers of channels that cannot be normalised by groups of 8.

    Raises:
        InputError: naming the network.
    """
    if not channels or any(count < 8 or count % 8 for count in channels):
        raise InputError(f"channels of {name}", expected="multiples of 8, one for each stage", got=str(list(channels)))


class ImageEncoder(nn.Module):
    """Images [B, 3, Y, X] → L vectors of D numbers [B, L, D], the places of a grid row by row.

    Of a network that answers with a map [B, D, Y', X'], L = Y'·X'. Of one that answers with tokens [B, N, D], those
    before the places of the image (class token, registers) are dropped: as many as N is larger than the number of
    patches that the network's patch size yields; without a patch size, one if N - 1 is a square and N is not.

    A frozen network has no gradients and stays in evaluation mode, whatever `train` says, so its batch-norm
    statistics stay too. In a network that is fine-tuned, batch-norm layers keep the statistics that they came with:
    those of small batches would be worse, and folded ones would be lost.

    Args:
        name: ``small_cnn`` or ``local_cnn``, which start from random weights, or a vision model of `transformers`: a
            local folder or the id of a model of the Hugging Face Hub, with safetensors weights.
        image_size: pixels on a side.
        frozen: keep the weights as they came. None freezes a pretrained network, and no other.
        channels: of the stages of ``small_cnn`` or ``local_cnn``.
        config: what `settings` gave for a pretrained network: it is built from this, and its weights come from
            wherever the encoder's own do; neither folder nor Hub is asked.

    Raises:
        InputError: if there is no such model, it is no vision model, it does not take images of this size, or
            `transformers` is not installed.
    """

    def __init__(
        self,
        *,
        name: str = SMALL_CNN,
        image_size: int,
        frozen: bool | None = None,
        channels: Sequence[int] = (32, 64, 128),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.image_size = image_size
        self.frozen = name not in OWN_NETWORKS if frozen is None else frozen
        self.channels = list(channels)
        self.config = None if config is None else dict(config)
        if name in OWN_NETWORKS:
            self.network: nn.Module = OWN_NETWORKS[name](channels)
        else:
            self.network, self.config = load_network(name, self.config)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster
        accepted = inspect.signature(self.network.forward).parameters
        self._arguments = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}
        self.eval()
        try:
            with torch.enable_grad():
                grid = self._grid(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"image encoder {name}",
                expected=f"one that takes images of {image_size} × {image_size}",
                got=str(error).splitlines()[0],
                fix="choose another --data.image_size",
            ) from error
        self.region_count, self.output_size = grid.shape[1], grid.shape[2]  # L, D
        grid.sum().backward()
        self.unused = [key for key, value in self.network.named_parameters() if value.grad is None]  # of poolers
        for key, value in self.network.named_parameters():
            value.grad = None
            value.requires_grad_(not self.frozen and key not in self.unused)
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Return the vectors [B, L, D] of normalised images [B, 3, Y, X]."""
        if self.frozen:
            with torch.no_grad():
                return self._grid(images)
        return self._grid(images)

    def train(self, mode: bool = True) -> ImageEncoder:
        """Set training mode, except in a frozen network, and in batch-norm layers."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        for module in self.network.modules():
            if isinstance(module, BATCH_NORMS):
                module.eval()
        return self

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the grid; None if the places are no square."""
        side = math.isqrt(self.region_count)
        return (side, side) if side * side == self.region_count else None

    def settings(self) -> dict[str, Any]:
        """Return JSON values from which the same network is built without files; the weights are apart."""
        return {"name": self.name, "frozen": self.frozen, "channels": self.channels, "config": self.config}

    def checksum(self) -> str:
        """Return the SHA-256 of what the network is and of the weights that it uses."""
        digest = hashlib.sha256(json.dumps([self.name, self.channels, self.config], sort_keys=True).encode())
        for name, value in sorted(self.network.state_dict().items()):
            if name in self.unused:  # a checkpoint may lack them: they are random then
                continue
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _grid(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        if self.name in OWN_NETWORKS:
            found = self.network(images)
        else:
            found = self.network(pixel_values=images, **self._arguments).last_hidden_state
        if found.dim() == 4:
            return found.flatten(2).transpose(1, 2)  # [B, L, D]
        return found[:, self._extra_tokens(found.shape[1], images) :]  # [B, L, D]

    def _extra_tokens(self, count: int, images: Tensor) -> int:
        patch = (self.config or {}).get("patch_size")
        if isinstance(patch, int):
            places = (images.shape[2] // patch) * (images.shape[3] // patch)
            return max(0, count - places)
        return int(not is_square(count) and is_square(count - 1))


def is_square(count: int) -> bool:
    """Return whether a number is a square."""
    return count >= 0 and math.isqrt(count) ** 2 == count


def load_network(name: str, config: Mapping[str, Any] | None) -> tuple[nn.Module, dict[str, Any]]:
    """Return a vision model of `transformers` with what its configuration says, as JSON values.

    Of a model of images and texts (CLIP, SigLIP), the part for images is taken. Code that a folder or a repository
    holds is never run.

    Args:
        name: a folder, or the id of a model of the Hub.
        config: the configuration of a network without weights; None loads both from `name`.

    Raises:
        InputError: if it cannot be had.
    """
    try:
        from transformers import AutoConfig, AutoModel
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise InputError(
            f"image encoder {name}", expected="the package transformers", got="none", fix="pip install rnnzoo[vision]"
        ) from error
    disable_progress_bar()
    try:
        if config is not None:
            values = stored_config(config)
            kind = check_type(values.pop("model_type", None), name)
            model = AutoModel.from_config(AutoConfig.for_model(kind, **values), trust_remote_code=False)
        else:
            if Path(name).exists() and not (Path(name) / "config.json").is_file():
                raise OSError("no config.json in it")
            settings = AutoConfig.from_pretrained(name, trust_remote_code=False)
            check_type(settings.model_type, name)
            model = AutoModel.from_pretrained(name, config=settings, use_safetensors=True, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # the Hub client raises many kinds, all with the reason in the first line
        reason = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"image encoder {name}",
            expected=f"{SMALL_CNN!r}, {LOCAL_CNN!r}, or a vision model of transformers with safetensors weights",
            got=f"{type(error).__name__}: {reason[:200]}",
            fix="check name and network",
        ) from error
    network = getattr(model, "vision_model", model)
    if "pixel_values" not in inspect.signature(network.forward).parameters:
        raise InputError(f"image encoder {name}", expected="a model that takes images", got=f"{type(model).__name__}")
    found = network.config if config is None else model.config
    values = json.loads(json.dumps(found.to_diff_dict() | {"model_type": found.model_type}))
    return network, stored_config(values)


def check_type(kind: Any, name: str) -> str:
    """Return the type of a network of `transformers` if it is one of `VISION_MODELS`.

    Raises:
        InputError: if it is none.
    """
    if kind not in VISION_MODELS:
        expected = f"a model that takes images, of a model_type among {', '.join(VISION_MODELS)}"
        raise InputError(f"image encoder {name}", expected=expected, got=repr(kind))
    return str(kind)


def stored_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a network without what could load code or files, and without names of files.

    Raises:
        InputError: for a number that no network has: `transformers` makes lists of such lengths.

    >>> stored_config({"model_type": "vit", "auto_map": {"AutoModel": "model.Evil"}, "_name_or_path": "folder"})
    {'model_type': 'vit'}
    """
    kept = {name: value for name, value in config.items() if not name.startswith("_") and name not in UNSAFE}
    for name, value in kept.items():
        if isinstance(value, Mapping):
            kept[name] = stored_config(value)
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not abs(number) <= LARGEST:
                raise InputError(f"image.config.{name}", expected=f"numbers up to {LARGEST:,}", got=str(number))
    return kept
