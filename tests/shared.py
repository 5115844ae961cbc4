"""Where golden values and data are, beside the project; tests skip where they are absent."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
