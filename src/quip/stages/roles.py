"""roles: records the models of teacher, critic and judges, and the arms to compare.

Reads the top-level `arms`, `endpoints` and each role's endpoint from params.yaml; writes one small
file a role and an arm. Later stages depend on these files and not on the sections, so that a new
address or time-out makes nothing stale, another model or recording does, and a new arm disturbs no
other.
Checks that rounds.yaml fits the arms.

    python -m quip.stages.roles --out data/roles
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quip.core.jsonl import write_json
from quip.core.params import did_you_mean, read_params
from quip.llm.endpoints import endpoint, recording
from quip.runtime import stage
from quip.runtime.errors import ParamsError
from quip.training import rounds

LEARNED = "learned"
GROWN = {"endpoint": LEARNED, "model": "a reward model grown from the gold pairs"}
KNOWN_ARMS = ("sft", "ft", "sd", "brio", "dpo", "brio_dpo")


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "out")
    params, out = read_params(), Path(args.out)
    arms = check_arms(params.get("arms"))
    times = rounds.check(arms)
    for arm in KNOWN_ARMS:
        write_json(out / "arms" / f"{arm}.json", {"arm": arm, "wanted": arm in arms})
    write_json(out / "teacher.json", describe(endpoint_of(params, "teacher")))
    write_json(out / "critic.json", critic_of(params))
    judges = (params.get("judge") or {}).get("endpoints") or []
    if not judges:
        raise ParamsError("params.yaml: key 'judge.endpoints' must name at least one endpoint.")
    further = at_endpoints((params.get("audit") or {}).get("kinds") or [])
    write_json(out / "audit.json", list(map(describe, dict.fromkeys([*judges, *further]))))
    learned = (params.get("critic") or {}).get("kind") == LEARNED
    judging = bool((params.get("judge") or {}).get("learned"))
    write_json(out / "judges.json", [*map(describe, judges), *([GROWN] if judging else [])])
    write_json(out / "reward.json", {"wanted": learned or judging})
    screen = (params.get("safety") or {}).get("endpoint")
    write_json(out / "safety.json", describe(screen) if screen else {"endpoint": None})
    summary = f"arms {', '.join(arms)}; rounds {times}; judges {', '.join(judges)}"
    print(f"roles: {summary}")


def critic_of(params: dict[str, Any]) -> dict[str, Any]:
    """The critic's model; of a panel also those of its signals at other endpoints."""
    critic = params.get("critic") or {}
    found = describe(endpoint_of(params, "critic"))
    if critic.get("kind") == LEARNED:
        return GROWN
    if critic.get("kind") != "panel":
        return found
    members = at_endpoints((critic.get("panel") or {}).get("signals") or [])
    return {**found, "members": list(map(describe, members))}


def at_endpoints(critics: Sequence[str]) -> list[str]:
    """The endpoints that critics in the short form (`mcp:humor@openai`) name themselves."""
    named = (spec.partition("@")[2] for spec in critics)
    return [name for name in named if name]


def check_arms(arms: Any) -> list[str]:
    """The arms, checked: each known and named once, with `sft`, from which every other arm starts.
    Raises ParamsError."""
    if not isinstance(arms, list) or "sft" not in arms:
        raise ParamsError("params.yaml: key 'arms' must be a list that holds 'sft'.")
    for arm in arms:
        if arm not in KNOWN_ARMS:
            raise ParamsError(
                f"params.yaml: unknown arm '{arm}' in 'arms'. Known arms: "
                f"{', '.join(KNOWN_ARMS)}.{did_you_mean(str(arm), KNOWN_ARMS)}"
            )
    if len(set(arms)) < len(arms):
        raise ParamsError("params.yaml: key 'arms' names an arm twice.")
    return arms


def endpoint_of(params: dict[str, Any], role: str) -> str:
    name = (params.get(role) or {}).get("endpoint")
    if not name:
        raise ParamsError(f"params.yaml: key '{role}.endpoint' is missing.")
    return str(name)


def describe(name: str) -> dict[str, Any]:
    """The settings of an endpoint that change results: its name, its model, how answers are read,
    and the sha256 of the replies of a recorded one, wherever they lie."""
    settings = endpoint(name)
    told = {"endpoint": name, "model": settings.model, "logprobs": settings.logprobs}
    if not settings.recorded:
        return told
    content = recording(name, settings).read_bytes()
    return {**told, "recording": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    stage.run(main)
