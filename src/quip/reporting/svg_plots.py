"""SVG plots: the figures of the report as text, with equal bytes for equal numbers.

The only module that imports matplotlib. Every figure is about as wide as a phone, so that its text
is readable there; text is not converted to paths. Ink and lines have two marker colours, which
`inline_svg` replaces by the page's own, so that one figure suits a light and a dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

INK, LINE, PAPER = "#222831", "#d4d8de", "#fefefe"
OUTCOMES = {"win": "#2f74b5", "tie": "#b4bac3", "loss": "#cf7427"}
PALETTE = ("#2f74b5", "#cf7427", "#2d9474", "#a65a9e", "#8a6d3b", "#5c6bc0")
GREY = "#8b929c"
WIDTH, ROW = 4.9, 0.34
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": PAPER,
}


def render_figure(name: str, height: float, draw: Callable[[Axes], None]) -> str:
    """The SVG of one panel, `height` inches high, drawn by `draw`; `name` salts its ids."""
    with mpl.rc_context(cast(Any, {**STYLE, "svg.hashsalt": name})):
        sheet = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(sheet.add_subplot())
        handle = io.StringIO()
        sheet.savefig(handle, format="svg", metadata={"Date": None})
    return re.sub(r"\s*<metadata>.*?</metadata>", "", handle.getvalue(), flags=re.DOTALL)


def inline_svg(svg: str, alt: str) -> str:
    """The `<svg>` element for a page: with a label for screen readers and the page's colours,
    without unused ids, namespaces and prologue, which HTML does not need."""
    body = svg[svg.index("<svg") :]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1\.1"', "", body).replace(
        "xlink:href", "href"
    )
    body = body.replace(INK, "currentColor").replace(LINE, "var(--line)").replace(PAPER, "none")
    body = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", body, count=1)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).strip()


def outcomes(name: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Stacked bars of win, tie and loss, one per row: (label, shares by outcome)."""

    def draw(axes: Axes) -> None:
        for place, (_, shares) in enumerate(rows):
            draw_stack(axes, place, shares)
        label_rows(axes, [label for label, _ in rows])
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.spines[["left", "bottom"]].set_visible(False)
        handles = [Patch(color=color, label=key) for key, color in OUTCOMES.items()]
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)

    return render_figure(name, 0.75 + ROW * len(rows), draw)


def draw_stack(axes: Axes, place: int, shares: Mapping[str, float]) -> None:
    left = 0.0
    for key, color in OUTCOMES.items():
        axes.barh(place, shares[key], left=left, color=color, height=0.72)
        if shares[key] >= 0.07:
            ink = "#1b1f24" if key == "tie" else "#ffffff"
            text = f"{100 * shares[key]:.0f}"
            axes.text(left + shares[key] / 2, place, text, ha="center", va="center", color=ink)
        left += shares[key]


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def intervals(
    name: str,
    rows: Sequence[tuple[str, float, float, float]],
    title: str,
    middle: float = 0.5,
    span: tuple[float, float] | None = (0.0, 1.0),
) -> str:
    """Values with intervals, one per row: (label, value, low, high). `middle` is marked; `span` is
    the range of the axis, None: that of the intervals."""

    def draw(axes: Axes) -> None:
        axes.axvline(middle, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for place, (_, value, low, high) in enumerate(rows):
            color = PALETTE[0] if low > middle else PALETTE[1] if high < middle else GREY
            axes.plot([low, high], [place, place], color=color, linewidth=2.4)
            axes.plot(value, place, "o", color=color, markersize=6)
        label_rows(axes, [label for label, *_ in rows])
        if span is not None:
            axes.set_xlim(*span)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(title)
        axes.grid(axis="x", linewidth=0.6)
        axes.spines["left"].set_visible(False)

    return render_figure(name, 0.65 + ROW * len(rows), draw)


def training_curve(
    name: str, lines: Mapping[str, tuple[list[float], list[float]]], title: str
) -> str:
    """One panel of a training curve: {label: (steps, values)}."""

    def draw(axes: Axes) -> None:
        for color, (label, (steps, values)) in zip(PALETTE, lines.items(), strict=False):
            marker = "o" if len(values) < 12 else ""
            axes.plot(
                steps, values, color=color, label=label, linewidth=1.6, marker=marker, markersize=4
            )
        axes.set_xlabel("step")
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(linewidth=0.6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)

    return render_figure(name, 2.5, draw)


def lengths(name: str, words: Mapping[str, Sequence[int]]) -> str:
    """Distribution of words per text as a box (quartiles) with whiskers from 5 % to 95 %."""

    def draw(axes: Axes) -> None:
        boxes = axes.boxplot(
            list(words.values()),
            orientation="horizontal",
            whis=(5, 95),
            widths=0.55,
            patch_artist=True,
            showfliers=False,
            positions=range(len(words)),
            medianprops={"color": INK, "linewidth": 1.6},
            boxprops={"edgecolor": "none"},
            capprops={"visible": False},
            whiskerprops={"color": GREY, "linewidth": 1.4},
        )
        for box, color in zip(boxes["boxes"], colors(list(words)), strict=True):
            box.set_facecolor(color)
        label_rows(axes, list(words))
        axes.set_xlabel("words")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="x", linewidth=0.6)
        axes.spines["left"].set_visible(False)

    return render_figure(name, 0.75 + ROW * len(words), draw)


