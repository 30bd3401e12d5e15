"""Version v1alpha1 of the kinds. One kind a file; what several kinds share stands in data, gate and train."""

from bessemer_api.v1alpha1.evaluation import Evaluation
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_api.v1alpha1.stage import TrainingStage

KINDS = (AdaptationPipeline, TrainingStage, MergeJob, Evaluation)

__all__ = ["KINDS", "AdaptationPipeline", "Evaluation", "MergeJob", "TrainingStage"]
