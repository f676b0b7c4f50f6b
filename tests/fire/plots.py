"""The plots of docs/evidence, drawn from what the long runs wrote.

    python -m tests.fire.plots docs/evidence

The folder has soak.csv and soak.json, linkability.json, or some of them; each plot lies
beside its data, with what the machine was doing in its caption.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.fire.sampling import read

_CURVES: Final = (
    (
        "memory, MB",
        {"rss_kb": "resident", "anonymous_kb": "isoproxy's own", "pss_kb": "proportional"},
        1024,
    ),
    ("descriptors", {"descriptors": "descriptors"}, 1),
    ("tasks", {"tasks": "tasks"}, 1),
    ("flows, circuits", {"flows": "open flows", "circuits": "tor's circuits"}, 1),
    ("load of the machine", {"load": "1-minute load average"}, 1),
)


def soak(folder: Path) -> None:
    """soak.png: every curve over time, the warm-up shaded."""
    import matplotlib.pyplot as plt

    columns = read(folder / "soak.csv")
    report = json.loads((folder / "soak.json").read_text())
    minutes = [second / 60 for second in columns["seconds"]]
    figure, axes = plt.subplots(len(_CURVES), 1, sharex=True, figsize=(9, 11))
    for axis, (title, names, unit) in zip(axes, _CURVES, strict=True):
        for name, label in names.items():
            if name not in columns:  # of another version's run
                continue
            axis.plot(minutes, [value / unit for value in columns[name]], label=label, lw=1)
        axis.axvspan(0, report["warm_up_s"] / 60, color="0.92")
        axis.set_ylim(bottom=0)
        axis.set_ylabel(title)
        axis.legend(loc="lower right", fontsize=8)
    axes[-1].set_xlabel("minutes (grey: warm-up, not judged)")
    figure.suptitle(_soak_caption(report), fontsize=9)
    _save(figure, folder / "soak.png")


def _soak_caption(report: dict[str, Any]) -> str:
    growth = ", ".join(f"{name} {value['drift']:+.1%}" for name, value in report["growth"].items())
    return (
        f"{report['minutes']:.0f} minutes, {report['flows']['median']:.0f} open flows, "
        f"{report['flows_per_s']} new ones a second, {report['new_identities']} new identities\n"
        f"{report['cores']} cores, load average {report['load']['median']} (median), "
        f"{report['load']['most']} (most): other work ran beside it\n"
        f"growth after the warm-up: {growth}"
    )


def linkability(folder: Path) -> None:
    """linkability.png: what each classifier found, in the product and in builds with a fault."""
    import matplotlib.pyplot as plt

    reports = json.loads((folder / "linkability.json").read_text())
    runs = [name for name, report in reports.items() if isinstance(report, dict)]
    names = list(reports[runs[0]]["p"])
    rows = [[max(reports[run]["p"].get(name, 1.0), 1e-6) for name in names] for run in runs]
    figure, axis = plt.subplots(figsize=(10, 0.4 * len(runs) + 3))
    image = axis.imshow(rows, norm="log", vmin=1e-4, vmax=1.0, cmap="RdYlGn")
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(runs)), runs, fontsize=8)
    for at, row in enumerate(rows):
        for column, value in enumerate(row):
            axis.text(column, at, f"{value:.2g}", ha="center", va="center", fontsize=6)
    figure.colorbar(image, label="p")
    figure.suptitle(
        f"Linkability, {reports['hours']:g} h in all (--seed {reports['seed']}): p of each "
        "classifier; the product above, builds with a fault below",
        fontsize=9,
    )
    _save(figure, folder / "linkability.png")


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=100, metadata={"Software": None}, bbox_inches="tight")
    print(file)


def main() -> int:
    import matplotlib as mpl

    mpl.use("Agg")
    parser = argparse.ArgumentParser(prog="python -m tests.fire.plots")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/evidence"))
    folder = parser.parse_args().folder
    for draw in (soak, linkability):
        if (folder / f"{draw.__name__}.json").exists():
            draw(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
