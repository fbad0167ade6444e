from __future__ import annotations

from stv_exp.methods.choice import How, What, Where
from stv_exp.methods.registry import choices, register


@register("none")
class Nothing(What):
    """Nothing: prompting alone."""

    def needs(self, where: Where, what: What, how: How) -> str | None:
        if not where.inserts:
            return None
        return " or ".join(f"what={name}" for name in choices("what") if name != self.name)
