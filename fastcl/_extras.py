"""What the optional groups of pyproject.toml are, for a command that must not wait for torch."""

# Import names of every group.
EXTRAS = {
    "cli": ("typer", "rich"),
    "plot": ("matplotlib",),
    "pretrain": ("lightning_fabric", "kornia", "sklearn", "safetensors", "PIL"),
}
