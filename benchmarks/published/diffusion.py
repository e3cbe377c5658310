"""Latent diffusion (Rombach et al., 2022): the autoencoder, and the denoising U-Net with attention to a context."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ---- the autoencoder (CompVis/latent-diffusion, ldm/modules/diffusionmodules/model.py) ----


def nonlinearity(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)  # swish


def normalize(channels: int, groups: int) -> nn.Module:
    return nn.GroupNorm(groups, channels, eps=1e-6, affine=True)


class VAEResnetBlock(nn.Module):
    def __init__(
        self, *, in_channels: int, out_channels: int | None = None, temb_channels: int = 0, groups: int = 4
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        out_channels = in_channels if out_channels is None else out_channels
        self.out_channels, self.use_conv_shortcut = out_channels, False
        self.norm1, self.conv1 = normalize(in_channels, groups), nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        if temb_channels > 0:
            self.temb_proj = nn.Linear(temb_channels, out_channels)
        self.norm2, self.dropout = normalize(out_channels, groups), nn.Dropout(0.0)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        if self.in_channels != self.out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        h = x
        h = self.norm1(h)
        h = nonlinearity(h)
        h = self.conv1(h)
        if temb is not None:
            h = h + self.temb_proj(nonlinearity(temb))[:, :, None, None]
        h = self.norm2(h)
        h = nonlinearity(h)
        h = self.dropout(h)
        h = self.conv2(h)
        if self.in_channels != self.out_channels:
            x = self.conv_shortcut(x) if self.use_conv_shortcut else self.nin_shortcut(x)
        return x + h


class AttnBlock(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = normalize(channels, groups)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h_ = self.norm(x)
        q, k, v = self.q(h_), self.k(h_), self.v(h_)
        b, c, h, w = q.shape
        q = q.reshape(b, c, h * w).permute(0, 2, 1)
        w_ = torch.bmm(q, k.reshape(b, c, h * w)) * (int(c) ** (-0.5))
        w_ = F.softmax(w_, dim=2).permute(0, 2, 1)
        h_ = torch.bmm(v.reshape(b, c, h * w), w_).reshape(b, c, h, w)
        return x + self.proj_out(h_)


class Downsample(nn.Module):
    def __init__(self, channels: int, with_conv: bool = True) -> None:
        super().__init__()
        self.with_conv = with_conv
        if self.with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        if self.with_conv:
            return self.conv(F.pad(x, (0, 1, 0, 1), mode="constant", value=0))
        return F.avg_pool2d(x, 2, 2)


class Upsample(nn.Module):
    def __init__(self, channels: int, with_conv: bool = True) -> None:
        super().__init__()
        self.with_conv = with_conv
        if self.with_conv:
            self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.with_conv:
            x = self.conv(x)
        return x


class Middle(nn.Module):
    """A plain nn.Module in the original, without a forward: its modules are called by whoever has it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = VAEResnetBlock(in_channels=channels, groups=groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = VAEResnetBlock(in_channels=channels, groups=groups)


class Level(nn.Module):
    """The blocks of one resolution, as `Middle`."""

    def __init__(self, channels: int, out: int, blocks: int, groups: int) -> None:
        super().__init__()
        sizes = [channels, *[out] * blocks]
        self.block = nn.ModuleList(
            VAEResnetBlock(in_channels=a, out_channels=b, groups=groups) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.attn = nn.ModuleList()


class Encoder(nn.Module):
    def __init__(self, f: int, mult: tuple[int, ...], blocks: int, z_channels: int, groups: int) -> None:
        super().__init__()
        self.num_resolutions, self.num_res_blocks, self.temb_ch = len(mult), blocks, 0
        self.conv_in, self.down = nn.Conv2d(3, f, 3, 1, 1), nn.ModuleList()
        channels = [f, *(f * m for m in mult)]
        for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            level = Level(before, after, blocks, groups)
            if i != len(mult) - 1:
                level.downsample = Downsample(after)
            self.down.append(level)
        self.mid, self.norm_out = Middle(channels[-1], groups), normalize(channels[-1], groups)
        self.conv_out = nn.Conv2d(channels[-1], 2 * z_channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        temb = None
        hs = [self.conv_in(x)]
        for i_level in range(self.num_resolutions):
            for i_block in range(self.num_res_blocks):
                h = self.down[i_level].block[i_block](hs[-1], temb)
                if len(self.down[i_level].attn) > 0:
                    h = self.down[i_level].attn[i_block](h)
                hs.append(h)
            if i_level != self.num_resolutions - 1:
                hs.append(self.down[i_level].downsample(hs[-1]))
        h = hs[-1]
        h = self.mid.block_1(h, temb)
        h = self.mid.attn_1(h)
        h = self.mid.block_2(h, temb)
        return self.conv_out(nonlinearity(self.norm_out(h)))


class Decoder(nn.Module):
    def __init__(self, f: int, mult: tuple[int, ...], blocks: int, z_channels: int, groups: int) -> None:
        super().__init__()
        self.num_resolutions, self.num_res_blocks = len(mult), blocks
        self.give_pre_end, self.tanh_out = False, False
        channels = [f * mult[-1], *(f * m for m in reversed(mult))]  # from the smallest pictures on
        self.conv_in, self.mid = nn.Conv2d(z_channels, channels[0], 3, 1, 1), Middle(channels[0], groups)
        self.up = nn.ModuleList()
        for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            level = Level(before, after, blocks + 1, groups)
            if i != len(mult) - 1:
                level.upsample = Upsample(after)
            self.up.insert(0, level)
        self.norm_out, self.conv_out = normalize(channels[-1], groups), nn.Conv2d(channels[-1], 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        temb = None
        h = self.conv_in(z)
        h = self.mid.block_1(h, temb)
        h = self.mid.attn_1(h)
        h = self.mid.block_2(h, temb)
        for i_level in reversed(range(self.num_resolutions)):
            for i_block in range(self.num_res_blocks + 1):
                h = self.up[i_level].block[i_block](h, temb)
                if len(self.up[i_level].attn) > 0:
                    h = self.up[i_level].attn[i_block](h)
            if i_level != 0:
                h = self.up[i_level].upsample(h)
        if self.give_pre_end:
            return h
        h = self.norm_out(h)
        h = nonlinearity(h)
        h = self.conv_out(h)
        if self.tanh_out:
            h = torch.tanh(h)
        return h


class AutoencoderKL(nn.Module):
    """As published for a factor of 8: 128 channels times (1, 2, 4, 4), 2 blocks, 4 latent channels, 32 groups."""

    def __init__(
        self, f: int = 24, mult: tuple[int, ...] = (1, 2), blocks: int = 1, z_channels: int = 4, groups: int = 4
    ) -> None:
        super().__init__()
        self.encoder = Encoder(f, mult, blocks, z_channels, groups)
        self.decoder = Decoder(f, mult, blocks, z_channels, groups)
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * z_channels, 1)
        self.post_quant_conv = nn.Conv2d(z_channels, z_channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """The mode of the posterior, decoded."""
        mean, _ = self.quant_conv(self.encoder(input)).chunk(2, dim=1)
        return self.decoder(self.post_quant_conv(mean))


# ---- the U-Net (ldm/modules/diffusionmodules/openaimodel.py, ldm/modules/attention.py) ----


class TimestepBlock(nn.Module):
    """A module that takes the embedding of the time, too."""


class UNetUpsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.use_conv, self.conv = channels, True, nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        if self.use_conv:
            x = self.conv(x)
        return x


class UNetDownsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.op = channels, nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels
        return self.op(x)


class ResBlock(TimestepBlock):
    def __init__(self, channels: int, emb_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.updown, self.use_scale_shift_norm = False, False
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, out_channels), nn.SiLU(), nn.Dropout(0.0),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )  # fmt: skip
        same = out_channels == channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        if self.updown:
            raise NotImplementedError
        h = self.in_layers(x)
        emb_out = self.emb_layers(emb).type(h.dtype)
        while len(emb_out.shape) < len(h.shape):
            emb_out = emb_out[..., None]
        if self.use_scale_shift_norm:
            out_norm, out_rest = self.out_layers[0], self.out_layers[1:]
            scale, shift = torch.chunk(emb_out, 2, dim=1)
            h = out_norm(h) * (1 + scale) + shift
            h = out_rest(h)
        else:
            h = h + emb_out
            h = self.out_layers(h)
        return self.skip_connection(x) + h


class CrossAttention(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, channels, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (
            self.to_q(x), self.to_k(context), self.to_v(context)
        ))  # fmt: skip
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(out.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, out * 2)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class BasicTransformerBlock(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.attn1, self.attn2 = CrossAttention(channels, channels, heads), CrossAttention(channels, context, heads)
        self.ff = nn.Sequential(GEGLU(channels, 4 * channels), nn.Dropout(0.0), nn.Linear(4 * channels, channels))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context=context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, context: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm, self.proj_in = normalize(channels, groups), nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(channels, context, heads)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        _, _, h, w = x.shape
        x_in = x
        x = self.proj_in(self.norm(x))
        x = x.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            x = block(x, context=context)
        x = x.transpose(1, 2).unflatten(2, (h, w))
        return self.proj_out(x) + x_in


class TimestepEmbedSequential(nn.Sequential, TimestepBlock):
    def forward(self, x: Tensor, emb: Tensor, context: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, TimestepBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


def timestep_embedding(timesteps: Tensor, dim: int, max_period: int = 10000) -> Tensor:
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32) / half)
    args = timesteps[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


class UNetModel(nn.Module):
    """As published for inpainting with a text's embedding (Stable Diffusion v1): 9 channels of input (the latent, the
    mask and the masked picture's latent), 320 channels times (1, 2, 4, 4), 2 blocks, attention down to the 4th part of
    a side, a context of 768, 8 heads, 32 groups."""

    def __init__(
        self, in_channels: int = 9, f: int = 24, mult: tuple[int, ...] = (1, 2), blocks: int = 1,
        attention: tuple[int, ...] = (1, 2), context: int = 12, heads: int = 2, groups: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model_channels, self.dtype, emb = f, torch.float32, 4 * f
        self.time_embed = nn.Sequential(nn.Linear(f, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.input_blocks = nn.ModuleList([TimestepEmbedSequential(nn.Conv2d(in_channels, f, 3, padding=1))])
        skips, ch, ds = [f], f, 1

        def layers(channels: int, out: int) -> list[nn.Module]:
            found: list[nn.Module] = [ResBlock(channels, emb, out, groups)]
            return [*found, SpatialTransformer(out, context, heads, groups)] if ds in attention else found

        for level, m in enumerate(mult):
            for _ in range(blocks):
                self.input_blocks.append(TimestepEmbedSequential(*layers(ch, m * f)))
                ch = m * f
                skips.append(ch)
            if level != len(mult) - 1:
                self.input_blocks.append(TimestepEmbedSequential(UNetDownsample(ch)))
                skips.append(ch)
                ds *= 2
        self.middle_block = TimestepEmbedSequential(
            ResBlock(ch, emb, ch, groups), SpatialTransformer(ch, context, heads, groups), ResBlock(ch, emb, ch, groups)
        )
        self.output_blocks = nn.ModuleList()
        for level, m in reversed(list(enumerate(mult))):
            for i in range(blocks + 1):
                made = layers(ch + skips.pop(), m * f)
                ch = m * f
                if level and i == blocks:
                    made.append(UNetUpsample(ch))
                    ds //= 2
                self.output_blocks.append(TimestepEmbedSequential(*made))
        self.out = nn.Sequential(nn.GroupNorm(groups, ch), nn.SiLU(), nn.Conv2d(f, 4, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        hs = []
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).type(x.dtype))
        h = x
        for module in self.input_blocks:
            h = module(h, emb, context)
            hs.append(h)
        h = self.middle_block(h, emb, context)
        for module in self.output_blocks:
            h = torch.cat([h, hs.pop()], dim=1)
            h = module(h, emb, context)
        return self.out(h)
