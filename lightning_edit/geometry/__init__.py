"""The geometry of damage: what edits do to hidden representations (*Revisiting*, Section 4 and Appendix B).

Pure functions on tensors and thin torchmetrics classes, with one file that reads them from a model (`activations`).
Knows no Trainer and no editor.
"""

from lightning_edit.geometry.accumulation import LinearLaw, coherence, linear_law
from lightning_edit.geometry.activations import (
    Point,
    edited_parameters,
    ffn_points,
    random_state,
    read_rows,
    read_states,
    swapped,
)
from lightning_edit.geometry.change_metrics import FirstOrderError, PerturbationNorm, RelativeChangeRate
from lightning_edit.geometry.correlation import Correlation, correlate, spearman
from lightning_edit.geometry.first_order import activation_change, network_change
from lightning_edit.geometry.metrics import RepresentationSpectrum, SubspaceStability
from lightning_edit.geometry.perturbation import perturbation_norms
from lightning_edit.geometry.relative_change import across_sites, components, relative_change, summarise
from lightning_edit.geometry.spectrum import Spectrum, effective_rank, spectrum
from lightning_edit.geometry.stability import gap, principal_cosines, stability
from lightning_edit.geometry.step_metrics import Accumulation, AmplificationCorrelation

__all__ = [
    "Accumulation",
    "AmplificationCorrelation",
    "Correlation",
    "FirstOrderError",
    "LinearLaw",
    "PerturbationNorm",
    "Point",
    "RelativeChangeRate",
    "RepresentationSpectrum",
    "Spectrum",
    "SubspaceStability",
    "across_sites",
    "activation_change",
    "coherence",
    "components",
    "correlate",
    "edited_parameters",
    "effective_rank",
    "ffn_points",
    "gap",
    "linear_law",
    "network_change",
    "perturbation_norms",
    "principal_cosines",
    "random_state",
    "read_rows",
    "read_states",
    "relative_change",
    "spearman",
    "spectrum",
    "stability",
    "summarise",
    "swapped",
]
