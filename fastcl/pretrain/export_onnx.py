"""A backbone as ONNX."""

import logging
import warnings
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from .._files import replace_file
from .weights import Facts

NEEDED = "onnx", "onnxscript"
INPUT, OUTPUT = "images", "features"


def save_onnx(path: Path, network: nn.Module, facts: Facts) -> str:
    """Write a file whose input `images` is `[batch, channels, size, size]`, normalised, and whose
    output `features` is `[batch, width]`; its metadata are those of the weights.

    Returns:
        Lines of Python that load it.

    Raises:
        ModuleNotFoundError: PyTorch's exporter lacks what it stands on.
        ValueError: It cannot express the network.
    """
    absent = [name for name in NEEDED if find_spec(name) is None]
    if absent:
        raise ModuleNotFoundError(f"ONNX needs {', '.join(absent)}: pip install {' '.join(absent)}")
    program = _program(network, facts)
    for name, value in asdict(facts).items():
        program.model.metadata_props[name] = str(value)
    data = program.model_proto.SerializeToString()
    replace_file(path, lambda file: file.write(data))
    return f"import onnxruntime\n\nmodel = onnxruntime.InferenceSession({str(path)!r})"


def _program(network: nn.Module, facts: Facts):  # -> torch.onnx.ONNXProgram
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros(2, facts.channels, facts.size, facts.size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own ways
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            return torch.onnx.export(
                network.eval(), (example,), dynamo=True, verbose=False, input_names=[INPUT],
                output_names=[OUTPUT], dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            told = " ".join(str(error).split())
            raise ValueError(
                f"PyTorch's exporter cannot express backbone {facts.backbone}: {told[:300]}"
            ) from error
