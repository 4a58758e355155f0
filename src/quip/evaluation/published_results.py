"""Published results: the paper's win-tie rates (tables 2 and 3) beside those of a run.

The paper's judges are GPT-4 and Llama-2-70B-chat, its student is BART-large, and its test inputs
are 1,000 of EmpatheticDialogues and 500 of SAMSum. Rates by different judges do not measure the
same thing; only the order of the arms can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Rates(NamedTuple):
    """Win-tie rates in percent; None where the paper gives none."""

    gpt4: int | None = None
    llama: int | None = None
    ood_llama: int | None = None


RATES = {
    "sft": Rates(),
    "ft": Rates(30, 28, 34),
    "sd": Rates(35, 36),
    "brio": Rates(48, 53, 42),
    "dpo": Rates(52, 60, 47),
    "brio_dpo": Rates(56, 65, 49),
}
"""{arm: rates of tables 2 (test) and 3 (out of domain)}."""

HEAD = """\
# Beside the paper

Win-tie rate against the teacher, in percent, with the 95 % interval of this run; empty where an
arm was not trained. The paper's judges are GPT-4 and Llama-2-70B-chat (tables 2 and 3).
"""


def comparison_page(arms: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]) -> str:
    """A page in Markdown: the paper's rates and the run's for every arm of the paper.

    `arms` is {arm: {split: {judge: summary}}}, as in wtr.json.
    """
    columns = sorted(
        {(split, judge) for cells in arms.values() for split in cells for judge in cells[split]},
        key=lambda column: (column[0] != "test", column),
    )
    titles = ["arm", "paper: GPT-4", "paper: Llama-2", "paper: Llama-2, ood"]
    titles += [f"here: {judge}, {split}" for split, judge in columns]
    rows = [
        [
            arm,
            *(rate_text(rate) for rate in rates),
            *(run_rate(arms, arm, *column) for column in columns),
        ]
        for arm, rates in RATES.items()
    ]
    return "\n".join(
        [HEAD, table_row(titles), table_row(["---"] * len(titles)), *map(table_row, rows), ""]
    )


def run_rate(arms: Mapping[str, Any], arm: str, split: str, judge: str) -> str:
    cell = arms.get(arm, {}).get(split, {}).get(judge)
    if cell is None:
        return ""
    low, high = cell["ci95"]
    return f"{100 * cell['wtr']:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def rate_text(rate: int | None) -> str:
    return "" if rate is None else str(rate)


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
