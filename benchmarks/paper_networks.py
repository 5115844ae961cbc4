"""Networks of papers whose methods need another one than the rest of the table."""

from torch import nn

PLACES = "dim's 8 x 8 places"


class InfoMaxEncoder(nn.Sequential):
    """Deep InfoMax's encoder of images of 32 pixels: three convolutions and two linear layers. The
    map of the second convolution, 8 x 8 places that see 10 pixels each, is what the 64 features
    are told apart from.

    Source: Hjelm et al. 2019, "Learning Deep Representations by Mutual Information Estimation and
    Maximization" (arXiv 1808.06670), of its experiments on CIFAR.
    """

    def __init__(self) -> None:
        super().__init__(
            _halved(3, 64), _halved(64, 128), _halved(128, 256), nn.Flatten(),
            nn.Linear(4096, 1024, bias=False), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 64),
        )  # fmt: skip

    @property
    def local(self) -> tuple[nn.Module, int]:
        return self[1], 128


def _halved(before: int, after: int) -> nn.Module:
    convolution = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
