"""Imported by the process that forks (`tests.forked`): what takes most of a command, done once."""

import gc

import faiss  # noqa: F401
import matplotlib.backends.backend_agg  # noqa: F401

import stv_exp.check_data
import stv_exp.cli
import stv_exp.pipeline
import stv_exp.report.__main__
import stv_exp.report.comparison  # noqa: F401
from stv_exp.models.sources import model_folder

model_folder("tiny")
gc.freeze()  # no fork looks through all that again
