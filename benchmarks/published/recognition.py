"""Networks that recognise and segment: ResNet as torchvision and timm have it, DenseNet, VGG, HRNet, U-Net, DeepLab."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ---- classification ----


class BasicBlock(nn.Module):
    """torchvision.models.resnet: one ReLU, called twice."""

    expansion = 1

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        identity = x

        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)

        out = self.conv2(out)
        out = self.bn2(out)

        if self.downsample is not None:
            identity = self.downsample(x)

        out += identity
        out = self.relu(out)

        return out


class Bottleneck(nn.Module):
    """torchvision.models.resnet."""

    expansion = 4

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        width = out // self.expansion
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class TorchvisionResNet(nn.Module):
    """resnet18: (BasicBlock, 64, (2, 2, 2, 2)); resnet50: (Bottleneck, 64, (3, 4, 6, 3))."""

    def __init__(self, block: type = BasicBlock, f: int = 24, layers: tuple[int, ...] = (2, 2)) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, f, 7, 2, 3, bias=False), nn.BatchNorm2d(f)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        channels, stages = f, []
        for i, blocks in enumerate(layers):
            out = block.expansion * f * 2**i
            first = block(channels, out, 1 if i == 0 else 2)
            stages.append(nn.Sequential(first, *(block(out, out) for _ in range(1, blocks))))
            channels = out
        self.layer1, self.layer2 = stages[:2]
        self.layer3, self.layer4 = [*stages[2:], nn.Identity(), nn.Identity()][:2]
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, 5)

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = self.layer4(self.layer3(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(x)


class TimmBasicBlock(nn.Module):
    """timm.models.resnet: what is absent is an nn.Identity or None."""

    def __init__(self, channels: int, out: int, stride: int = 1, attention: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.drop_block, self.act1, self.aa = nn.Identity(), nn.ReLU(inplace=True), None
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.se = SqueezeExcite(out) if attention else None
        self.act2 = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.drop_path = DropPath(drop) if drop else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x

        x = self.conv1(x)
        x = self.bn1(x)
        x = self.drop_block(x)
        x = self.act1(x)
        if self.aa is not None:
            x = self.aa(x)

        x = self.conv2(x)
        x = self.bn2(x)

        if self.se is not None:
            x = self.se(x)

        if self.drop_path is not None:
            x = self.drop_path(x)

        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x += shortcut
        x = self.act2(x)

        return x


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.bn, self.act, self.gate = nn.Identity(), nn.ReLU(inplace=True), nn.Sigmoid()
        self.add_maxpool = False

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        if self.add_maxpool:
            scale = 0.5 * scale + 0.5 * x.amax((2, 3), keepdim=True)
        scale = self.fc2(self.act(self.bn(self.fc1(scale))))
        return x * self.gate(scale)


class DropPath(nn.Module):
    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, True

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        if keep > 0.0 and self.scale_by_keep:
            mask.div_(keep)
        return x * mask


class TimmResNet(nn.Module):
    def __init__(self, f: int = 24) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, f, 3, 2, 1, bias=False), nn.BatchNorm2d(f), nn.ReLU(inplace=True),
            nn.Conv2d(f, f, 3, 1, 1, bias=False),
        )  # fmt: skip
        self.bn1, self.act1 = nn.BatchNorm2d(f), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(TimmBasicBlock(f, f), TimmBasicBlock(f, f, attention=True, drop=0.5))
        self.layer2 = nn.Sequential(TimmBasicBlock(f, f, 2))
        self.grad_checkpointing, self.drop_rate, self.fc = False, 0.0, nn.Linear(f, 5)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.bn1(x)
        x = self.act1(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            raise NotImplementedError
        return self.layer2(self.layer1(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x.mean((2, 3))
        if self.drop_rate:
            x = F.dropout(x, p=float(self.drop_rate), training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class DenseLayer(nn.Module):
    """torchvision.models.densenet: norm, activation, convolution."""

    def __init__(self, channels: int, growth: int, width: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, growth, 3, 1, 1, bias=False)
        self.drop_rate, self.memory_efficient = drop_rate, False

    def bn_function(self, inputs: list[Tensor]) -> Tensor:
        return self.conv1(self.relu1(self.norm1(torch.cat(inputs, 1))))

    def any_requires_grad(self, input: list[Tensor]) -> bool:
        return any(tensor.requires_grad for tensor in input)

    def forward(self, input: Tensor | list[Tensor]) -> Tensor:
        prev_features = [input] if isinstance(input, Tensor) else input

        if self.memory_efficient and self.any_requires_grad(prev_features):
            if torch.jit.is_scripting():
                raise Exception("Memory Efficient not supported in JIT")
            raise NotImplementedError

        bottleneck_output = self.bn_function(prev_features)
        new_features = self.conv2(self.relu2(self.norm2(bottleneck_output)))
        if self.drop_rate > 0:
            new_features = F.dropout(new_features, p=self.drop_rate, training=self.training)
        return new_features


class DenseBlock(nn.ModuleDict):
    def __init__(self, layers: int, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(channels + i * growth, growth, 24))

    def forward(self, init_features: Tensor) -> Tensor:
        features = [init_features]
        for _, layer in self.items():
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet(nn.Module):
    def __init__(self, f: int = 24) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, f, 3, 2, 1, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(f))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("denseblock1", DenseBlock(2, f, 24))
        self.features.add_module("norm5", nn.BatchNorm2d(f + 48))
        self.classifier = nn.Linear(f + 48, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        out = F.relu(features, inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(out, (1, 1)), 1))


VGG11 = 64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"


class VGG(nn.Module):
    """torchvision.models.vgg; vgg11_bn: (plan=VGG11)."""

    def __init__(self, batch_norm: bool = True, plan: tuple = (24, 24, "M", 48, 48)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for v in plan:
            if v == "M":
                layers += [nn.MaxPool2d(2, 2)]
            else:
                conv = nn.Conv2d(channels, v, 3, padding=1)
                layers += [conv, nn.BatchNorm2d(v), nn.ReLU(True)] if batch_norm else [conv, nn.ReLU(True)]
                channels = v
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(4 * channels, 16), nn.ReLU(True), nn.Dropout(0.0), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.classifier(x)


# ---- segmentation ----


class DoubleConv(nn.Module):
    def __init__(self, channels: int, out: int, mid: int | None = None) -> None:
        super().__init__()
        if not mid:
            mid = out
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, mid, 3, padding=1, bias=False), nn.BatchNorm2d(mid), nn.ReLU(inplace=True),
            nn.Conv2d(mid, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Up(nn.Module):
    """milesial/Pytorch-UNet: padded to the size of the skipped map."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(channels, channels // 2, 2, 2), DoubleConv(channels, out)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = self.up(x1)
        dy, dx = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.conv(torch.cat([x2, x1], dim=1))