def colors(names: Sequence[str]) -> list[str]:
    """A colour for each name, in order; names that are no arm are grey."""
    arms = [name for name in names if name not in ("literal", "teacher")]
    return [PALETTE[arms.index(n) % len(PALETTE)] if n in arms else GREY for n in names]


def positions(name: str, points: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Scatter of the verdicts: probability of a text when shown first against when shown second.

    `points` is {arm: [(p of a when first, p of a when second)]}. Without position bias all lie on
    the diagonal; a judge that always names the first lies in the lower right corner.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for (label, pairs), color in zip(points.items(), colors(list(points)), strict=True):
            first, second = zip(*pairs, strict=True) if pairs else ((), ())
            axes.scatter(first, second, s=14, color=color, alpha=0.55, label=label, linewidths=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xlabel("probability of the student's text, shown first")
        axes.set_ylabel("the same text, shown second")
        axes.grid(linewidth=0.6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderpad=0)

    return render_figure(name, 4.3, draw)


def reliability(name: str, bins: Sequence[tuple[float, float, float, float, int]]) -> str:
    """Reliability diagram: (mean confidence, agreement, low, high, pairs) of each bin."""

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for confidence, share, low, high, count in bins:
            axes.plot([confidence, confidence], [low, high], color=PALETTE[0], linewidth=2)
            axes.annotate(
                f"{count}",
                (confidence, high),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
            axes.plot(confidence, share, "o", color=PALETTE[0], markersize=6)
        axes.set(xlim=(0.48, 1.02), ylim=(0, 1.08))
        axes.set_xlabel("confidence of the critic")
        axes.set_ylabel("agreement with the gold pairs")
        axes.grid(linewidth=0.6)

    return render_figure(name, 3.2, draw)


def histogram(name: str, values: Sequence[float], title: str, span: tuple[float, float]) -> str:
    """Histogram of `values` with twenty bins over `span`."""

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=20, range=span, color=PALETTE[0], rwidth=0.9)
        axes.set_xlabel(title)
        axes.set_ylabel("pairs")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y", linewidth=0.6)

    return render_figure(name, 2.3, draw)


def learning_curve(name: str, rows: Sequence[tuple[int, float, float, float]], title: str) -> str:
    """Agreement by number of training votes: (votes, value, low, high); chance is marked."""

    def draw(axes: Axes) -> None:
        sizes, values, lows, highs = zip(*rows, strict=True)
        axes.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.fill_between(sizes, lows, highs, color=PALETTE[0], alpha=0.18, linewidth=0)
        axes.plot(sizes, values, "o-", color=PALETTE[0], linewidth=1.6, markersize=5)
        for size, value in zip(sizes, values, strict=True):
            axes.annotate(
                f"{value:.3f}", (size, value), (0, 8), textcoords="offset points", ha="center"
            )
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("votes learned from")
        axes.set_ylabel(title)
        axes.grid(axis="y", linewidth=0.6)

    return render_figure(name, 2.8, draw)
