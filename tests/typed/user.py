"""What a user writes: `make lint` has pyright read it, `tests/test_public_names.py` runs it.

`assert_type` fails where the package tells a type checker anything else.
"""

# pyright: standard, reportPrivateImportUsage=true
from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import inpaint_fast as ipf
from inpaint_fast.data import Batches, ImageFolder, read_image, samples
from inpaint_fast.training import UNetL2


def loss_of(pred: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    assert_type(ipf.masked_l2(pred, image, mask, reduction="mask_mean"), Tensor)
    loss, composite = ipf.masked_l2_composite(pred, image, mask)
    return loss + ipf.losses.hole_l2(composite, image, mask, weight=0.5)


def critic_step(critic: ipf.models.WassersteinCritic, real: Tensor, fake: Tensor) -> float:
    opt = ipf.optim.ClippedRMSprop(critic.parameters(), lr=5e-5, clip=0.01)
    loss = ipf.losses.critic_loss(critic(real), critic(fake))
    loss.backward()
    opt.step()
    ipf.clip_weights_(critic.parameters(), 0.01)
    return loss.item()


def accelerated(net: nn.Sequential) -> nn.Sequential:
    return assert_type(ipf.restore(ipf.accelerate(net)), nn.Sequential)


block = ipf.nn.DilatedConvBlock(32, 32, dilation=2, activation="leaky_relu", slope=0.1)
assert_type(ipf.dilated_block(torch.rand(1, 32, 8, 8), torch.rand(32, 32, 3, 3), dilation=2), Tensor)
print(loss_of(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)), block)
print(critic_step(ipf.models.WassersteinCritic(4), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)))
print(accelerated(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())), ipf.ops.backend_of("masked_l2"))
folder: ImageFolder = samples("heldout")
photo = assert_type(read_image(folder.paths[0]), Tensor)
hole = ipf.data.center_square(photo.shape[1], photo.shape[2], 12)
assert_type(ipf.complete(photo, hole, fill="harmonic"), Tensor)
print(Batches(folder, size=32, batch_size=2)[0].image.shape, UNetL2(data=str(Path("photos"))).steps)
