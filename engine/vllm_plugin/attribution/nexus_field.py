"""Read the field `nexus` of a request:

"nexus": {"routing": true | "blocks", "prompt": true, "disable": [NAME] | "only": [NAME]}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.experts import Experts

FIELD = "nexus"
# In every answer to a request with the field. Where it is missing, nobody has read the field.
HEADER, READ = "x-nexusmix-nexus", "read"
BLOCKS = "blocks"
ROUTING, PROMPT, DISABLE, ONLY = KEYS = "routing", "prompt", "disable", "only"


class Refused(Exception):
    """The field is wrong. The text says where and what would be right; `param` names the part."""

    def __init__(self, text: str, *, key: str | None = None) -> None:
        super().__init__(text)
        self.param = f"{FIELD}.{key}" if key else FIELD


def parse(field: Any, request: Mapping[str, Any], experts: Experts | None) -> Asked:
    """Return what the field asks of a model with these experts, or of a model without. Raises
    Refused."""
    if not isinstance(field, dict):
        raise Refused('`nexus` must be an object, as in {"routing": true}')
    if unknown := [key for key in field if key not in KEYS]:
        raise Refused(f"`nexus` has no {_short(unknown[0])}, only {', '.join(KEYS)}")
    if experts is None:
        raise Refused(
            "this model is one network without experts to choose from: `nexus` is for mixes"
        )
    if request.get("use_beam_search"):
        raise Refused("`nexus` does not go with beam search")
    routing = _choice(field, ROUTING, others=[BLOCKS])
    prompt = _choice(field, PROMPT)
    if prompt and not routing:
        raise Refused("`nexus.prompt` is part of routing: ask for `nexus.routing` too", key=PROMPT)
    return Asked(
        disabled=_disabled(field, experts),
        routing=bool(routing),
        blocks=routing == BLOCKS,
        prompt=bool(prompt),
    )


def _choice(field: Mapping[str, Any], key: str, *, others: Sequence[str] = ()) -> bool | str:
    """Return true, false or another allowed value; what is missing or null is false."""
    value = field.get(key)
    if value is None:
        return False
    if isinstance(value, bool) or (isinstance(value, str) and value in others):
        return value
    allowed = " or ".join(["true", *(f'"{other}"' for other in others)])
    raise Refused(f"`nexus.{key}` must be {allowed}", key=key)


def _disabled(field: Mapping[str, Any], experts: Experts) -> tuple[int, ...]:
    """Return the numbers of the experts that are switched off."""
    given = [key for key in (DISABLE, ONLY) if field.get(key) is not None]
    if len(given) == 2:
        raise Refused("`nexus` takes `disable` or `only`, not both")
    if not given:
        return ()
    [key] = given
    names = field[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(f"`nexus.{key}` must be a list of names of experts", key=key)
    if unknown := [name for name in names if name not in experts.numbers]:
        raise Refused(
            f"`nexus.{key}` names {_short(unknown[0])}, the experts are {experts.all_names}",
            key=key,
        )
    chosen = {experts.numbers[name] for name in names}
    answering = set(experts.numbers.values())
    disabled = answering - chosen if key == ONLY else chosen
    if disabled == answering:
        raise Refused(
            f"`nexus.{key}` leaves no expert; keep one of {experts.all_names}, or ask the seed",
            key=key,
        )
    return tuple(sorted(disabled))


def _short(text: str) -> str:
    """Quote a text of a stranger."""
    return repr(text[:63])
