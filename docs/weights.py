"""Trains the generators that the package ships: `smooth` on reconstruction alone, then `sharp`, from it, with critics.

    python docs/weights.py PHOTOGRAPHS --out runs/weights --steps 6300 --sharp-steps 1250

Writes smooth.safetensors and sharp.safetensors into the folder, and prints every --evaluate-every steps what they gain
over the harmonic fill on photographs that were held out. A CPU core takes two hours; --device cuda trains on a GPU.
inpaint_fast/weights/README.md says what the weights in the package were trained on, and what they reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import tyro
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from inpaint_fast._devices import device_of
from inpaint_fast.completion import complete_batch, harmonic, save_network
from inpaint_fast.data import Batches, ImageFolder, center_square, free_form, heldout_crops, random_rectangle, samples
from inpaint_fast.data.batches import prefetch
from inpaint_fast.models import ResidualCompletionNetwork
from inpaint_fast.training.metrics import hole_metrics

ARGUMENTS = {"channels": 24, "hole": 38}
L1 = 0.02  # weight of the absolute error beside the squared one
NORM = 0.5  # of the generator's gradient, at most


@dataclass
class Options:
    """Train the generators that the package ships."""

    photographs: Annotated[Path, tyro.conf.Positional]
    """Folder of photographs to train on; those of the package are added."""
    out: Path = Path("runs/weights")
    """Folder for smooth.safetensors and sharp.safetensors."""
    heldout: Path | None = None
    """Folder of photographs to measure on, beside those that the package holds out."""
    steps: int = 6300
    """Of `smooth`."""
    sharp_steps: int = 1250
    """Of `sharp`."""
    batch_size: int = 48
    """Crops of 64 pixels in a batch; every fifth batch has crops of 96 pixels, 20 for these 48."""
    lr: float = 1e-3
    """Of AdamW for `smooth`; falls to 0 along a cosine."""
    sharpness: float = 0.6
    """In training; the critics' weight is led there."""
    evaluate_every: int = 500
    device: str = "auto"
    seed: int = 0


class Example(NamedTuple):
    """A batch of crops, their holes (N, 1, H, W) in float32, and the same crops with their holes filled."""

    image: Tensor
    hole: Tensor
    fill: Tensor


