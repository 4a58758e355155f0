"""report: one self-contained HTML page of all results, and its figures as SVG files.

Reads the metrics, curves, verdicts, responses, audit, references and preferences; writes
report.html and the figures into one folder. The page loads no other file, equal inputs give equal
bytes, and missing results are named as missing.

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

from quip.core import params
from quip.core.jsonl import atomic
from quip.core.params import Section
from quip.critics.debiasing import Debias
from quip.evaluation.metrics import preference_leakage
from quip.reporting import caveats, claims, glossary, run_results, svg_plots, tables
from quip.reporting.call_costs import cost_rows
from quip.reporting.claims import SPLIT
from quip.reporting.figures import Drawing, draw_figures
from quip.reporting.run_results import RunResults
from quip.runtime import stage

INPUTS = (
    "metrics", "curves", "verdicts", "responses", "audit", "imitation", "preferences", "roles",
    "runs",
)  # fmt: skip


APART = ("critic", "safety", "reward")
"""Metrics left out of the funnel: they have a section of their own or hold settings."""


class Params(Section):
    samples: int = Field(ge=1)


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, *INPUTS, "out")
    settings = params.load("report", Params)
    found = run_results.read_run_results(**{name: Path(getattr(args, name)) for name in INPUTS})
    drawings = list(draw_figures(found))
    out = Path(args.out)
    for drawing in drawings:
        write(out / f"{drawing.name}.svg", drawing.svg)
    write(out / "report.html", render(found, drawings, settings.samples, params.read_params()))
    print(f"report: {out / 'report.html'} with {len(drawings)} figures.")
    print(claims.claim(found.wtr))


def render(
    found: RunResults, drawings: Sequence[Drawing], count: int, settings: dict[str, Any]
) -> str:
    """The page as HTML. `count` is the number of samples; `settings` the content of params.yaml."""
    judging, critic = found.wtr["settings"], found.metrics.get("critic")
    inputs = tables.sample_inputs(found.references, SPLIT, count)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            claim=claims.claim(found.wtr),
            doubts=caveats.list_caveats(found.wtr, critic, found.roles),
            found=found,
            split=SPLIT,
            verdicts=claims.arm_verdicts(found.wtr),
            power=claims.power_sentences(found.wtr),
            few=claims.MIN_INPUTS,
            alarms=found.wtr.get("alarms", {}),
            limits=judging.get("alarms"),
            drifts=found.wtr.get("length_by_round", {}),
            ratings=found.wtr.get("ratings", {}),
            rated=list(dict.fromkeys(n for r in found.wtr.get("ratings", {}).values() for n in r)),
            leakage=found.wtr.get("leakage", []),
            kin=preference_leakage.shared_roles(found.roles),
            safety=found.metrics.get("safety"),
            categories=tables.safety_categories(found.metrics.get("safety")),
            glossary=glossary.read_sections(),
            blocks={
                name: tables.cells(found.wtr.get(name, {}))
                for name in ("arms", "controls", "duels")
            },
            texts=tables.text_rows(found.wtr.get("texts", {})),
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
            audits=tables.audit_rows(critic),
            funnel=tables.funnel({k: v for k, v in found.metrics.items() if k not in APART}),
            costs=cost_rows(found.metrics),
            samples=tables.sample_rows(
                inputs,
                found.responses,
                found.verdicts,
                judging["tie_margin"],
                Debias(**judging["debias"]),
            ),
            settings=tables.settings_rows(settings),
        )
    )


def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("quip.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=claims.percent,
        span=claims.interval_text,
        outcomes=tables.outcome_shares,
        unbroken=tables.keep_together,
        code=code,
    )
    return made


def code(text: str) -> Markup:
    """`text` escaped, with the parts between backticks as <code>."""
    parts = (escape(part) for part in text.split("`"))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def inline(drawing: Drawing) -> Markup:
    return Markup(svg_plots.inline_svg(drawing.svg, drawing.alt))


def write(path: Path, text: str) -> None:
    with atomic(path) as handle:
        handle.write(text)


if __name__ == "__main__":
    stage.run(main)
