"""What the Grafana dashboards of the chart show: rows of panels with their queries. dashboards.py makes JSON of it.

docs/metrics.md says what every metric means. It must not know how Grafana writes a panel.
"""

from dataclasses import dataclass

S = 'job=~"$job", instance=~"$instance"'
"""Every query selects by these, so that one Grafana can show several clusters."""
P = f'{S}, namespace=~"$namespace", pipeline=~"$pipeline"'
POD = f"max by (namespace, pod, pipeline, stage) (bessemer_stage_pod_info{{{P}}})"


@dataclass(frozen=True)
class Query:
    """One PromQL expression, and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. `unit` is one of Grafana's."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    is_stat: bool = False


@dataclass(frozen=True)
class Board:
    """A dashboard: rows of panels, for one kind of reader."""

    file: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    has_price: bool = False


def of_stage(metric: str, how: str = "avg") -> Query:
    """A metric of pods, by the pipeline and stage that the operator knows them by."""
    joined = f"{metric}{{{S}}} * on (namespace, pod) group_left (pipeline, stage) {POD}"
    return Query(f"{how} by (namespace, pipeline, stage) ({joined})", "{{pipeline}} {{stage}}")


def quantile(q: float, metric: str, by: str) -> str:
    """A quantile of a histogram over the interval of the graph."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{S}}}[$__rate_interval])))"


HEALTH = (
    Panel(
        "Operators that hold the Lease",
        "One process works, any other waits. 0 for longer than 20 s: nothing is reconciled.",
        "short",
        (Query(f"sum(bessemer_lease_held{{{S}}})", "holders"),),
        is_stat=True,
    ),
    Panel(
        "Pipelines",
        "Ready: all that was declared is done. Stalled: a person is needed.",
        "short",
        (Query(f"sum by (phase) (bessemer_pipelines{{{S}}})", "{{phase}}"),),
    ),
    Panel(
        "Pods of attempts",
        "Pending for long: no room, no quota, or an image that can not be pulled.",
        "short",
        (Query(f"sum by (phase) (bessemer_pods{{{S}}})", "{{phase}}"),),
    ),
    Panel(
        "Work queue",
        "Objects that are due or being worked on. It should come back to 0.",
        "short",
        (Query(f"sum(bessemer_queue_depth{{{S}}})", "objects"),),
    ),
    Panel(
        "Length of a reconcile (p95)",
        "Reading is free, so this is the time of writes.",
        "s",
        (Query(quantile(0.95, "bessemer_reconcile_seconds", "kind"), "{{kind}}"),),
    ),
    Panel(
        "Reconciles by outcome",
        "conflict: somebody else wrote first, tried again at once. refused: the API server would not have it. "
        "error: a defect of the operator; its log has it.",
        "ops",
        (Query(f"sum by (outcome) (rate(bessemer_reconcile_seconds_count{{{S}}}[$__rate_interval]))", "{{outcome}}"),),
    ),
    Panel(
        "Requests to the API server",
        "By HTTP status; 0: no answer.",
        "reqps",
        (Query(f"sum by (code) (rate(bessemer_api_requests_total{{{S}}}[$__rate_interval]))", "{{code}}"),),
    ),
    Panel(
        "Idle gap (p95)",
        "From the end of a piece of work to the start of what waited for it.",
        "s",
        (Query(quantile(0.95, "bessemer_stage_handoff_seconds", ""), "gap"),),
    ),
    Panel(
        "Attempts that ended",
        "Preempted ones saved first and cost no attempt of the stage's limit.",
        "short",
        (Query(f"sum by (outcome) (increase(bessemer_attempts_total{{{S}}}[$__rate_interval]))", "{{outcome}}"),),
    ),
)

