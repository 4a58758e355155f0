"""Seeds of rows: a stable digest of (seed, row id, sample number)."""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A stable 63-bit seed from (seed, row id, sample number)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
