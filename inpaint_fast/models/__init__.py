"""Networks, one file a system, named as the field names it. No training, no files, no devices in here."""

from inpaint_fast.models.centre import CentreGenerator
from inpaint_fast.models.context_cnn import ContextCNN
from inpaint_fast.models.context_gan import ContextCritic, NoiseGenerator
from inpaint_fast.models.dcgan import DCGANCritic, DCGANGenerator
from inpaint_fast.models.glcic import CompletionNetwork, ContextDiscriminator, GlobalDiscriminator, LocalDiscriminator
from inpaint_fast.models.latent_gan import ConvAutoencoder, LatentCritic, LatentDecoder, LatentGenerator
from inpaint_fast.models.mlp_gan import MLPCritic, MLPGenerator
from inpaint_fast.models.residual import ResidualCompletionNetwork
from inpaint_fast.models.unet_wgan import UNetGenerator, WassersteinCritic
from inpaint_fast.models.unet_wgan_caption import CaptionUNetGenerator

# Every network that a weight file may name.
NETWORKS = {
    network.__name__: network
    for network in (
        CaptionUNetGenerator, CompletionNetwork, ContextCNN, ContextCritic, ContextDiscriminator, ConvAutoencoder,
        DCGANCritic, DCGANGenerator, GlobalDiscriminator, LatentCritic, LatentDecoder, LatentGenerator,
        LocalDiscriminator, MLPCritic, MLPGenerator, NoiseGenerator, ResidualCompletionNetwork, UNetGenerator,
        WassersteinCritic,
    )
}  # fmt: skip

__all__ = [  # spelt out: type checkers do not run it
    "NETWORKS", "CaptionUNetGenerator", "CentreGenerator", "CompletionNetwork", "ContextCNN", "ContextCritic",
    "ContextDiscriminator", "ConvAutoencoder", "DCGANCritic", "DCGANGenerator", "GlobalDiscriminator", "LatentCritic",
    "LatentDecoder", "LatentGenerator", "LocalDiscriminator", "MLPCritic", "MLPGenerator", "NoiseGenerator",
    "ResidualCompletionNetwork", "UNetGenerator", "WassersteinCritic",
]  # fmt: skip
