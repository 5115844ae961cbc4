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


class DuplicatesLoss(TemperatureLoss):
    """One that is told, too, what to do with pairs of equal id."""

    def __init__(self, temperature: float, duplicates: str) -> None:
        super().__init__(temperature)
        _check.one_of("duplicates", duplicates, _check.DUPLICATES)
        self.duplicates = duplicates
