"""ResNet-18 and ResNet-50 without the classifier.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", with stride on the 3x3
convolution of a bottleneck ("v1.5") and the last norm of a block starting at zero (Goyal et al.
2017, "Accurate, Large Minibatch SGD", section 5.1).
"""

from torch import Tensor, nn


def _convolution(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
    ]


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 where a bottleneck."""

    def __init__(self, c_in: int, planes: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        c_out = planes * (4 if bottleneck else 1)
        if bottleneck:
            layers = [
                *_convolution(c_in, planes, 1),
                nn.ReLU(inplace=True),
                *_convolution(planes, planes, 3, stride),
                nn.ReLU(inplace=True),
                *_convolution(planes, c_out, 1),
            ]
        else:
            layers = [
                *_convolution(c_in, planes, 3, stride),
                nn.ReLU(inplace=True),
                *_convolution(planes, planes, 3),
            ]
        nn.init.zeros_(layers[-1].weight)
        self.branch = nn.Sequential(*layers)
        same = c_in == c_out and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*_convolution(c_in, c_out, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.branch(x) + self.skip(x))


class ResNet(nn.Module):
    """A ResNet that ends with the global average.

    Args:
        depths: Blocks of each of the four stages.
        channels: Of the images.
        stem: "cifar", one 3x3 convolution, or "imagenet", 7x7 of stride 2 and a max-pool.
        bottleneck: Blocks of three convolutions, four times as wide.
    """

    def __init__(
        self, depths: tuple[int, ...], *, channels: int, stem: str, bottleneck: bool
    ) -> None:
        super().__init__()
        if stem == "cifar":
            layers = [*_convolution(channels, 64, 3), nn.ReLU(inplace=True)]
        else:
            layers = [
                *_convolution(channels, 64, 7, 2),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(3, stride=2, padding=1),
            ]
        width = 64
        for stage, depth in enumerate(depths):
            planes = 64 * 2**stage
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Block(width, planes, stride, bottleneck))
                width = planes * (4 if bottleneck else 1)
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.width = width
        self._last_stage = depths[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def local(self) -> tuple[nn.Module, int]:
        """The last block of the third stage, a map of local features, and their number."""
        return self.layers[-3 - self._last_stage], self.width // 2

    def maps(self, x: Tensor) -> Tensor:
        """What `forward` averages, `[b, width, h', w']`."""
        return self.layers[:-2](x)

    def forward(self, x: Tensor) -> Tensor:  # [b, channels, h, w] -> [b, width]
        return self.layers(x)


def resnet18(channels: int, stem: str) -> ResNet:
    """ResNet-18: features of width 512, 11.2 million parameters."""
    return ResNet((2, 2, 2, 2), channels=channels, stem=stem, bottleneck=False)


def resnet50(channels: int, stem: str) -> ResNet:
    """ResNet-50: features of width 2048, 23.5 million parameters."""
    return ResNet((3, 4, 6, 3), channels=channels, stem=stem, bottleneck=True)
