"""Pretraining with a method of fastcl, from a plain command, `fastcl pretrain`, or by `fit`."""


def __getattr__(name: str):
    if name in ("fit", "HeldOut"):  # the command line must not wait for torch
        from . import fitting

        return getattr(fitting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
