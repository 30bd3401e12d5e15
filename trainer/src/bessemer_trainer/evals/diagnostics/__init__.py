"""Detectors of known failure modes: one file each, all with one signature, `Detector` in `diagnostics.common`."""

from collections.abc import Mapping

from bessemer_api.v1alpha1.diagnostic import DiagnosticName
from bessemer_trainer.evals.diagnostics import (
    calibration,
    chosen_log_probability,
    consistency,
    diversity,
    eos_rate,
    format_gap,
    general_loss,
    length_drift,
    merge_health,
    refusal_drift,
    retrieval_use,
)
from bessemer_trainer.evals.diagnostics.common import Detector

DETECTORS: Mapping[DiagnosticName, Detector] = {
    "generalLoss": general_loss.detect,
    "formatGap": format_gap.detect,
    "eosRate": eos_rate.detect,
    "diversity": diversity.detect,
    "lengthDrift": length_drift.detect,
    "chosenLogProbability": chosen_log_probability.detect,
    "calibration": calibration.detect,
    "consistency": consistency.detect,
    "mergeHealth": merge_health.detect,
    "refusalDrift": refusal_drift.detect,
    "retrievalUse": retrieval_use.detect,
}
"""Every diagnostic of the API has one."""
