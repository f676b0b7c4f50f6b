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
    """linkability.png: both latencies and both waits, for isoproxy and for the mutants."""
    import matplotlib.pyplot as plt

    reports = json.loads((folder / "linkability.json").read_text())
    shown = [name for name, report in reports.items() if isinstance(report, dict)]
    figure, axes = plt.subplots(len(shown), 2, figsize=(9, 2.4 * len(shown)), squeeze=False)
    for (left, right), name in zip(axes, shown, strict=True):
        report = reports[name]
        samples = report["samples"]
        for key, label in (("same_name_s", "same name"), ("other_name_s", "another name")):
            left.ecdf(samples[key], label=f"after A asked the {label}".replace("the an", "an"))
        left.set_xlabel(f"look-up of B, s (p = {report['timing_p']})", fontsize=8)
        left.set_ylabel(name)
        for key, label in (("after_lookups_s", "a look-up"), ("after_moments_s", "any moment")):
            right.ecdf(samples[key], label=f"after {label}")
        right.set_xlabel(f"until the next refill, s (p = {report['refill_p']})", fontsize=8)
        right.set_title(f"found: {', '.join(report['found']) or 'nothing'}", fontsize=8)
        left.legend(fontsize=7)
        right.legend(fontsize=7)
    figure.suptitle(f"Linkability of two users (--seed {reports['seed']})", fontsize=9)
    _save(figure, folder / "linkability.png")


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=100, metadata={"Software": None})
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
