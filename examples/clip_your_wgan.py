"""Clipping in a WGAN that exists already: one line of its training script changes.

    python examples/clip_your_wgan.py --steps 300

The WGAN learns a ring of points. What was there is in the comments: an RMSprop, and after each of its steps a loop over
the critic's parameters. `ClippedRMSprop` does both in one pass over the memory.
"""

import argparse
import math

import torch
from torch import Tensor, nn

from inpaint_fast.optim import ClippedRMSprop

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=300)
steps = parser.parse_args().steps


def ring(count: int) -> Tensor:
    angle = 2 * math.pi * torch.rand(count)
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(count, 2)


torch.manual_seed(0)
generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
critic = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
generator_optimizer = torch.optim.RMSprop(generator.parameters(), lr=5e-4)
# critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-4)
critic_optimizer = ClippedRMSprop(critic.parameters(), lr=5e-4, clip=0.1)

for step in range(steps):
    for _ in range(5):
        real, fake = ring(256), generator(torch.randn(256, 8)).detach()
        critic_loss = critic(fake).mean() - critic(real).mean()
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        # for p in critic.parameters():
        #     p.data.clamp_(-0.1, 0.1)
    fake = generator(torch.randn(256, 8))
    generator_loss = -critic(fake).mean()
    generator_optimizer.zero_grad()
    generator_loss.backward()
    generator_optimizer.step()
    if step % 100 == 0 or step == steps - 1:
        largest = max(p.abs().max().item() for p in critic.parameters())
        print(f"step {step}: distance {-critic_loss.item():.4f}, radius {fake.norm(dim=1).mean().item():.3f}, "
              f"largest critic weight {largest:.3f}")  # fmt: skip
