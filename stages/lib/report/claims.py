"""What did the published experiment claim, and what holds here?"""

from dataclasses import dataclass

from stages.lib.core.costs import Allocation, ClaimsCosts, ModelCosts
from stages.lib.core.metrics import Merge, Swap
from stages.lib.report.content import (
    Cell,
    Section,
    Table,
    Text,
    between,
    escape,
    listed,
    megabytes,
    p_value,
    plural,
    points,
    size,
)
from stages.lib.report.differences import Comparison, Comparisons
from stages.lib.report.inputs import Results
from stages.lib.report.others import PUBLISHED

HOLDS, FAILS = "holds", "does not hold"
UNCLEAR, MISSING = "cannot tell", "not measured here"

# Costs are measured once; a smaller relative difference may be noise.
NOISE = 0.10
SLIGHTLY = 0.03  # an improvement of accuracy that is no more than slight
LARGEST_DIFFERENCE = 1e-3  # of logits or scores, that rounding may cause


@dataclass(frozen=True)
class Claim:
    claim: str
    published: str
    measured: str
    verdict: str


def judge(results: Results, comparisons: Comparisons) -> list[Claim]:
    """Judge every claim: what was measured, and the verdict."""
    return [
        _share(results),
        _size(results),
        _memory(results),
        _speed(results),
        _merged(results.claims["merge"]),
        _swapped(results.claims["swap"]),
        *_mixed(results.claims_costs),
        _strong_svm(comparisons["finetune-full", "svm"]),
        _lora_wins(results, comparisons),
        _full_improves(comparisons["finetune-full", "svm"]),
    ]


def section(claims: list[Claim], costs: ClaimsCosts) -> Section:
    """Build the section with the table of claims."""
    return Section(
        "claims",
        "What did the published experiment claim, and what holds here?",
        [
            Text(_summary(claims), "answer"),
            Table(
                "claims-table",
                "Each claim, the published evidence for it, what was measured here, and the "
                "verdict.",
                ["claim", "published", "measured here", "verdict"],
                [
                    [
                        claim.claim,
                        claim.published,
                        claim.measured,
                        Cell(claim.verdict, kind=claim.verdict.replace(" ", "-")),
                    ]
                    for claim in claims
                ],
                prose=["claim", "published", "measured here", "verdict"],
            ),
            Text(
                "The verdicts on scores come from the comparisons on the test split above. Costs "
                f"were measured once, so a difference under {NOISE:.0%} counts as “cannot tell”; "
                "the verdict is about the device and precision that are named, and may differ "
                "elsewhere. "
                "In this table LoRA means lora-2e-4, full fine-tuning means finetune-full, and the "
                "SVM means svm."
            ),
            Text(tensors(costs)),
        ],
    )


def _summary(claims: list[Claim]) -> str:
    def of(verdict: str) -> int:
        return sum(claim.verdict == verdict for claim in claims)

    holding = of(HOLDS)
    parts = [f"{holding} of {len(claims)} claims {'holds' if holding == 1 else 'hold'} here"]
    for verdict, one, many in (
        (FAILS, "does not", "do not"),
        (UNCLEAR, "cannot be decided", "cannot be decided"),
        (MISSING, "was not measured", "were not measured"),
    ):
        if count := of(verdict):
            parts.append(f"{count} {one if count == 1 else many}")
    return listed(parts) + "."


def _share(results: Results) -> Claim:
    cost = results.costs["lora-2e-4"]
    trained, total = cost["trainable_parameters"], cost["total_parameters"]
    share = trained / total
    return Claim(
        "LoRA trains about 1% of the parameters",
        "739,586 of 67,102,466 (1.1%)",
        f"{trained:,} of {total:,} ({share:.2%})",
        HOLDS if share < 0.02 else FAILS,
    )


def _size(results: Results) -> Claim:
    adapter, full = (results.costs[name]["size_bytes"] for name in ("lora-2e-4", "finetune-full"))
    return Claim(
        "An adapter is a small part of a model's size",
        "not quantified; the limit here is a tenth",
        f"{size(adapter)} instead of {size(full)} on disk: {adapter / full:.1%} of the size",
        HOLDS if adapter <= full / 10 else FAILS,
    )