def holes(height: int, width: int, generator: Generator) -> Tensor:
    """The centre, one rectangle, several small ones, or brush strokes; 3 to 45 % of the picture."""
    side = min(height, width)
    while True:
        kind = torch.rand((), generator=generator).item()
        if kind < 0.3:
            return center_square(height, width)
        if kind < 0.48:
            mask = random_rectangle(height, width, generator, sides=(19, 38))
        elif kind < 0.6:
            mask = torch.zeros(1, height, width, dtype=torch.bool)
            for _ in range(int(torch.randint(2, 5, (), generator=generator))):
                mask |= random_rectangle(height, width, generator, sides=(side // 10, side // 4))
        else:
            mask = free_form(height, width, generator)
        if 0.03 < mask.float().mean() < 0.45:
            return mask


class Examples:
    """examples[i]: the i-th, always the same; every fifth of larger crops."""

    def __init__(self, options: Options) -> None:
        images = [*ImageFolder(options.photographs), *samples("train")]
        small = {"size": 64, "batch_size": options.batch_size, "crop": (64, 320)}
        large = {"size": 96, "batch_size": max(1, options.batch_size * 20 // 48), "crop": (96, 320)}
        self.sizes = [Batches(images, mask=holes, seed=options.seed, **size) for size in (small, large)]

    def __getitem__(self, index: int) -> Example:
        batch = self.sizes[index % 5 == 4][index]
        return Example(batch.image, batch.mask.float(), harmonic(batch.image, batch.mask))


class Critic(nn.Module):
    """Two judgements of completed pictures (N, 3, H, W) with their holes (N, 1, H, W): local logits (N, 1, H/8, W/8),
    global ones (N, 1). Spectral normalisation: Miyato et al. (2018); patches: Isola et al. (2017), Yu et al. (2019)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        widths = (4, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, 2, 1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(widths[-1], widths[-1], 3, 1, 1)), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.local = spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1))
        self.whole = spectral_norm(nn.Linear(widths[-1], 1))

    def forward(self, picture: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(torch.cat([picture - 0.5, hole], dim=1))
        return self.local(features), self.whole(features.mean(dim=(2, 3)))


def hinge(critic: Critic, real: Tensor, fake: Tensor, hole: Tensor) -> Tensor:
    """The critic's loss, local and global (Lim and Ye, 2017)."""
    weight, on_real, on_fake = F.max_pool2d(hole, 8), critic(real, hole), critic(fake, hole)
    local = (F.relu(1 - on_real[0]) + F.relu(1 + on_fake[0])).mul(weight).sum() / weight.sum()
    return local + F.relu(1 - on_real[1]).mean() + F.relu(1 + on_fake[1]).mean()


def believed(critic: Critic, fake: Tensor, hole: Tensor) -> Tensor:
    """The generator's adversarial loss."""
    weight, (local, whole) = F.max_pool2d(hole, 8), critic(fake, hole)
    return -(local * weight).sum() / weight.sum() - whole.mean()


def reconstruction(error: Tensor, hole: Tensor) -> Tensor:
    """Squared error and a little absolute error, a mean over the holes of the batch."""
    return (error.square().sum() + L1 * error.abs().sum()) / (3 * hole.sum())


class Average:
    """The generator whose weights are an average over the steps, decay at most `most`: what is measured and saved."""

    def __init__(self, network: nn.Module, most: float) -> None:
        self.network, self.most, self.steps = network, most, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        decay, self.steps = min(self.most, (1 + self.steps) / (10 + self.steps)), self.steps + 1
        for mean, value in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


def train_smooth(options: Options, examples: Iterator[Example], measure, device: torch.device) -> nn.Module:
    generator = ResidualCompletionNetwork(**ARGUMENTS).to(device)
    average = Average(ResidualCompletionNetwork(**ARGUMENTS).to(device), 0.999)
    average.network.load_state_dict(generator.state_dict())
    optimizer = torch.optim.AdamW(generator.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    for step, (image, hole, fill) in zip(range(options.steps), examples, strict=False):
        for group in optimizer.param_groups:
            warm = min(1, step / 300)
            group["lr"] = options.lr * max(1e-3, warm * (0.5 + 0.5 * math.cos(math.pi * step / options.steps)))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            correction = generator.correction(fill, hole)
        loss = reconstruction((fill + correction.float() - image) * hole, hole)
        descend(optimizer, loss, generator)
        average.update(generator)
        if (step + 1) % options.evaluate_every == 0 or step + 1 == options.steps:
            measure("smooth", step + 1, average.network)
    return average.network


def train_sharp(
    options: Options, examples: Iterator[Example], measure, device: torch.device, smooth: nn.Module
) -> nn.Module:
    """From `smooth` on; the adversarial weight moves until the holes are as sharp as asked for."""
    generator = ResidualCompletionNetwork(**ARGUMENTS).to(device)
    average = Average(ResidualCompletionNetwork(**ARGUMENTS).to(device), 0.998)
    for network in (generator, average.network):
        network.load_state_dict(smooth.state_dict())
    critic = Critic().to(device)
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.99))
        for network, lr in ((generator, 1e-4), (critic, 4e-4))
    ]
    weight, sharpness = 1e-3, 0.3
    for step, (image, hole, fill) in zip(range(options.sharp_steps), examples, strict=False):
        optimizers[0].param_groups[0]["lr"] = 1e-4 * min(1, 2.02 - 2 * step / options.sharp_steps)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            correction = generator.correction(fill, hole)
        completed = fill + correction.float()
        descend(optimizers[1], hinge(critic, image, completed.detach(), hole))
        critic.requires_grad_(False)
        adversarial = believed(critic, completed, hole)
        critic.requires_grad_(True)
        loss = reconstruction((completed - image) * hole, hole)
        descend(optimizers[0], loss + weight * min(1, (step + 1) / 200) * adversarial, generator)
        average.update(generator)
        now = hole_metrics(completed.detach(), image, hole)["sharpness"].item()
        sharpness += 0.03 * (now - sharpness)
        if step > 150:
            weight = min(max(weight * (1.01 if sharpness < options.sharpness else 0.99), 1e-4), 5e-3)
        if (step + 1) % options.evaluate_every == 0 or step + 1 == options.sharp_steps:
            measure("sharp", step + 1, average.network)
    return average.network


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, clipped: nn.Module | None = None) -> None:
    optimizer.zero_grad()
    loss.backward()
    if clipped is not None:
        nn.utils.clip_grad_norm_(clipped.parameters(), NORM)
    optimizer.step()


class Measure:
    """Prints the gain over the harmonic fill, in dB of the mean squared error, and sharpness, on what is held out."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        places = {"package": samples("heldout")} | ({} if folder is None else {folder.name: ImageFolder(folder)})
        self.sets = {}
        for name, images in places.items():
            for mask in ("center", "free_form"):
                batch = heldout_crops(images, per_image=4 if len(images) > 20 else 32, size=64, mask=mask)
                batch = batch._replace(image=batch.image.to(device), mask=batch.mask.to(device))
                error = hole_metrics(harmonic(batch.image, batch.mask), batch.image, batch.mask)["l2"].item()
                self.sets[name, mask] = batch, error

    def __call__(self, name: str, step: int, generator: nn.Module) -> None:
        for (place, mask), (batch, error) in self.sets.items():
            found = hole_metrics(complete_batch(generator, batch), batch.image, batch.mask)
            gain = 10 * math.log10(error / found["l2"].item())
            psnr, sharpness = -10 * math.log10(error), found["sharpness"].item()
            print(f"{name} {step:6} {place} {mask:9}: harmonic {psnr:.2f} dB {gain:+.2f}, sharpness {sharpness:.2f}")


def main() -> None:
    options = tyro.cli(Options)
    device = device_of(options.device)
    torch.manual_seed(options.seed)
    made = (Example(*(x.to(device) for x in example)) for _, example in prefetch(Examples(options), 0))
    measure = Measure(options.heldout, device)
    smooth = train_smooth(options, made, measure, device)
    save_network(options.out / "smooth.safetensors", smooth.cpu(), ARGUMENTS)
    sharp = train_sharp(options, made, measure, device, smooth.to(device))
    save_network(options.out / "sharp.safetensors", sharp.cpu(), ARGUMENTS)


if __name__ == "__main__":
    main()
