"""What the optional groups of pyproject.toml are, for a command that must not wait for torch."""

# Every group: import name and package, which pip finds however fastcl itself was installed.
EXTRAS = {
    "cli": {"typer": "typer", "rich": "rich"},
    "plot": {"matplotlib": "matplotlib"},
    "pretrain": {
        "lightning_fabric": "lightning-fabric",
        "sklearn": "scikit-learn",
        "safetensors": "safetensors",
        "PIL": "pillow",
        "simplejpeg": "simplejpeg",
        "spdl": "spdl-core",
    },
    "views": {"simplejpeg": "simplejpeg", "PIL": "pillow"},
}


def missing(groups, find_spec) -> list[str]:  # find_spec: of importlib.util
    """The packages of these groups that are not installed."""
    names = {name: package for group in groups for name, package in EXTRAS[group].items()}
    return [package for name, package in names.items() if find_spec(name) is None]


def remedy(packages: list[str]) -> str:
    """What is missing and the command that installs it."""
    return f"{', '.join(packages)}: pip install {' '.join(packages)}"
