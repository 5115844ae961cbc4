"""Where a command computes."""


def device_named(name: str) -> str:
    """cpu, cuda or another of torch's; auto: a GPU if there is one.

    Raises:
        ValueError: There is no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device must be cpu, cuda or auto, got {name!r}: {reason}") from error
    return name
