"""Training curves as small SVG drawings that take the page's own colours, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {"loss": "loss", "learning_rate": "learning rate", "tokens_per_second": "tokens per second"}
INK, LINE, RULE = "#010101", "#020202", "#030303"  # stand-ins, replaced by what the page's style sheet says
COLOURS = {INK: "currentColor", LINE: "var(--accent)", RULE: "var(--rule)"}


def drawings(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Draw each run's curves: (run, [svg, ...])."""
    return [
        (run, [draw(curve["step"], curve[name], title, f"{run}-{name}") for name, title in TITLES.items() if name in curve])
        for run, curve in found["curves"].items()
    ]


def draw(steps: Sequence[float], values: Sequence[float], title: str, salt: str) -> str:
    """Draw one curve over updates. `salt` keeps the ids of two drawings on one page apart."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 8.5,
        "axes.edgecolor": RULE,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(3.3, 1.9), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(steps, values, color=LINE, linewidth=1.3, solid_joinstyle="round")
        axes.set_title(title, loc="left", fontsize=8.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 5), useMathText=True)
        axes.margins(x=0.01)
        if title != TITLES["loss"]:
            axes.set_ylim(bottom=0)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg, count=1)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]+", r"\1 var(--sans)", svg).replace("xlink:href", "href")
    for stand_in, colour in COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg
