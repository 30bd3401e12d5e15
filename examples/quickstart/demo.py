"""The whole job on real data: python examples/quickstart/demo.py (or `make demo`).

A model is pretrained, taught to follow instructions, made a specialist in three ways, judged on four axes and promoted;
beside it the gates judge three more: a model that forgot, a retraining of the last stage, and a gate with too few
items. Each is its own pipeline file in this folder; all of them share
one store, so that what they have in common is made once. A second run takes seconds.

Whatever the gates say is what is shown: a refusal is a result, not an error of the demo. Exit code 0 when every
pipeline came to a verdict.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERDICT_REACHED = {0, 4}
"""Exit codes of `bessemer run`: promoted, or a gate that was not passed."""


@dataclass(frozen=True)
class Act:
    """One pipeline file, and what it is here to show."""

    file: str
    shows: str


ACTS = (
    Act(
        "pipeline.yaml",
        "a specialist is trained, aligned, merged: is one of three candidates better, and nothing lost?",
    ),
    Act("no-replay.yaml", "the same facts without replay: what is forgotten?"),
    Act("retrain.yaml", "the same recipe with another seed: is a retraining an improvement?"),
    Act("small-gate.yaml", "a gate with 60 items: can it show anything at all?"),
)


def main() -> int:
    """Fetch the data, run the pipelines one after the other, and sum up."""
    begun = time.monotonic()
    subprocess.run([sys.executable, str(HERE / "fetch_data.py")], check=True)
    for number, act in enumerate(ACTS, 1):
        print(f"\n=== {number} of {len(ACTS)}: {act.file}: {act.shows}", flush=True)
        code = subprocess.run([*bessemer(), "run", str(HERE / act.file)], check=False).returncode
        if code not in VERDICT_REACHED:
            print(f"\nThe demo stopped: bessemer run {act.file} ended with exit code {code}. Run it again to go on.")
            return code
    print(f"\n=== What the gates said ({time.monotonic() - begun:.0f} seconds)\n")
    for act in ACTS:
        tell(act)
    print("\nEdit a learning rate in examples/quickstart/pipeline.yaml and run `make demo` again: only what depends on")
    print("it runs. `bessemer status examples/quickstart/pipeline.yaml` shows every stage.")
    return 0


def bessemer() -> list[str]:
    """The program of this environment."""
    return [sys.executable, "-m", "bessemer_operator.cli.main"]


def tell(act: Act) -> None:
    """What stopped a pipeline, or else the verdict of its release gate; and its report."""
    command = [*bessemer(), "status", str(HERE / act.file), "-o", "json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    status = json.loads(answer)["status"]
    gates = status.get("gates", [])
    gate = next((item for item in gates if item["verdict"] != "Passed"), gates[-1] if gates else {})
    promoted = next(item for item in status["conditions"] if item["type"] == "Promoted")
    print(f"{act.file}: {gate.get('verdict', 'no verdict')}; promoted: {promoted['status'] == 'True'}")
    print(f"    {gate.get('message', '')}")
    print(f"    report: {status.get('report', '')}")
    for channel in status.get("channels", []):
        if "release" in channel:
            print(f"    model card: {HERE}/.bessemer/store/artifacts/{channel['release'].replace(':', '-')}/README.md")


if __name__ == "__main__":
    sys.exit(main())
