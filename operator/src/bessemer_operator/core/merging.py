"""Waiting for the merge of a pull request: the Job that proposed it runs again, round by round, until git has it. Pure.

A round that ended is answered by the next one once its time has come; the number of the round makes it another Job.
The status remembers the round. If that is lost the rounds are found again, because their Jobs are still there.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from bessemer_api.job import PromoteTask, RollbackTask
from bessemer_api.v1alpha1.git import MergeWait
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.durations import parse_duration
from bessemer_operator.core.jobs import PipelineJobs

WAITING = "WaitingForMerge"


@dataclass(frozen=True, slots=True)
class Merging:
    """The Job of the newest round; `wait` is what the status shall remember, `due` how long until the next round."""

    state: WorkState
    wait: MergeWait | None = None
    due: timedelta | None = None


def run_until_merged(
    jobs: PipelineJobs, verb: str, task: PromoteTask | RollbackTask, known: MergeWait | None
) -> Merging:
    """Run the verb, again and again while it says that a merge is waited for."""
    digest = task.candidate if isinstance(task, PromoteTask) else task.digest
    wait = known if known is not None and known.digest == digest else MergeWait(digest=digest)
    while True:
        state, _ = jobs.run(verb, task, salt=f"merge/{wait.round}" if wait.round else "")
        report = (state.report.promote or state.report.rollback) if state.report else None
        if report is None:
            return Merging(state, wait if wait.url and state.phase != "Failed" else None)
        if report.outcome != WAITING or task.git is None:
            return Merging(state)
        wait = MergeWait(digest=digest, url=report.url, round=wait.round)
        left = datetime.fromisoformat(state.attempts[-1].finished_at) + parse_duration(task.git.poll_every) - jobs.now
        if left > timedelta(0) or jobs.suspend:
            return Merging(state, wait, left if left > timedelta(0) else None)
        wait = wait.model_copy(update={"round": wait.round + 1})


def merge_words(wait: MergeWait) -> tuple[str, str]:
    """Reason and message of the wait."""
    return WAITING, f"waits for a person to merge {wait.url}"
