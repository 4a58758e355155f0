"""Everything measured on one self-contained HTML page, and its figures as SVG files.

Reads the metrics, curves, verdicts, responses, audit, references and preferences; writes
report.html and the figures into one folder. The page loads nothing from anywhere, and equal inputs
give equal bytes. What was not measured is named as missing.

    python -m quip.stages.report --metrics DIR --curves DIR --verdicts DIR --responses DIR \
        --audit DIR --imitation DIR --preferences FILE --roles DIR --runs DIR --out DIR
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic import Field

from quip import doubts, evidence, figures, findings, glossary, leakage, page, params, stage
from quip.costs import costs
from quip.drawings import Drawing, draw
from quip.evidence import Evidence
from quip.findings import SPLIT
from quip.params import Section
from quip.preference import Debias
from quip.records import atomic

INPUTS = (
    "metrics", "curves", "verdicts", "responses", "audit", "imitation", "preferences", "roles",
    "runs",
)  # fmt: skip


APART = ("critic", "safety", "reward")
"""Metrics that have a section of their own, or count settings."""


class Params(Section):
    samples: int = Field(ge=1)


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, *INPUTS, "out")
    settings = params.load("report", Params)
    found = evidence.read(**{name: Path(getattr(args, name)) for name in INPUTS})
    drawings = list(draw(found))
    out = Path(args.out)
    for drawing in drawings:
        write(out / f"{drawing.name}.svg", drawing.svg)
    write(out / "report.html", render(found, drawings, settings.samples, params.read_params()))
    print(f"report: {out / 'report.html'} with {len(drawings)} figures.")
    print(findings.claim(found.wtr))


def render(
    found: Evidence, drawings: Sequence[Drawing], count: int, settings: dict[str, Any]
) -> str:
    """The page. `count` samples are shown; `settings` is the content of params.yaml."""
    judging, critic = found.wtr["settings"], found.metrics.get("critic")
    inputs = page.chosen(found.references, SPLIT, count)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            claim=findings.claim(found.wtr),
            doubts=doubts.doubts(found.wtr, critic, found.roles),
            found=found,
            split=SPLIT,
            verdicts=findings.verdicts(found.wtr),
            power=findings.power(found.wtr),
            few=findings.FEW,
            alarms=found.wtr.get("alarms", {}),
            limits=judging.get("alarms"),
            drifts=found.wtr.get("length_by_round", {}),
            ratings=found.wtr.get("ratings", {}),
            rated=list(dict.fromkeys(n for r in found.wtr.get("ratings", {}).values() for n in r)),
            leakage=found.wtr.get("leakage", []),
            kin=leakage.kin(found.roles),
            safety=found.metrics.get("safety"),
            categories=page.categories(found.metrics.get("safety")),
            glossary=glossary.sections(),
            blocks={
                name: page.cells(found.wtr.get(name, {})) for name in ("arms", "controls", "duels")
            },
            texts=page.texts(found.wtr.get("texts", {})),
            figures=[
                {
                    "section": item.section,
                    "caption": item.caption,
                    "term": item.term,
                    "svg": inline(item),
                }
                for item in drawings
            ],
            critic=critic,
            audits=page.audits(critic),
            funnel=page.funnel({k: v for k, v in found.metrics.items() if k not in APART}),
            costs=costs(found.metrics),
            samples=page.samples(
                inputs,
                found.responses,
                found.verdicts,
                judging["tie_margin"],
                Debias(**judging["debias"]),
            ),
            settings=page.settings(settings),
        )
    )


def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("quip", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=findings.percent,
        span=findings.span,
        outcomes=page.outcome_shares,
        unbroken=page.unbroken,
        code=code,
    )
    return made


def code(text: str) -> Markup:
    """`text`, escaped, with what stands between backticks as code."""
    parts = (escape(part) for part in text.split("`"))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def inline(drawing: Drawing) -> Markup:
    return Markup(figures.inline(drawing.svg, drawing.alt))


def write(path: Path, text: str) -> None:
    with atomic(path) as handle:
        handle.write(text)


if __name__ == "__main__":
    stage.run(main)
