"""Networks, one file a system, named as the field names it. No training, no files, no devices in here."""

from inpaint_fast.models.glcic import CompletionNetwork, ContextDiscriminator, GlobalDiscriminator, LocalDiscriminator
from inpaint_fast.models.unet_wgan import UNetGenerator, WassersteinCritic

# Every network that a weight file may name.
NETWORKS = {
    network.__name__: network
    for network in (
        UNetGenerator, WassersteinCritic, CompletionNetwork, LocalDiscriminator, GlobalDiscriminator,
        ContextDiscriminator,
    )
}  # fmt: skip

__all__ = ["NETWORKS", *NETWORKS]
