"""Methods are three choices: where to insert, what the candidates are, how one candidate a location is chosen.

A choice is one small class in one file (`where/`, `what/`, `how/`), or anywhere on the module path and named by its
dotted path. It declares everything about itself: its name, the settings it reads, what it needs, what it goes with.
Nothing outside its file knows its name. Importing a choice imports no torch.
"""

from stv_exp.methods.choice import How, What, Where
from stv_exp.methods.registry import register

__all__ = ["How", "What", "Where", "register"]
