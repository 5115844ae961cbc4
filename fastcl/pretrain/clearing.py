"""What the commands of fastcl leave in a run folder, and how it goes."""

from pathlib import Path

from ..evaluate.report import RESULTS, WEIGHTS
from . import checkpoint

CURVES, EMBEDDING = "curves.png", "embedding.png"
BAD = "bad_images.txt"
# What pretrain, evaluate, finetune, distill and export leave in a run folder.
FOLDERS = ("evaluation", "finetuned", "distilled", "exported/hub-folder", "exported", "tensorboard")
LEFT = (
    checkpoint.NAME, "metrics.csv", CURVES, EMBEDDING, WEIGHTS, RESULTS, "evaluation.json",
    "report.html", BAD, f"*-{BAD}", "evaluation/*.png", *(f"{f}/*.safetensors" for f in FOLDERS),
    *(f"{f}/{RESULTS}" for f in FOLDERS), "exported/*.onnx", "exported/hub-folder/config.json",
    "exported/hub-folder/README.md", "tensorboard/events.out.tfevents.*",
    "tensorboard/hparams.yaml",
)  # fmt: skip


def clear_run(folder: Path) -> None:
    """Remove what the commands of fastcl leave in a run folder, and nothing else."""
    for name in LEFT:
        for path in folder.glob(name):
            if path.is_file():
                path.unlink()
    for name in FOLDERS:
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