def _memory(results: Results) -> Claim:
    lora, full = results.costs["lora-2e-4"], results.costs["finetune-full"]
    ratio = lora["peak_memory_mb"] / full["peak_memory_mb"]
    return Claim(
        "LoRA needs less memory to train than full fine-tuning",
        "less, not quantified",
        f"{_against(lora['peak_memory_mb'], full['peak_memory_mb'])} at the peak"
        f"{_where(lora, full)}",
        _less(ratio, _elsewhere(lora, full)),
    )


def tensors(costs: ClaimsCosts) -> str:
    """Say what adapters save of the tensors of a training step, and what they do not."""
    allocated = costs["allocated"]
    lora, full = allocated["lora"], allocated["full"]
    if lora["saved_activations_mb"] > full["saved_activations_mb"] / 2:
        share = lora["saved_activations_mb"] / _total(lora)
        reason = (
            "Adapters save gradients and optimizer states, but not most of the activations, which "
            f"are {share:.0%} of the tensors of LoRA"
        )
    else:
        reason = "Adapters save gradients, optimizer states and activations"
    kept = _against(lora["gradients_and_optimizer_mb"], full["gradients_and_optimizer_mb"])
    saved = _against(lora["saved_activations_mb"], full["saved_activations_mb"])
    weights = _against(lora["weights_mb"], full["weights_mb"])
    return (
        f"In one step on the {plural(allocated['reviews'], 'longest review')} "
        f"({allocated['precision']}; {escape(costs['device'])}), LoRA's tensors, compared "
        f"with those of full fine-tuning, take {_against(_total(lora), _total(full))}: gradients "
        f"and optimizer states {kept}, activations for the backward pass {saved}, and weights "
        f"{weights}. The activations are those of the largest part of the batch that is computed "
        f"at once. {reason}. Whatever else is in a peak is temporary, or belongs to libraries "
        "and their caches."
    )


def _total(parts: Allocation) -> float:
    return parts["weights_mb"] + parts["gradients_and_optimizer_mb"] + parts["saved_activations_mb"]


def _against(mine: float, other: float) -> str:
    """Compare two sizes in MB."""
    return f"{megabytes(mine)} against {megabytes(other)} ({_change(mine / other)})"


def _speed(results: Results) -> Claim:
    lora, full = results.costs["lora-2e-4"], results.costs["finetune-full"]
    ratio = full["samples_per_second"] / lora["samples_per_second"]
    return Claim(
        "LoRA trains in less time than full fine-tuning",
        "less, not quantified",
        f"{lora['samples_per_second']:,.0f} reviews/s against {full['samples_per_second']:,.0f} "
        f"(time per review {_change(ratio)}){_where(lora, full)}",
        _less(ratio, _elsewhere(lora, full)),
    )


def _less(ratio: float, elsewhere: str = "") -> str:
    """Judge a claim of lower cost; `ratio` is the cost claimed to be lower over the other one.

    `elsewhere` says why the two costs are not comparable, if they are not.
    """
    if elsewhere or abs(ratio - 1) < NOISE:
        return UNCLEAR
    return HOLDS if ratio < 1 else FAILS


def _where(first: ModelCosts, second: ModelCosts) -> str:
    return _elsewhere(first, second) or f" in {first['precision']} on {first['device']}"


def _elsewhere(first: ModelCosts, second: ModelCosts) -> str:
    machines = [f"{cost['device']}, {cost['precision']}" for cost in (first, second)]
    return "" if machines[0] == machines[1] else f"; not comparable: {' and '.join(machines)}"


def _merged(merge: Merge) -> Claim:
    largest = merge["largest_logit_difference"]
    return Claim(
        "An adapter can be merged: W' = W + BA, scaled by alpha/r",
        "equal outputs",
        f"the logits differ by at most {largest:.2g} over {plural(merge['reviews'], 'review')} "
        f"({merge['model']})",
        HOLDS if largest <= LARGEST_DIFFERENCE else FAILS,
    )


