"""An operator in one's own training loop: a small network learns to fill holes on `inpaint_fast.masked_l2`.

python examples/operators_in_your_loop.py --steps 200
"""

import argparse

import torch
from torch import nn

import inpaint_fast as ipf

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=200)
steps = parser.parse_args().steps

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(4, 32, 5, stride=2, padding=2), nn.ReLU(),
    ipf.nn.DilatedConvBlock(32, 32, dilation=1),  # a convolution, its BatchNorm and its ReLU in one pass
    ipf.nn.DilatedConvBlock(32, 32, dilation=2),
    ipf.nn.DilatedConvBlock(32, 32, dilation=4),
    nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1), nn.Sigmoid(),
)  # fmt: skip
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
batches = ipf.data.Batches(ipf.data.samples("train"), batch_size=8, size=64, mask="rectangle", seed=0)

for step in range(steps):
    image, mask, _ = batches[step]  # (8, 3, 64, 64) in [0, 1]; (8, 1, 64, 64) bool, true in the hole
    masked = torch.cat([image.masked_fill(mask, 0.0), mask.float()], dim=1)
    predicted = network(masked)
    # F.mse_loss(predicted * mask, image * mask) and the completed picture, from one pass over the three tensors;
    # the gradient is made in the same pass.
    loss, completed = ipf.masked_l2_composite(predicted, image, mask)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == steps - 1:
        print(f"step {step}: loss {loss.item():.5f}, outside the holes unchanged: "
              f"{torch.equal(completed.masked_fill(mask, 0.0), image.masked_fill(mask, 0.0))}")  # fmt: skip
