"""Result comparison of two checkouts, for a change that should alter names only.

    python bench/same_results.py ONE OTHER

Compares every file under models/ byte for byte, and every data/metrics/*.json without the counts of
calls, which depend on the replies in the store. Both checkouts must have run `dvc repro` on one
machine, the second with the call store (.quip) of the first. Prints one line per difference; the
exit code is 0 without differences, else 1.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COUNTS_OF_CALLS = {
    *("calls", "stored", "failed", "refused", "retries", "money", "paid"),
    *("prompt_tokens", "cached_tokens", "completion_tokens"),
}


def results(root: Path) -> dict[str, str]:
    """{path: digest} of every model file and every metrics file."""
    models = [path for path in sorted(root.glob("models/**/*")) if path.is_file()]
    found = {str(path.relative_to(root)): digest(path.read_bytes()) for path in models}
    for path in sorted(root.glob("data/metrics/*.json")):
        content = without_counts(json.loads(path.read_text(encoding="utf-8")))
        found[str(path.relative_to(root))] = digest(json.dumps(content).encode())
    return found


def without_counts(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_counts(v) for k, v in value.items() if k not in COUNTS_OF_CALLS}
    return [without_counts(item) for item in value] if isinstance(value, list) else value


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def differences(one: dict[str, str], other: dict[str, str]) -> Iterator[str]:
    for path in sorted(one.keys() | other.keys()):
        if one.get(path) != other.get(path):
            where = "differs" if path in one and path in other else "is in one only"
            yield f"{path} {where}"


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    one, other = (results(Path(root)) for root in sys.argv[1:])
    found = list(differences(one, other))
    models = sum(path.startswith("models/") for path in one)
    print(
        *found,
        f"{models} model files, {len(one) - models} metrics files, {len(found)} differ",
        sep="\n",
    )
    return 1 if found or not one else 0


if __name__ == "__main__":
    sys.exit(main())
