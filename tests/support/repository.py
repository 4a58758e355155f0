"""Where this checkout and its files are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
SHIPPED_PARAMS = ROOT / "params.yaml"
LITERALS = ROOT / "data" / "raw" / "literals.jsonl"
