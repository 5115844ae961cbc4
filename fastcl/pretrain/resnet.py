"""ResNet-18 and ResNet-50 without the classifier, under the names of torchvision and timm.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", with stride on the 3x3
convolution of a bottleneck ("v1.5") and the last norm of a block starting at zero (Goyal et al.
2017, "Accurate, Large Minibatch SGD", section 5.1).
"""

from torch import Tensor, nn


def _convolution(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def _downsample(c_in: int, c_out: int, stride: int) -> nn.Module | None:
    """What the skip of a block does to its input; nothing where it has the right shape."""
    if c_in == c_out and stride == 1:
        return None
    return nn.Sequential(_convolution(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a skip."""

    expansion = 1

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(c_in, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        nn.init.zeros_(self.bn2.weight)
        self.downsample = _downsample(c_in, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + skip)


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1, the last four times as wide, beside a skip."""

    expansion = 4

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        c_out = planes * self.expansion
        self.conv1 = _convolution(c_in, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _convolution(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _convolution(planes, c_out, 1)
        self.bn3 = nn.BatchNorm2d(c_out)
        nn.init.zeros_(self.bn3.weight)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + skip)


class ResNet(nn.Module):
    """A ResNet that ends with the global average.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: Blocks of each of the four stages.
        channels: Of the images.
        stem: "cifar", one 3x3 convolution, or "imagenet", 7x7 of stride 2 and a max-pool.
    """

    def __init__(
        self, block: type[nn.Module], depths: tuple[int, ...], *, channels: int, stem: str
    ) -> None:
        super().__init__()
        small = stem == "cifar"
        self.conv1 = _convolution(channels, 64, 3) if small else _convolution(channels, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        width, stages = 64, []
        for stage, depth in enumerate(depths):
            planes, blocks = 64 * 2**stage, []
            for i in range(depth):
                blocks.append(block(width, planes, 2 if stage > 0 and i == 0 else 1))
                width = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.width = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def local(self) -> tuple[nn.Module, int]:
        """The last block of the third stage, a map of local features, and their number."""
        return self.layer3[-1], self.width // 2

    def maps(self, x: Tensor) -> Tensor:
        """What `forward` averages, `[b, width, h', w']`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> Tensor:  # [b, channels, h, w] -> [b, width]
        return self.pool(self.maps(x))


def resnet18(channels: int, stem: str) -> ResNet:
    """ResNet-18: features of width 512, 11.2 million parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), channels=channels, stem=stem)


def resnet50(channels: int, stem: str) -> ResNet:
    """ResNet-50: features of width 2048, 23.5 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), channels=channels, stem=stem)
