"""Figures that are explored: the NEP series zoomed, the parameters hovered. Bokeh, inlined (1.3 MB of script)."""

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, HoverTool, Legend
from bokeh.plotting import figure

from calibration.common.figure_style import ALERT, BLACK, ESTIMATE, PRIOR, PURPLE, SIMULATOR, SKY, TRUTH
from calibration.common.units import FLUX_UNIT
from calibration.inversion.posterior import INFORMED

GREY = "#595959"
LINES = {
    "prior": ("prior", PRIOR, "solid", 1.2), "optimized": ("estimate", ESTIMATE, "solid", 1.8),
    "simulator": ("process model", SIMULATOR, "dashed", 1.4),
    "climatology": ("climatology", PURPLE, "dotted", 1.4),
    "constant": ("constant", ALERT, "dotted", 1.4),
}  # fmt: skip
BANDS = {"observed_": ("observations, 90 %", 0.15), "": ("true flux, 90 %", 0.35)}


def series_figure(table: pd.DataFrame, label: str, given: bool = False):
    """Daily flux with held-out days, bands and baselines.

    table: date, observed, valid, fitted, prior, optimized and, where known, simulator, constant, climatology,
    (observed_)low_90, (observed_)high_90; Mg C ha-1 day-1. given: the parameters were not fitted to these days.
    """
    table = table.assign(date=pd.to_datetime(table["date"])).sort_values("date", kind="stable")
    plot = figure(
        height=380, sizing_mode="stretch_width", x_axis_type="datetime", toolbar_location="above",
        tools="xpan,xwheel_zoom,xbox_zoom,reset",
        active_scroll=None, active_drag="xbox_zoom", y_axis_label=f"{label} ({FLUX_UNIT})",
    )  # fmt: skip
    entries = []
    source = _source(table)
    for prefix, (name, alpha) in BANDS.items():
        low, high = f"{prefix}low_90", f"{prefix}high_90"
        if low in table and high in table:
            band = plot.varea(x="date", y1=low, y2=high, source=source, fill_color=SKY, fill_alpha=alpha)
            entries.append((name, [band]))
    hovered = []
    for column, (name, color, dash, width) in LINES.items():
        if column in table:
            line = plot.line(
                x="date", y=column, source=source, line_color=color, line_width=width, line_dash=dash
            )  # fmt: skip
            line.visible = column not in ("climatology", "constant")
            entries.append(("given parameters" if given and column == "optimized" else name, [line]))
            hovered += [line] if column == "optimized" else []
    valid, fitted = table["valid"] == 1, table["fitted"] == 1
    for here, name, marker, color in (
        (valid & fitted, "observed" if given else "observed, fitted", "circle", GREY),
        (valid & ~fitted, "observed, held out", "cross", BLACK),
    ):  # fmt: skip
        if here.any():
            points = _source(table.loc[here, ["date", "observed"]])
            dots = plot.scatter(
                x="date", y="observed", source=points, size=5, marker=marker, line_color=color, fill_color=color
            )
            entries.append((name, [dots]))
    columns = [c for c in ("observed", "optimized", "prior", "simulator") if c in table]
    names = {c: LINES.get(c, (c,))[0] for c in columns} | ({"optimized": "given parameters"} if given else {})
    tips = [("day", "@date{%F}"), *((names[c], f"@{c}{{0.0000}}") for c in columns)]
    plot.add_tools(HoverTool(renderers=hovered, tooltips=tips, formatters={"@date": "datetime"}, mode="vline"))
    legend = Legend(items=entries, ncols=2, click_policy="hide", label_text_font_size="9pt", border_line_color=None)
    plot.add_layout(legend, "below")
    plot.xaxis.ticker.desired_num_ticks = 4  # legible on a telephone too
    plot.toolbar.logo = None
    return plot


def parameter_figure(table: pd.DataFrame, coloured: bool = True):
    """Prior-to-posterior intervals in units of the range, the most informed parameter on top; informed ones `coloured`.

    table: param_name, meaning, unit, prior, optimized, low_90, high_90, sd_ratio, and positions in the range (0-1):
    prior_unit, optimized_unit, low_unit, high_unit; where they are known, true and true_unit.
    """
    table = table.sort_values("sd_ratio", ascending=False, na_position="first")
    table = table.assign(color=np.where(coloured & (table["sd_ratio"] < INFORMED), ESTIMATE, "#9a9a9a"))
    names = list(table["param_name"].astype(str))
    source = _source(table.assign(param_name=names))
    plot = figure(
        height=60 + 17 * len(names), sizing_mode="stretch_width", y_range=names, x_range=(-0.02, 1.02), tools="",
        toolbar_location=None, x_axis_label="place in its range (0 to 1)",
    )  # fmt: skip
    bars = plot.hbar(y="param_name", left="low_unit", right="high_unit", height=0.5, source=source, color="color",
                     alpha=0.45)  # fmt: skip
    plot.scatter(x="prior_unit", y="param_name", source=source, marker="dash", angle=np.pi / 2, size=12, color=PRIOR,
                 line_width=2, legend_label="prior mean")  # fmt: skip
    dots = plot.scatter(x="optimized_unit", y="param_name", source=source, size=7, color="color",
                        legend_label="estimate; bar: 90 % interval")  # fmt: skip
    known = "true_unit" in table
    if known:
        plot.scatter(x="true_unit", y="param_name", source=source, marker="x", size=7, color=TRUTH, line_width=1.5,
                     legend_label="true value")  # fmt: skip
    plot.add_tools(HoverTool(renderers=[bars, dots], tooltips=[
        ("parameter", "@param_name"), ("meaning", "@meaning"), ("unit", "@unit"), ("estimate", "@optimized{0.0000a}"),
        ("90 % interval", "@low_90{0.0000a} to @high_90{0.0000a}"), ("prior mean", "@prior{0.0000a}"),
        ("posterior / prior sd", "@sd_ratio{0.00}"), *([("true value", "@true{0.0000a}")] if known else []),
    ]))  # fmt: skip
    plot.legend.location = "top_right"
    plot.add_layout(plot.legend[0], "above")
    plot.legend.orientation = "horizontal"
    plot.legend.border_line_color = None
    plot.ygrid.grid_line_color = None
    return plot


def _source(table: pd.DataFrame) -> ColumnDataSource:
    """The columns of a table as Bokeh takes them."""
    return ColumnDataSource({name: table[name].to_numpy() for name in table})
