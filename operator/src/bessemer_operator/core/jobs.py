"""Jobs that a pipeline runs itself: resolve, compare, promote, report. Each is idempotent by the digest of its task."""

from dataclasses import dataclass
from datetime import datetime

from bessemer_api import API_VERSION
from bessemer_api.base import Metadata, Model
from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.evaluation import Attempt
from bessemer_api.v1alpha1.train import Limits
from bessemer_operator.core.attempts import Work, WorkState, reconcile_attempts
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_VERB, attempt_name, label_value, work_name
from bessemer_operator.core.plan import Observed
from bessemer_operator.core.profile import Profile


@dataclass(frozen=True, slots=True)
class PipelineJobs:
    """What every Job of one pipeline shares."""

    metadata: Metadata
    store: str
    profile: Profile
    seen: Observed
    now: datetime
    retry: str = ""
    suspend: bool = False
    late: tuple[Attempt, ...] = ()
    """Attempts that their deadline ended, as the status remembers them: else each would be the first again."""

    def run(self, verb: str, task: Model, salt: str = "") -> tuple[WorkState, str]:
        """State of the Job of this task, and the digest that its report must name.

        `salt` makes a task that looks at the world count as new (another generation, a refresh).
        """
        digest = sha256_digest(canonical_json({"verb": verb, "task": task.wire(), "salt": salt}))
        run = RunSpec.model_validate(
            {"run_uid": "-", "verb": verb, "store": self.store, "input_digest": digest, verb: task}
        )
        work = Work(
            owner=Owner(
                API_VERSION, "AdaptationPipeline", self.metadata.namespace, self.metadata.name, self.metadata.uid
            ),
            base_name=work_name(self.metadata.name, verb, digest),
            run=run,
            profile=self.profile,
            limits=Limits(deadline="6h"),
            labels={LABEL_PIPELINE: label_value(self.metadata.name), LABEL_VERB: verb},
            retry=self.retry,
            suspend=self.suspend,
        )
        late = [item for item in self.late if item.name == attempt_name(work.base_name, item.number)]
        state = reconcile_attempts(work, late, self.seen, self.now)
        return state, digest
