"""KServe's definition of an InferenceService, from its Go module, which is downloaded once. Nothing of it is built."""

from pathlib import Path

from tests.support.controlplane.gobuild import GoModule, cached_module_folder

MODULE = GoModule("kserve", Path(__file__).parent, {})


def inference_service_crd() -> Path:
    """The file with the CRD."""
    folder = cached_module_folder(MODULE, "github.com/kserve/kserve", "config/crd/full")
    return folder / "serving.kserve.io_inferenceservices.yaml"
