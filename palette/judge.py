"""The commands of judges as functions: ``palette.judge.calibrate("labelled.csv")``."""

from palette.stages.calibrate import calibrate as calibrate
