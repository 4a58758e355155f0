"""quip: teach a small language model to be funny with a large one as teacher and critic."""

import os
from pathlib import Path

__version__ = "0.1.0"

# An experiment in a folder of its own (`dvc exp run --temp`, the queue) runs the code that it was
# begun with, which its commit holds, and not what the main checkout has by now.
if "DVC_STAGE" in os.environ and Path("src/quip").is_dir():
    __path__ = [str(Path("src/quip").resolve())]
