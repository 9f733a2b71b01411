"""What a test leaves: its file, the names of its measures, and how few patients are too few for more."""

RESULTS_FILE = "results.json"
"""What a training without a federation reached, in its folder."""

DICE, SURFACE_DICE, HD95, VOLUME_ERROR = "dice", "surface_dice", "hd95_mm", "volume_error_ml"
"""Volume error is the predicted volume less the true one, in millilitres."""

FEW_PATIENTS = 5
"""Below this many, a site gives means only."""
