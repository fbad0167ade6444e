from __future__ import annotations

from stv_exp.methods.choice import How, What, Where
from stv_exp.methods.registry import register


@register("none")
class Nowhere(Where):
    """Nowhere: prompting with `method.shots` demonstrations, or reading alone."""

    inserts = False

    def needs(self, where: Where, what: What, how: How) -> str | None:
        if what.name == "none" and (how.name == "none" or how.classifies):
            return None
        return "what=none and how=none: there is nowhere to insert"
