"""Published architectures, small, in plain torch.nn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3 (Chen et al., 2017), figure 5, and the head's 3x3 convolution."""

    def __init__(self, channels: int = 6, out: int = 8, rates: tuple[int, ...] = (2, 4)) -> None:
        super().__init__()
        pixel = nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        atrous = [
            nn.Sequential(
                nn.Conv2d(channels, out, 3, padding=rate, dilation=rate, bias=False), nn.BatchNorm2d(out), nn.ReLU()
            )
            for rate in rates
        ]
        self.branches = nn.ModuleList([pixel, *atrous])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out), nn.ReLU())
        self.project = nn.Sequential(nn.Conv2d((len(rates) + 2) * out, out, 1), nn.BatchNorm2d(out), nn.ReLU())
        self.head = nn.Conv2d(out, out, 3, padding="same", bias=False)
        self.head_norm = nn.BatchNorm2d(out)
        self.classes = nn.Conv2d(out, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(self.pool(x), size=x.shape[2:], mode="bilinear")
        x = self.project(torch.cat([branch(x) for branch in self.branches] + [pooled], 1))
        return self.classes(F.relu(self.head_norm(self.head(x))))


class DoubleConv(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(True)
        self.conv2, self.bn2, self.act2 = nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.bn2(self.act2(self.conv2(x)))


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with batch norm; pictures of any size, by control flow on the shape."""

    def __init__(self, channels: int = 3, f: int = 4) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = DoubleConv(channels, f), DoubleConv(f, 2 * f), DoubleConv(2 * f, 4 * f)
        self.raise2, self.up2 = nn.ConvTranspose2d(4 * f, 2 * f, 2, 2), DoubleConv(4 * f, 2 * f)
        self.raise1, self.up1 = nn.ConvTranspose2d(2 * f, f, 2, 2), DoubleConv(2 * f, f)
        self.last, self.squash = nn.Conv2d(f, 3, 3, padding=1), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.down1(x)
        skip2 = self.down2(F.max_pool2d(skip1, 2))
        x = self.bottom(F.max_pool2d(skip2, 2))
        for raised, skip, up in ((self.raise2, skip2, self.up2), (self.raise1, skip1, self.up1)):
            x = raised(x)
            if x.shape[2:] != skip.shape[2:]:
                x = F.interpolate(x, size=skip.shape[2:])
            x = up(torch.cat([skip, x], 1))
        return self.squash(self.last(x))


class VGGFeatures(nn.Module):
    """VGG with batch norm (Simonyan and Zisserman, 2015) as a perceptual loss uses it: maps taken on the way."""

    def __init__(self, taps: tuple[int, ...] = (0, 5, 9)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out in (4, 4, "pool", 8, 8):
            if out == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                channels = out
        self.features, self.taps = nn.Sequential(*layers), taps

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                maps.append(x.clone())
        return [*maps, x]


class BasicBlock(nn.Module):
    """Of ResNet (He et al., 2016); one ReLU, called twice."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + identity)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8, 2), BasicBlock(8, 8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


NETWORKS = {"aspp": ASPP, "unet": UNet, "vgg": VGGFeatures, "resnet": ResNet}
INPUTS = {"aspp": (2, 6, 14, 12), "unet": (2, 3, 22, 26), "vgg": (2, 3, 16, 18), "resnet": (2, 3, 32, 32)}
