"""Methods are three choices: where to insert, what the candidates are, how one candidate a location is chosen.

Or one: an edit with parameters, which is trained. A choice is one small class in one file (`where/`, `what/`, `how/`,
`edit/`), or anywhere on the module path and named by its dotted path. It declares everything about itself: its name,
the settings it reads, what it needs, what it goes with. Nothing outside its file knows its name. Importing a choice
imports no torch.
"""

from stv_exp.methods.choice import How, What, Where
from stv_exp.methods.registry import register
from stv_exp.methods.trained import Trained

__all__ = ["How", "Trained", "What", "Where", "register"]
