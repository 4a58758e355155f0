"""quip: teach a small language model to be funny with a large one as teacher and critic."""

__version__ = "0.1.0"
