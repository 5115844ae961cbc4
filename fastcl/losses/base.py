"""What the losses share."""

from torch import nn

from .. import _check


class TemperatureLoss(nn.Module):
    """A loss whose hyper-parameter is a constant temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = _check.positive("temperature", temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
