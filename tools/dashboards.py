"""Writes the Grafana dashboards of the chart: `python tools/dashboards.py [--check] charts/bessemer/dashboards`.

The panels stand in panels.py; the Grafana foundation SDK turns them into JSON. `--check` writes nothing and exits 1
when a committed file differs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphDrawStyle, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from panels import BOARDS, Board, Panel, S

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 8, 8


def build(board: Board) -> dashboard.Dashboard:
    """The dashboard for the SDK to write."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(Path(board.file).stem)
        .description(board.description)
        .tags(["bessemer"])
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .readonly()
    )
    for variable in _variables(board):
        made = made.with_variable(variable)
    number = 0
    for title, panels in board.rows:
        made = made.with_row(dashboard.Row(title).id(number := number + 1))
        for panel in panels:
            made = made.with_panel(_panel(panel, number := number + 1))
    return made


def _variables(board: Board) -> list[object]:
    ours = '{__name__=~"bessemer_.+|DCGM_.+"}'
    here = '{__name__=~"bessemer_.+|DCGM_.+", job=~"$job"}'
    pods = f'bessemer_stage_pod_info{{{S}, namespace=~"$namespace"}}'
    found: list[object] = [dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")]
    found += [
        _query_variable("job", "Job", f"label_values({ours}, job)"),
        _query_variable("instance", "Instance", f"label_values({here}, instance)"),
        _query_variable("namespace", "Namespace", f"label_values(bessemer_gate_threshold{{{S}}}, namespace)"),
        _query_variable("pipeline", "Pipeline", f"label_values({pods}, pipeline)"),
    ]
    if board.has_price:
        return [*found, _number("price", "Price of a GPU hour", "2.5")]
    return [*found, _number("peak", "Peak TFLOP/s of a GPU", "989")]


def _query_variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _number(name: str, label: str, value: str) -> dashboard.TextBoxVariable:
    return dashboard.TextBoxVariable(name).label(label).default_value(value)


def _panel(panel: Panel, number: int) -> object:
    made = stat.Panel() if panel.is_stat else _graph()
    made = made.id(number).title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + index))
        made = made.with_target(target.datasource(SOURCE).range())
    return made.span(WIDTH).height(HEIGHT)


def _graph() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    graph = timeseries.Panel().draw_style(GraphDrawStyle.LINE).show_points(VisibilityMode.AUTO)
    return graph.fill_opacity(10).legend(legend)


def generated() -> dict[str, str]:
    """Every dashboard by file name."""
    return {
        board.file: json.dumps(build(board).build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
        for board in BOARDS
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check compare them. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python tools/dashboards.py")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    options = parser.parse_args(arguments)
    stale = 0
    for name, text in generated().items():
        path = options.folder / name
        if options.check and (not path.is_file() or path.read_text() != text):
            print(
                f"{path} differs from tools/dashboards.py; run: python tools/dashboards.py {options.folder}",
                file=sys.stderr,
            )
            stale = 1
        elif not options.check:
            path.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main())
