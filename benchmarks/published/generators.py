"""Generators and discriminators: pix2pix, CycleGAN, PatchGAN, LaMa."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ---- pix2pix and CycleGAN (junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py) ----


class UnetSkipConnectionBlock(nn.Module):
    def __init__(
        self, outer: int, inner: int, submodule: nn.Module | None = None, outermost: bool = False,
        innermost: bool = False, input_nc: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.outermost = outermost
        downconv = nn.Conv2d(outer if input_nc is None else input_nc, inner, 4, stride=2, padding=1, bias=False)
        downrelu, downnorm = nn.LeakyReLU(0.2, True), nn.BatchNorm2d(inner)
        uprelu, upnorm = nn.ReLU(True), nn.BatchNorm2d(outer)
        if outermost:
            upconv = nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1)
            model = [downconv, submodule, uprelu, upconv, nn.Tanh()]
        elif innermost:
            upconv = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False)
            model = [downrelu, downconv, uprelu, upconv, upnorm]
        else:
            upconv = nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1, bias=False)
            model = [downrelu, downconv, downnorm, submodule, uprelu, upconv, upnorm]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)
        else:  # add skip connections
            return torch.cat([x, self.model(x)], 1)


class Pix2PixGenerator(nn.Module):
    """UnetGenerator; as published for 256x256: 64 channels, times (1, 2, 4, 8, 8, 8, 8, 8) after each halving."""

    def __init__(self, f: int = 24, mult: tuple[int, ...] = (1, 1, 1)) -> None:
        super().__init__()
        *outer, last = (f * m for m in mult)
        block = UnetSkipConnectionBlock(outer[-1], last, innermost=True)
        for a, b in reversed(list(zip(outer, outer[1:], strict=False))):
            block = UnetSkipConnectionBlock(a, b, submodule=block)
        self.model = UnetSkipConnectionBlock(3, outer[0], submodule=block, outermost=True, input_nc=3)

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class ResnetBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3, padding=0, bias=False), nn.BatchNorm2d(dim), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3, padding=0, bias=False), nn.BatchNorm2d(dim),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out = x + self.conv_block(x)  # add skip connections
        return out


class CycleGANGenerator(nn.Module):
    """ResnetGenerator; as published for 256x256: 64 channels, 9 blocks, 2 halvings."""

    def __init__(self, f: int = 24, blocks: int = 1, halvings: int = 1) -> None:
        super().__init__()
        model = [nn.ReflectionPad2d(3), nn.Conv2d(3, f, 7, padding=0, bias=False), nn.BatchNorm2d(f), nn.ReLU(True)]
        for i in range(halvings):
            c = f * 2**i
            model += [nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(2 * c), nn.ReLU(True)]
        model += [ResnetBlock(f * 2**halvings) for _ in range(blocks)]
        for i in range(halvings, 0, -1):
            c = f * 2**i
            model += [
                nn.ConvTranspose2d(c, c // 2, 3, stride=2, padding=1, output_padding=1, bias=False),
                nn.BatchNorm2d(c // 2),
                nn.ReLU(True),
            ]
        self.model = nn.Sequential(*model, nn.ReflectionPad2d(3), nn.Conv2d(f, 3, 7, padding=0), nn.Tanh())

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class PatchGAN(nn.Module):
    """NLayerDiscriminator."""

    def __init__(self, f: int = 24, layers: int = 2, norm_layer: type | functools.partial = nn.BatchNorm2d) -> None:
        super().__init__()
        use_bias = norm_layer is not nn.BatchNorm2d
        sequence: list[nn.Module] = [nn.Conv2d(3, f, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        for n in range(1, layers):
            sequence += [
                nn.Conv2d(f * n, f * 2 * n, 4, 2, 1, bias=use_bias),
                norm_layer(f * 2 * n),
                nn.LeakyReLU(0.2, True),
            ]
        sequence += [nn.Conv2d(2 * f, 2 * f, 4, 1, 1, bias=use_bias), norm_layer(2 * f), nn.LeakyReLU(0.2, True)]
        self.model = nn.Sequential(*sequence, nn.Conv2d(2 * f, 1, 4, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


# ---- LaMa (advimman/lama, saicinpainting/training/modules/ffc.py) ----


class FourierUnit(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(channels * 2, out * 2, 1, bias=False)
        self.bn, self.relu = nn.BatchNorm2d(out * 2), nn.ReLU(inplace=True)
        self.spatial_scale_factor, self.use_se, self.fft_norm = None, False, "ortho"

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        if self.spatial_scale_factor is not None:
            x = F.interpolate(x, scale_factor=self.spatial_scale_factor)
        ffted = torch.fft.rfftn(x, dim=(-2, -1), norm=self.fft_norm)
        ffted = torch.stack((ffted.real, ffted.imag), dim=-1).permute(0, 1, 4, 2, 3).contiguous()
        ffted = ffted.view((batch, -1) + ffted.size()[3:])
        ffted = self.relu(self.bn(self.conv_layer(ffted)))
        ffted = ffted.view((batch, -1, 2) + ffted.size()[2:]).permute(0, 1, 3, 4, 2).contiguous()
        ffted = torch.complex(ffted[..., 0], ffted[..., 1])
        return torch.fft.irfftn(ffted, s=x.shape[-2:], dim=(-2, -1), norm=self.fft_norm)


class SpectralTransform(nn.Module):
    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.downsample = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels, out // 2, 1, bias=False), nn.BatchNorm2d(out // 2), nn.ReLU(inplace=True)
        )
        self.fu, self.conv2, self.enable_lfu = FourierUnit(out // 2, out // 2), nn.Conv2d(out // 2, out, 1), False

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.downsample(x))
        output = self.fu(x)
        if self.enable_lfu:
            raise NotImplementedError
        return self.conv2(x + output)


class FFC(nn.Module):
    def __init__(
        self, channels: int, out: int, ratio_in: float, ratio_out: float, *, kernel: int = 3, stride: int = 1,
        padding: int = 1, padding_mode: str = "zeros", gated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        in_cg, out_cg = int(channels * ratio_in), int(out * ratio_out)
        in_cl, out_cl = channels - in_cg, out - out_cg
        self.ratio_gin, self.ratio_gout, self.gated = ratio_in, ratio_out, gated

        def convolution(a: int, b: int) -> nn.Module:
            if a == 0 or b == 0:
                return nn.Identity()
            return nn.Conv2d(a, b, kernel, stride, padding, bias=False, padding_mode=padding_mode)

        self.convl2l, self.convl2g = convolution(in_cl, out_cl), convolution(in_cl, out_cg)
        self.convg2l = convolution(in_cg, out_cl)
        self.convg2g = nn.Identity() if in_cg == 0 or out_cg == 0 else SpectralTransform(in_cg, out_cg, stride)
        self.gate = nn.Conv2d(channels, 2, 1) if gated else nn.Identity()

    def forward(self, x: Tensor | tuple) -> tuple:
        x_l, x_g = x if type(x) is tuple else (x, 0)
        out_xl, out_xg = 0, 0
        if self.gated:
            gates = torch.sigmoid(self.gate(torch.cat([x_l, x_g], dim=1)))
            g2l_gate, l2g_gate = gates.chunk(2, dim=1)
        else:
            g2l_gate, l2g_gate = 1, 1
        if self.ratio_gout != 1:
            out_xl = self.convl2l(x_l) + self.convg2l(x_g) * g2l_gate
        if self.ratio_gout != 0:
            out_xg = self.convl2g(x_l) * l2g_gate + self.convg2g(x_g)
        return out_xl, out_xg


class FFCBatchNormAct(nn.Module):
    def __init__(self, channels: int, out: int, ratio_in: float, ratio_out: float, **settings) -> None:
        super().__init__()
        self.ffc = FFC(channels, out, ratio_in, ratio_out, **settings)
        globally = int(out * ratio_out)
        self.bn_l = nn.Identity() if ratio_out == 1 else nn.BatchNorm2d(out - globally)
        self.bn_g = nn.Identity() if ratio_out == 0 else nn.BatchNorm2d(globally)
        self.act_l = nn.Identity() if ratio_out == 1 else nn.ReLU(inplace=True)
        self.act_g = nn.Identity() if ratio_out == 0 else nn.ReLU(inplace=True)

    def forward(self, x: Tensor | tuple) -> tuple:
        x_l, x_g = self.ffc(x)
        x_l = self.act_l(self.bn_l(x_l))
        x_g = self.act_g(self.bn_g(x_g))
        return x_l, x_g


class FFCResnetBlock(nn.Module):
    def __init__(self, dim: int, ratio: float, padding_mode: str) -> None:
        super().__init__()
        self.conv1 = FFCBatchNormAct(dim, dim, ratio, ratio, padding_mode=padding_mode)
        self.conv2 = FFCBatchNormAct(dim, dim, ratio, ratio, padding_mode=padding_mode)
        self.inline = False

    def forward(self, x: tuple) -> tuple:
        x_l, x_g = x if type(x) is tuple else (x, 0)
        id_l, id_g = x_l, x_g
        x_l, x_g = self.conv1((x_l, x_g))
        x_l, x_g = self.conv2((x_l, x_g))
        return id_l + x_l, id_g + x_g


class ConcatTupleLayer(nn.Module):
    def forward(self, x: tuple) -> Tensor:
        assert isinstance(x, tuple)
        x_l, x_g = x
        assert torch.is_tensor(x_l) or torch.is_tensor(x_g)
        return x_l if not torch.is_tensor(x_g) else torch.cat(x, dim=1)


class LaMa(nn.Module):
    """FFCResNetGenerator; big-lama: 64 channels, 18 blocks, 3 halvings, a global ratio of 0.75, "reflect"."""

    def __init__(
        self, f: int = 24, blocks: int = 1, halvings: int = 1, ratio: float = 0.5, padding_mode: str = "zeros"
    ) -> None:
        super().__init__()
        same = {"padding_mode": padding_mode}
        model: list[nn.Module] = [nn.ReflectionPad2d(3), FFCBatchNormAct(4, f, 0, 0, kernel=7, padding=0, **same)]
        for i in range(halvings):
            c, share = f * 2**i, ratio if i == halvings - 1 else 0
            model.append(FFCBatchNormAct(c, 2 * c, 0, share, stride=2, **same))
        model += [FFCResnetBlock(f * 2**halvings, ratio, padding_mode) for _ in range(blocks)]
        model.append(ConcatTupleLayer())
        for i in range(halvings, 0, -1):
            c = f * 2**i
            model += [nn.ConvTranspose2d(c, c // 2, 3, 2, 1, 1), nn.BatchNorm2d(c // 2), nn.ReLU(True)]
        self.model = nn.Sequential(*model, nn.ReflectionPad2d(3), nn.Conv2d(f, 3, 7, padding=0), nn.Sigmoid())

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)
