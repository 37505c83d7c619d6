"""Compare all models, and write the report.

    python -m stages.report

reads    data/predictions, data/curves, data/raw, data/label-issues.csv, metrics/costs,
         metrics/download.json, metrics/label-issues.json, metrics/claims.json, metrics/seeds.json,
         dvc.lock (params: report)
writes   metrics/report.md; metrics/report/ with its pictures and the data of DVC's plots;
         metrics/report.html, the same report as one self-contained page
"""

from typing import TYPE_CHECKING

from stages.lib.core import manifest, metrics, outputs, paths, stage
from stages.lib.core.costs import ClaimsCosts, ModelCosts
from stages.lib.core.metrics import Claims, Download
from stages.lib.core.paths import COSTS, CURVES, METRICS, RAW
from stages.lib.models import registry
from stages.lib.schema import params

if TYPE_CHECKING:
    from stages.lib.report.inputs import Results

MARKDOWN = paths.METRICS / "report.md"
PAGE = paths.METRICS / "report.html"
PICTURES = paths.METRICS / "report"


def load() -> "Results":
    """Read everything that was measured, and the rule that decides.

    Raises InputError for a missing or invalid file.
    """
    rule = params.load("report").report
    from stages.lib.core import predictions
    from stages.lib.labels import issues
    from stages.lib.report import inputs
    from stages.lib.scores import scoring

    models, labels = registry.names(), manifest.read(RAW)["labels"]
    download = metrics.read(METRICS / "download.json", Download)
    rows = {name: predictions.read(name) for name in models}
    results = inputs.Results(
        models=models,
        labels=labels,
        download=download,
        scores={name: scoring.of_predictions(rows[name], labels) for name in models},
        costs={name: metrics.read(COSTS / f"{name}.json", ModelCosts) for name in models},
        predictions={name: inputs.by_split(rows[name]) for name in models},
        texts=inputs.read_texts(RAW / "test.parquet"),
        curves={name: inputs.read_curves(CURVES / name) for name in models},
        label_issues=metrics.read(METRICS / "label-issues.json", issues.LabelIssues),
        suspects=issues.read(inputs.SUSPECTS),
        claims=metrics.read(METRICS / "claims.json", Claims),
        claims_costs=metrics.read(COSTS / "claims.json", ClaimsCosts),
        seeds=inputs.read_seeds(models, download),
        rule=rule,
    )
    inputs.check_aligned(results.predictions, results.texts)
    inputs.check_seeds(results)
    return results


def main() -> None:
    results = load()
    from stages.lib.report import drawing, markdown, overview, page, plots

    report = overview.write(results)
    texts = {MARKDOWN: markdown.render(report, PICTURES.name), PAGE: page.render(report)}
    with outputs.replacing_directory(PICTURES) as directory:
        for figure in report.figures:
            drawing.png(figure, directory / f"{figure.key}.png")
        plots.write(results, directory)
    for path, text in texts.items():
        with outputs.replacing(path) as aside:
            aside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    stage.run(main)
