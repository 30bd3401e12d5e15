"""report: read what the store holds about a pipeline and write its HTML report. Judges nothing, changes no artifact.

What is missing in the store is left out of the report, which says so: a report of a failed pipeline is worth having.
"""

from pydantic import ValidationError

from bessemer_api.digest import sha256_digest
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.reporting.page import render
from bessemer_trainer.reporting.reading import gather


def run(context: Context) -> Outcome:
    """Writes `reports/<pipeline>/<digest12>.html`. Raises PermanentError for a pipeline that can not be read."""
    task = context.spec.report
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    try:
        facts = gather(context.store, task)
    except (ValidationError, KeyError, TypeError) as error:
        raise PermanentError("TaskInvalid", f"the pipeline can not be reported: {error}") from error
    page = render(facts).encode()
    key = f"reports/{facts.name}/{sha256_digest(page).removeprefix('sha256:')[:12]}.html"
    context.store.write(key, page)
    return Outcome(url=context.store.url(key))
