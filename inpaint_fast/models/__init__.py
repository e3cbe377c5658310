"""Networks, one file a system, named as the field names it. No training, no files, no devices in here."""

from inpaint_fast.models.centre import CentreGenerator
from inpaint_fast.models.context_cnn import ContextCNN
from inpaint_fast.models.context_gan import ContextCritic, NoiseGenerator
from inpaint_fast.models.unet_wgan import UNetGenerator, WassersteinCritic

# Every network that a weight file may name.
NETWORKS = {
    network.__name__: network
    for network in (ContextCNN, ContextCritic, NoiseGenerator, UNetGenerator, WassersteinCritic)
}

__all__ = ["NETWORKS", "CentreGenerator", *NETWORKS]