USE = (
    Panel(
        "GPUs held",
        "GPUs of running pods of stages.",
        "short",
        (Query(f"sum by (namespace, pipeline, stage) (bessemer_stage_pod_gpus{{{P}}})", "{{pipeline}} {{stage}}"),),
    ),
    Panel(
        "GPU hours",
        "Of all attempts of the stages that are there, also of those that failed.",
        "h",
        (
            Query(
                f"sum by (namespace, pipeline) (bessemer_stage_gpu_seconds{{{P}}}) / 3600", "{{namespace}}/{{pipeline}}"
            ),
        ),
    ),
    Panel(
        "Cost",
        "GPU hours times the price of one (the variable above).",
        "currencyUSD",
        (
            Query(
                f"sum by (namespace, pipeline) (bessemer_stage_gpu_seconds{{{P}}}) / 3600 * $price",
                "{{namespace}}/{{pipeline}}",
            ),
        ),
    ),
    Panel(
        "GPU busy",
        "Share of time in which the graphics or compute engine did anything (DCGM).",
        "percentunit",
        (of_stage("DCGM_FI_PROF_GR_ENGINE_ACTIVE"),),
    ),
    Panel(
        "Tensor cores busy",
        "Share of cycles in which the tensor pipe was active (DCGM): what training is bought for.",
        "percentunit",
        (of_stage("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),),
    ),
    Panel(
        "GPU memory used",
        "Frame buffer of the fullest GPU (DCGM).",
        "decmbytes",
        (of_stage("DCGM_FI_DEV_FB_USED", "max"),),
    ),
    Panel(
        "XID errors",
        "Number of the last XID error of a GPU (DCGM); 0: none. NVIDIA's list says what it means.",
        "short",
        (of_stage("DCGM_FI_DEV_XID_ERRORS", "max"),),
    ),
    Panel(
        "Length of stages",
        "From the first attempt to the end, by method: mean of those that ended.",
        "s",
        (
            Query(
                f"sum by (method) (rate(bessemer_stage_duration_seconds_sum{{{S}}}[$__rate_interval]))"
                f" / (sum by (method) (rate(bessemer_stage_duration_seconds_count{{{S}}}[$__rate_interval])) > 0)",
                "{{method}}",
            ),
        ),
    ),
)

TRAINING = (
    Panel("Loss", "Training loss of the newest step.", "short", (of_stage("bessemer_train_loss"),)),
    Panel("Tokens a second", "Over all ranks.", "short", (of_stage("bessemer_train_tokens_per_second"),)),
    Panel(
        "Model FLOP/s",
        "6 x parameters x tokens a second: what reaches the model, without recomputation.",
        "flops",
        (
            Query(
                "6 * avg by (namespace, pipeline, stage) ("
                f"bessemer_train_tokens_per_second{{{S}}} * on (namespace, pod) bessemer_train_parameters{{{S}}}"
                f" * on (namespace, pod) group_left (pipeline, stage) {POD})",
                "{{pipeline}} {{stage}}",
            ),
        ),
    ),
    Panel(
        "Model FLOP/s utilisation (MFU)",
        "Model FLOP/s as a share of the peak of the GPUs that the stage holds (the variable above: TFLOP/s of one).",
        "percentunit",
        (
            Query(
                "6 * avg by (namespace, pipeline, stage) ("
                f"bessemer_train_tokens_per_second{{{S}}} * on (namespace, pod) bessemer_train_parameters{{{S}}}"
                f" * on (namespace, pod) group_left (pipeline, stage) {POD})"
                f" / (sum by (namespace, pipeline, stage) (bessemer_stage_pod_gpus{{{P}}}) * $peak * 1e12)",
                "{{pipeline}} {{stage}}",
            ),
        ),
    ),
    Panel(
        "Norm of the gradient",
        "Before it is clipped. A spike that stays is the first sign of divergence.",
        "short",
        (of_stage("bessemer_train_grad_norm"),),
    ),
    Panel("Learning rate", "By the schedule.", "sci", (of_stage("bessemer_train_learning_rate"),)),
    Panel(
        "Tokens trained",
        "Since the stage began, over all attempts.",
        "short",
        (of_stage("bessemer_train_tokens_total"),),
    ),
    Panel("Seconds a step", "Length of an optimizer step.", "s", (of_stage("bessemer_train_step_seconds"),)),
    Panel(
        "Stall of a save",
        "How long the last checkpoint held training up.",
        "s",
        (of_stage("bessemer_train_checkpoint_stall_seconds"),),
    ),
    Panel(
        "Progress",
        "Share of each running stage that is done.",
        "percentunit",
        (Query(f"bessemer_stage_progress_ratio{{{P}}}", "{{pipeline}} {{stage}}"),),
    ),
    Panel(
        "Time left",
        "As the running pod reckons it.",
        "s",
        (Query(f"bessemer_stage_remaining_seconds{{{P}}}", "{{pipeline}} {{stage}}"),),
    ),
    Panel(
        "Evaluations under way",
        "Share of the items that are measured.",
        "percentunit",
        (Query(f"max by (namespace, pod) (bessemer_evaluate_progress_ratio{{{S}}})", "{{pod}}"),),
    ),
)

GATES = (
    Panel(
        "Score by axis",
        "Mean paired difference of candidate and baseline at the newest look; larger is better.",
        "short",
        (Query(f"bessemer_gate_score{{{P}}}", "{{pipeline}} {{gate}} {{axis}}"),),
    ),
    Panel(
        "Room to the margin (forgetting below 0)",
        "Score minus the margin that an axis must hold: near 0 it is hardly shown, below 0 something was lost.",
        "short",
        (
            Query(
                f"bessemer_gate_score{{{P}}} - on (namespace, pipeline, gate, axis)"
                f' max by (namespace, pipeline, gate, axis) (bessemer_gate_threshold{{{P}, bound="notWorseThan"}})',
                "{{pipeline}} {{gate}} {{axis}}",
            ),
        ),
    ),
    Panel(
        "Verdicts",
        "Since the operator began.",
        "short",
        (Query(f"sum by (gate, verdict) (bessemer_gate_decisions_total{{{S}}})", "{{gate}} {{verdict}}"),),
    ),
    Panel(
        "Channel records",
        "Every promotion and every rollback is a record.",
        "short",
        (Query(f"max by (namespace, pipeline, channel) (bessemer_channel_record{{{P}}})", "{{pipeline}} {{channel}}"),),
    ),
    Panel(
        "Promotions",
        "Since the operator began.",
        "short",
        (Query(f"sum(bessemer_promotions_total{{{S}}})", "promotions"),),
        is_stat=True,
    ),
)

BOARDS = (
    Board(
        "bessemer-platform.json",
        "Bessemer / Platform",
        "For whoever owns the cluster: is the operator well, what waits, what do GPUs do, what does it cost.",
        (("The operator", HEALTH), ("GPUs, time and cost", USE)),
        has_price=True,
    ),
    Board(
        "bessemer-training.json",
        "Bessemer / Training",
        "For whoever owns a model: how training goes, what gates measured, what was promoted.",
        (("Training", TRAINING), ("Gates and promotion", GATES)),
    ),
)
