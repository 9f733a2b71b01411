"""How long augmentation takes for one batch on one CPU thread, beside MONAI and a grouped convolution.

Run: python benchmarks/augmentation.py [--repeats 50]
"""

import argparse
import time
from collections.abc import Callable
from statistics import mean, median

import torch
from monai.transforms import Compose, Rand2DElasticd, RandAdjustContrastd, RandAffined, RandGaussianNoised
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu

from fedmodal.augment.base import BaseAugmentation, BaseAugmentationConfig
from fedmodal.augment.gin import GIN, GINDraw, apply_gin

SHAPE = (8, 1, 128, 128)
SEED = 42


def milliseconds(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and mean of one call, the first left out."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return median(times), mean(times)


def monai_base(config: BaseAugmentationConfig) -> Compose:
    """MONAI's dictionary transforms with the ranges of our base augmentation."""
    keys, modes, low = ["image", "label"], ["bilinear", "nearest"], config.scale[0] - 1
    turn, move = torch.pi * config.rotation / 180, config.translation * SHAPE[2]
    spacing = config.elastic_spacing * SHAPE[2]
    affine = {
        "rotate_range": turn,
        "shear_range": (config.shear, config.shear),
        "translate_range": (move, move),
        "scale_range": ((low, config.scale[1] - 1),) * 2,
        "mode": modes,
        "padding_mode": "zeros",
    }
    return Compose(
        [
            RandAffined(keys, prob=config.affine_prob, **affine),
            Rand2DElasticd(
                keys, (spacing, spacing), (1, 2), prob=config.elastic_prob, mode=modes, padding_mode="zeros"
            ),
            RandAdjustContrastd("image", prob=config.gamma_prob, gamma=config.gamma),
            RandGaussianNoised("image", prob=config.noise_prob, std=config.noise),
        ]
    ).set_random_state(SEED)


def monai_batch(transform: Compose, images: Tensor, labels: Tensor) -> Tensor:
    items = [
        transform({"image": image, "label": label[None]}) for image, label in zip(images, labels, strict=True)
    ]
    return torch.stack([item["image"].as_tensor() for item in items])


def gin_grouped(images: Tensor, draw: GINDraw) -> Tensor:
    """GIN by grouped convolutions, all samples in one call."""
    samples = len(images)
    features = images
    for layer, (kernels, shifts) in enumerate(zip(draw.kernels, draw.shifts, strict=True)):
        features = leaky_relu(features, 0.01) if layer else features
        folded = features.reshape(1, -1, *images.shape[2:])
        radius = kernels.shape[-1] // 2
        features = conv2d(folded, kernels.flatten(0, 1), shifts.flatten(), padding=radius, groups=samples)
        features = features.view(samples, -1, *images.shape[2:])
    mixed = torch.lerp(images, features, draw.alphas[:, None, None, None])
    ratio: Tensor = images.flatten(1).norm(dim=1) / (mixed.flatten(1).norm(dim=1) + 1e-5)
    return ratio[:, None, None, None] * mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    images = torch.rand(SHAPE, generator=generator)
    labels = torch.randint(0, 7, (SHAPE[0], *SHAPE[2:]), generator=generator, dtype=torch.uint8)
    config = BaseAugmentationConfig(contrast_prob=0, blur_prob=0)
    base, everything = BaseAugmentation(config), BaseAugmentation(BaseAugmentationConfig())
    gin, shared, chain = GIN(), GIN(share_kernels=True), monai_base(config)
    draws = [gin.draw(SHAPE, generator) for _ in range(repeats + 1)]
    ours, theirs = iter(draws), iter(draws)
    rows = {
        "base, all effects": lambda: everything(images, labels, generator),
        "base, MONAI's effects": lambda: base(images, labels, generator),
        "MONAI, sample by sample": lambda: monai_batch(chain, images, labels),
        "GIN": lambda: apply_gin(images, next(ours)),
        "GIN, grouped convolution": lambda: gin_grouped(images, next(theirs)),
        "GIN, draw included": lambda: gin(images, generator),
        "GIN, shared kernels": lambda: shared(images, generator),
    }
    print(f"{SHAPE[0]} images of {SHAPE[1:]}, one thread, {repeats} batches")
    print(f"{'':26}  median ms   mean ms")
    results = {name: milliseconds(work, repeats) for name, work in rows.items()}
    for name, (middle, average) in results.items():
        print(f"{name:26} {middle:10.2f} {average:9.2f}")
    base_gain = results["MONAI, sample by sample"][1] / results["base, MONAI's effects"][1]
    gin_gain = results["GIN, grouped convolution"][1] / results["GIN"][1]
    print(f"MONAI / base: {base_gain:.1f}; grouped convolution / GIN: {gin_gain:.1f}")


if __name__ == "__main__":
    main()
