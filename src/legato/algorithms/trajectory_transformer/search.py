"""A trained Trajectory Transformer with another search, or with a critic's Q in the place of its own values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from legato.algorithms.protocol import Parts
from legato.algorithms.trajectory_transformer.config import ENTRIES
from legato.algorithms.trajectory_transformer.config import TT as Config
from legato.algorithms.trajectory_transformer.trajectory_transformer import Planning, search_of
from legato.errors import LegatoError
from legato.options import hints, require_types


def compose(config: Config, policy: Planning, options: Mapping[str, Any], parts: Parts) -> tuple[Config, Planning]:
    """The same model, searched as the options say, for return by the Q of a critic where there is one: TT(+Q).

    Raises `LegatoError` for what is no option of a search or does not fit the model, and for a critic where nothing is
    searched for return.
    """
    require_types(ENTRIES[0].play, options, "search")
    kinds = get_args(hints(Config)["search"])
    if options.get("search", kinds[0]) not in kinds:
        raise LegatoError(f"a search is for {', '.join(kinds[:-1])} or {kinds[-1]}, not for '{options['search']}'")
    config = replace(config, **options)
    if parts.q_function is not None and config.search != "return":
        raise LegatoError("a policy of 'tt' searches for no return: it takes no critic")
    found = replace(policy, search=search_of(config), context=config.context, by=config.search)
    return config, replace(found, q_function=parts.q_function) if parts.q_function is not None else found