class MilesialUNet(nn.Module):
    """As published: 64 channels."""

    def __init__(self, f: int = 8) -> None:
        super().__init__()
        self.inc = DoubleConv(3, f)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(f, 2 * f))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(2 * f, 4 * f))
        self.down3 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(4 * f, 8 * f))
        self.down4 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8 * f, 16 * f))
        self.up1, self.up2 = Up(16 * f, 8 * f), Up(8 * f, 4 * f)
        self.up3, self.up4 = Up(4 * f, 2 * f), Up(2 * f, f)
        self.outc = nn.Conv2d(f, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x5 = self.down4(x4)
        x = self.up1(x5, x4)
        x = self.up2(x, x3)
        x = self.up3(x, x2)
        x = self.up4(x, x1)
        return self.outc(x)


class HighResolutionModule(nn.Module):
    """HRNet (HRNet/HRNet-Image-Classification): branches of several resolutions, each added to all."""

    def __init__(self, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.num_branches = len(widths)
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, w) for _ in range(blocks))) for w in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._fuse(widths, j, i) for j in range(len(widths))) for i in range(len(widths))
        )
        self.relu = nn.ReLU(False)

    @staticmethod
    def _fuse(widths: tuple[int, ...], j: int, i: int) -> nn.Module:
        """From branch j to branch i."""
        if j == i:
            return nn.Identity()
        if j > i:
            up = nn.Upsample(scale_factor=2 ** (j - i), mode="nearest")
            return nn.Sequential(nn.Conv2d(widths[j], widths[i], 1, bias=False), nn.BatchNorm2d(widths[i]), up)
        steps = []
        for k in range(i - j):
            out = widths[i] if k == i - j - 1 else widths[j]
            step = [nn.Conv2d(widths[j], out, 3, 2, 1, bias=False), nn.BatchNorm2d(out)]
            steps.append(nn.Sequential(*step, *([] if k == i - j - 1 else [nn.ReLU(False)])))
        return nn.Sequential(*steps)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        for i in range(self.num_branches):
            x[i] = self.branches[i](x[i])
        x_fuse = []
        for i in range(self.num_branches):
            y = x[0] if i == 0 else self.fuse_layers[i][0](x[0])
            for j in range(1, self.num_branches):
                y = y + (x[j] if i == j else self.fuse_layers[i][j](x[j]))
            x_fuse.append(self.relu(y))
        return x_fuse


class HRNet(nn.Module):
    """hrnet_w18_small: widths (16, 32, 64, 128), two blocks in a branch."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128), blocks: int = 2) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = Bottleneck(64, 128)
        steps = [(128, widths[0], 1), (128, widths[1], 2), (widths[1], widths[2], 2), (widths[2], widths[3], 2)]
        self.transitions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, w, 3, stride, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True))
            for before, w, stride in steps
        )
        self.stage2 = HighResolutionModule(widths[:2], blocks)
        self.stage3 = HighResolutionModule(widths[:3], blocks)
        self.stage4 = HighResolutionModule(widths, blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        y = self.stage2([self.transitions[0](x), self.transitions[1](x)])
        y = self.stage3([*y, self.transitions[2](y[-1])])
        y = self.stage4([*y, self.transitions[3](y[-1])])
        return torch.cat([each.mean((2, 3)) for each in y], 1)


class ASPPConv(nn.Sequential):
    def __init__(self, channels: int, out: int, dilation: int) -> None:
        super().__init__(
            nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )


class ASPPPooling(nn.Sequential):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        for mod in self:
            x = mod(x)
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ASPP(nn.Module):
    """torchvision.models.segmentation.deeplabv3."""

    def __init__(self, channels: int, rates: tuple[int, ...], out: int) -> None:
        super().__init__()
        modules: list[nn.Module] = [
            nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())
        ]
        for rate in rates:
            modules.append(ASPPConv(channels, out, rate))
        modules.append(ASPPPooling(channels, out))
        self.convs = nn.ModuleList(modules)
        self.project = nn.Sequential(
            nn.Conv2d(len(self.convs) * out, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.Dropout(0.0)
        )

    def forward(self, x: Tensor) -> Tensor:
        _res = []
        for conv in self.convs:
            _res.append(conv(x))
        return self.project(torch.cat(_res, dim=1))


class DeepLabHead(nn.Sequential):
    """Of deeplabv3_resnet50: (2048, 256, (12, 24, 36))."""

    def __init__(self, channels: int = 24, out: int = 24, rates: tuple[int, ...] = (2, 4)) -> None:
        super().__init__(
            ASPP(channels, rates, out), nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
            nn.Conv2d(out, 4, 1),
        )  # fmt: skip
