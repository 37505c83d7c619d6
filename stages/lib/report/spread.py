"""The spread over seeds: the seeds that the scores are of, and a picture of all of them."""

from matplotlib.axes import Axes

from stages.lib.report import drawing, seeds
from stages.lib.report.content import (
    Block,
    Figure,
    Ink,
    Panel,
    code,
    escape,
    listed,
    plural,
)
from stages.lib.report.inputs import Results


def sentence(results: Results) -> str:
    """Say which seeds the scores are of, which rows of the collection do not count, and why."""
    commands = listed([code(command) for command in seeds.COMMANDS])
    found = results.seeds
    counts = {name: 1 + len(others) for name, others in found.others.items()}
    if results.several_seeds:
        of_each = sorted(set(counts.values()), reverse=True)
        shown = [
            f"{n} of {listed([name for name, count in counts.items() if count == n])}"
            for n in of_each
        ]
        said = (
            f"Scores are means over seeds ({'; '.join(shown)}), with the standard deviation over "
            "seeds. Costs, training curves and failures are those of the last run"
            f"{_of_seed(results)}, whose models are in data/models."
        )
        if elsewhere := _elsewhere(results):
            said += f" {elsewhere}"
    else:
        said = (
            f"Each model was trained once{_of_seed(results)}, so the intervals do not include how "
            "much a score changes with the seed."
        )
    # A demonstration on a subset changes the data, not what the collection is worth.
    outdated = found.unused if "subset" not in results.download["reviews"] else {}
    if outdated:
        rows = sum(outdated.values())
        return (
            f"{said} {plural(rows, 'row')} of {code(str(seeds.PATH))} "
            f"{'is' if rows == 1 else 'are'} not used, because code, data or parameters of "
            f"{listed([escape(name) for name in outdated])} have changed since. If the change "
            f"altered no prediction, {code(seeds.KEEP)} lets them count again; otherwise, renew "
            f"them with {commands}."
        )
    return said if results.several_seeds else f"{said} To add seeds, run {commands}."


def _of_seed(results: Results) -> str:
    known = sorted({seed for seed in results.seeds.last.values() if seed is not None})
    return f" (seed {listed([str(seed) for seed in known])})" if known else ""


def _elsewhere(results: Results) -> str:
    """Name the machines of other seeds where they differ from that of the model's last run."""
    machines = {
        f"{run.device}, {run.precision}"
        for name, others in results.seeds.others.items()
        for run in others
        if (run.device, run.precision)
        != (results.costs[name]["device"], str(results.costs[name]["precision"]))
    }
    if not machines:
        return ""
    shown = listed([f"({escape(machine)})" for machine in sorted(machines)])
    return f"Some of the other seeds were run on another device or in another precision {shown}."


def strips(results: Results) -> list[Block]:
    """Show every seed beside the mean and its interval, or nothing if there is only one."""
    if not results.several_seeds:
        return []

    def panel(split: str) -> Panel:
        def draw(ax: Axes, ink: Ink) -> None:
            for number, name in enumerate(results.models):
                seeds_at = results.by_seed(name, split, "accuracy")
                drawing.points(ax, ink, number, [number - 0.15] * len(seeds_at), seeds_at)
                accuracy, interval = results.accuracy(name, split), results.interval(name, split)
                drawing.point(ax, ink, number, number + 0.15, accuracy, interval)
            ax.set_xticks([])
            ax.set_ylabel(f"{split} accuracy")

        return Panel(f"{split} accuracy by seed", draw)

    ranges = [
        f"{name} from {min(values):.3f} to {max(values):.3f}"
        for name in results.models
        for values in [results.by_seed(name, "test", "accuracy")]
    ]
    return [
        Figure(
            "seeds",
            "Accuracy of each seed (hollow), and beside it the mean with its 95% interval.",
            f"Test accuracy over seeds: {'; '.join(ranges)}.",
            [panel(split) for split in seeds.SPLITS],
            {name: number for number, name in enumerate(results.models)},
        )
    ]