def _swapped(swap: Swap) -> Claim:
    same = swap["predictions_that_differ"] == 0
    close = swap["largest_score_difference"] <= LARGEST_DIFFERENCE
    return Claim(
        "One base serves several adapters, swapped in place",
        "yes",
        f"{listed(swap['adapters'])} on one loaded base: compared with each model loaded alone, "
        f"{plural(swap['predictions_that_differ'], 'prediction')} changed, and scores differ by "
        f"at most {swap['largest_score_difference']:.2g}",
        HOLDS if same and close else FAILS,
    )


def _mixed(costs: ClaimsCosts) -> list[Claim]:
    memory, speed = "Mixed precision saves up to half of the memory", "Mixed precision is faster"
    fp32, mixed = costs["fp32"], costs["mixed"]
    if mixed["precision"] is None:
        return [
            Claim(name, published, f"{mixed['reason']} ({costs['device']})", MISSING)
            for name, published in ((memory, "up to 50%"), (speed, "faster"))
        ]
    used = mixed["peak_memory_mb"] / fp32["peak_memory_mb"]
    time = fp32["samples_per_second"] / mixed["samples_per_second"]
    return [
        Claim(
            memory,
            "up to 50%",
            f"{megabytes(mixed['peak_memory_mb'])} in {mixed['precision']} against "
            f"{megabytes(fp32['peak_memory_mb'])} in fp32 ({_change(used)}) on {costs['device']}",
            _less(used),
        ),
        Claim(
            speed,
            "faster",
            f"{mixed['samples_per_second']:,.0f} reviews/s in {mixed['precision']} against "
            f"{fp32['samples_per_second']:,.0f} in fp32 ({_times(1 / time)} as fast) on "
            f"{costs['device']}",
            _less(time),
        ),
    ]


def _strong_svm(full: Comparison) -> Claim:
    """Judge whether the SVM is strong: full fine-tuning is not better than it."""
    interval = full.pair.interval
    if full.verdict == "better":
        verdict = FAILS
    elif full.verdict == "worse" or interval.high <= SLIGHTLY:
        verdict = HOLDS
    else:
        verdict = UNCLEAR
    return Claim(
        "The SVM on frozen features is already strong",
        "0.82 on validation; full fine-tuning 0.80",
        f"full fine-tuning is {_against_svm(full)}",
        verdict,
    )


def _lora_wins(results: Results, comparisons: Comparisons) -> Claim:
    # Only the published experiment's models count, whatever others there are.
    published = [name for name in PUBLISHED if name != "lora-2e-4"]
    by_verdict: dict[str, list[str]] = {}
    for name in published:
        by_verdict.setdefault(comparisons["lora-2e-4", name].verdict, []).append(name)
    if by_verdict.get("worse"):
        verdict = FAILS
    else:
        verdict = UNCLEAR if by_verdict.get("cannot tell") else HOLDS
    words = {
        "better": "better than",
        "worse": "worse than",
        "cannot tell": "not distinguishable from",
    }
    said = [f"{words[v]} {listed(by_verdict[v])}" for v in words if v in by_verdict]
    return Claim(
        "LoRA at a learning rate of 2e-4 wins",
        "0.841 on validation, the highest",
        f"{results.accuracy('lora-2e-4', 'test'):.3f} on test: {'; '.join(said)}",
        verdict,
    )


def _full_improves(full: Comparison) -> Claim:
    verdicts = {"better": HOLDS, "worse": FAILS, "cannot tell": UNCLEAR}
    more = full.verdict == "better" and full.pair.interval.low > SLIGHTLY
    return Claim(
        "Full fine-tuning slightly improves on the SVM",
        "its own figures say otherwise: 0.80 against 0.82 for the SVM",
        f"full fine-tuning is {_against_svm(full)}{': this is more than slightly' if more else ''}",
        verdicts[full.verdict],
    )


def _against_svm(found: Comparison) -> str:
    words = {
        "better": "better than the SVM",
        "worse": "worse than the SVM",
        "cannot tell": "not distinguishable from the SVM",
    }
    interval = found.pair.interval
    return (
        f"{words[found.verdict]} ({points(found.pair.difference)} points on test, 95% interval "
        f"{between(interval.low, interval.high)}, {p_value(found.p)})"
    )


def _change(ratio: float) -> str:
    return f"{round(100 * (ratio - 1)):+}%".replace("-", "\N{MINUS SIGN}")


def _times(factor: float) -> str:
    return f"{factor:,.3g} times"
