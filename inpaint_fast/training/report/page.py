"""The page: HTML that is one file, loads nothing, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from importlib.resources import files

from inpaint_fast._version import __version__
from inpaint_fast.completion.fills import FILLS
from inpaint_fast.data.folder import evenly
from inpaint_fast.training.columns import PLACE, columns_of
from inpaint_fast.training.report.curves import UNITS, Curve, chart, number, unit_of
from inpaint_fast.training.report.elements import Element, element, group, html
from inpaint_fast.training.report.runs import PNG, RecordedRun

GENERATOR = "inpaint_fast report"
"""By which a page says that it is one of these."""
STYLES = 8  # of runs, in page.css; after so many they come again, dashed
NOTES = {  # a column's name in words, and what it tells
    "psnr": ("PSNR", "dB in the hole; higher is better"),
    "ssim": ("SSIM", "in the hole; 1 is the truth"),
    "l1": ("L1", "mean absolute error in the hole; lower is better"),
    "l2": ("L2", "mean squared error in the hole; lower is better"),
    "sharpness": ("sharpness", "1 is as sharp as the truth, 0 flat"),
    "diversity": ("diversity", "1 is as varied as real pictures, 0 one picture"),
    "images_per_second": ("images per second", "trained on, since the start"),
    "saturated": ("saturated", "share of values at the ends of their range, less the truth's"),
    "critic_spread": ("critic spread", "standard deviation of the critic's outputs"),
    "adversarial_gradient": ("adversarial gradient", "its norm at the generated pictures"),
    "reconstruction_gradient": ("reconstruction gradient", "its norm at the generated pictures"),
}


def page(runs: Sequence[RecordedRun], *, pictures: int) -> tuple[str, list[str]]:
    """The page of these runs, and a sentence for each picture that it leaves out because it is none.

    Args:
        runs: at least one.
        pictures: at most so many of each run, spread evenly from its first to its last.
    """
    source = files("inpaint_fast.training.report")
    style, script = (source.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = ", ".join(run.name for run in runs)
    columns = columns_of(key for run in runs for row in run.rows for key in row)
    shown, left_out = _pictures(runs, pictures)
    sections = {
        "Warnings": _warnings(runs),
        "Held-out metrics": [_table(runs, columns.heldout), *_charts(runs, columns.heldout)] if columns.heldout else [],
        "Held-out pictures": shown,
        "Losses": _charts(runs, columns.losses),
        "Signals": _charts(runs, columns.signals),
        "Settings": _settings(runs),
    }
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=allowed),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=GENERATOR),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("header", element("h1", title), *map(_headline, range(len(runs)), runs), _choice()),
        group("main", [element("section", element("h2", name), *parts) for name, parts in sections.items() if parts]),
        element("footer", f"inpaint_fast {__version__}, {time.strftime('%Y-%m-%d %H:%M %z')}"),
        element("script", script),
    )
    return f"<!doctype html>\n{html(element('html', head, body, lang='en'))}\n", left_out


def _style(index: int) -> str:
    """The classes of a run's lines."""
    return f"run-{index % STYLES}" + (" again" if index // STYLES % 2 else "")


def _named(index: int, run: RecordedRun) -> Element:
    """A run's name with its colour."""
    return element("span", element("i", class_=f"key {_style(index)}"), run.name, class_="run")


def _headline(index: int, run: RecordedRun) -> Element:
    """A run: its recipe, and how far it is of how far it may go."""
    step, seconds = run.last["step"], run.last["seconds"]
    unit = unit_of(seconds)
    text = f"{step:.0f} steps in {seconds / UNITS[unit]:.3g} {unit}"
    reached = {"steps": step, "seconds": seconds}
    ends = {key: run.settings[key] for key in reached if isinstance(run.settings.get(key), int | float)}
    if ends and all(reached[key] < end for key, end in ends.items()):
        text += f", to end after {' or '.join(f'{number(end)} {key}' for key, end in ends.items())}"
    recipe = element("span", f"{run.about.get('recipe', '')}: {text}", class_="soft")
    return element("p", _named(index, run), " ", recipe)


def _choice() -> Element:
    """Along what the curves are drawn."""
    buttons = []
    for along, text in (("step", "steps"), ("seconds", "time")):
        chosen = {"checked": ""} if along == "step" else {}
        buttons.append(
            element("label", element("input", type="radio", name="along", id=f"along-{along}", **chosen), text)
        )
    return group("p", ["curves along ", *buttons], class_="soft choice")


def _warnings(runs: Sequence[RecordedRun]) -> list[Element]:
    items = [element("li", _named(i, run), " ", text) for i, run in enumerate(runs) for text in run.warnings]
    return [group("ul", items, class_="warnings")] if items else []


def _fills(runs: Sequence[RecordedRun]) -> list[tuple[str, str, RecordedRun]]:
    """Each fill that learns nothing: its name to show, its name in columns, a run that measured it. Runs that were
    measured on other crops have fills of their own."""
    found = []
    for fill in FILLS:
        own: dict[tuple[str, ...], RecordedRun] = {}
        for run in runs:
            if figures := tuple(number(value) for key, value in run.last.items() if key.startswith(f"{fill}_")):
                own.setdefault(figures, run)
        found += [(fill if len(own) == 1 else f"{fill} ({run.name})", fill, run) for run in own.values()]
    return found


def _table(runs: Sequence[RecordedRun], keys: Sequence[str]) -> Element:
    """The newest row of each run beside the fills."""
    rows = [(_named(i, run), [run.last.get(key) for key in keys]) for i, run in enumerate(runs)]
    for name, fill, run in _fills(runs):
        rows.append((element("span", name, class_="soft"), [run.last.get(f"{fill}_{key}") for key in keys]))
    head = [element("th", _note(key)[0], title=_note(key)[1]) for key in keys]
    lines = [
        element(
            "tr", element("th", name), *(element("td", "" if value is None else f"{value:#.4g}") for value in values)
        )
        for name, values in rows
    ]
    return element("div", element("table", element("tr", element("th"), *head), *lines), class_="wide numbers")


def _note(key: str) -> tuple[str, str]:
    """A column's name in words, and what it tells."""
    return NOTES.get(key, (key.removesuffix("_loss").replace("_", " "), ""))


def _charts(runs: Sequence[RecordedRun], keys: Sequence[str]) -> list[Element]:
    """A chart for each of these columns, with the fills where they have it."""
    fills, figures = _fills(runs), []
    for key in keys:
        levels = {name: run.last[f"{fill}_{key}"] for name, fill, run in fills if f"{fill}_{key}" in run.last}
        drawings, readout = [], []
        for along in PLACE:
            curves = [Curve(_style(i), run.points(key, along)) for i, run in enumerate(runs)]
            drawings.append(chart([curve for curve in curves if curve.points], levels, along))
        for i, run in enumerate(runs):
            if points := run.points(key, "step"):
                readout.append(element("span", _named(i, run), " ", element("b", number(points[-1][1]))))
        title, note = _note(key)
        caption = element("figcaption", element("b", title), " ", element("span", note, class_="soft"))
        readout.append(element("span", class_="soft at"))
        figures.append(element("figure", caption, group("p", readout, class_="readout"), *drawings, class_="chart"))
    return [group("div", figures, class_="charts")] if figures else []


def _pictures(runs: Sequence[RecordedRun], count: int) -> tuple[list[Element], list[str]]:
    """The runs' pictures, one of each at a time, under a slider; and a sentence for each file that is no picture."""
    figures, left_out, steps = [], [], set()
    for i, run in enumerate(runs):
        images = []
        for step in [list(run.pictures)[place] for place in evenly(len(run.pictures), count)]:
            data = run.pictures[step].read_bytes()
            if not data.startswith(PNG):
                left_out.append(f"{run.pictures[step]} is no PNG picture")
                continue
            steps.add(step)
            source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
            images.append(element("img", src=source, alt=f"{run.name}, step {step}", data_step=step, hidden="hidden"))
        if images:
            del images[-1].attrib["hidden"]
            place = element("span", f"step {images[-1].get('data-step')}", class_="soft at")
            figures.append(element("figure", element("figcaption", _named(i, run), " ", place), *images))
    if not figures:
        return [], left_out
    last = len(steps) - 1
    times = " ".join(map(str, sorted(steps)))
    slider = element("input", type="range", min=0, max=last, value=last, data_steps=times)
    label = element("label", element("span", "from the first to the newest", class_="soft"), slider)
    return [element("div", label, group("div", figures, class_="grids"), class_="pictures")], left_out


def _settings(runs: Sequence[RecordedRun]) -> list[Element]:
    """A table of all settings and versions, a column a run; those that differ are marked, and come first."""
    rows = []
    for part in ("about", "settings"):
        for key in dict.fromkeys(key for run in runs for key in getattr(run, part)):
            rows.append((key, [_value(getattr(run, part).get(key, "\N{EN DASH}")) for run in runs]))
    lines = []
    for key, values in sorted(rows, key=lambda row: len(set(row[1])) == 1):
        cells = [element("th", key, scope="row"), *(element("td", value) for value in values)]
        lines.append(group("tr", cells, class_="differs" if len(set(values)) > 1 else None))
    names = [element("th", _named(i, run)) for i, run in enumerate(runs)] if len(runs) > 1 else [element("th")]
    return [element("div", element("table", element("tr", element("th"), *names), *lines), class_="wide settings")]


def _value(value: object) -> str:
    """A setting as the command line takes it."""
    if value is None:
        return "not set"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
