"""What `evaluate` prints for people: one table of quality and one of probes for each context, units in the headings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bottleneck_core.figures import numbers
from bottleneck_core.generate.evaluation import Evaluation
from bottleneck_core.generate.probes import InductionScore, NeedleScore
from bottleneck_core.generate.quality import PolicyQuality

if TYPE_CHECKING:
    import pandas as pd

Column = tuple[str, Callable[[PolicyQuality], str]]

COLUMNS: tuple[Column, ...] = (
    ("policy", lambda row: row.policy),
    ("NLL, nats/token", lambda row: numbers.loss(row.nll)),
    ("ΔNLL ± SE, nats/token", lambda row: _delta(row)),
    ("perplexity", lambda row: numbers.perplexity(row.ppl)),
    ("× baseline", lambda row: f"{row.ppl_ratio:.4f}"),
    ("mean KL, nats", lambda row: numbers.scalar(row.kl_mean)),
    ("KL 99.9 %, nats", lambda row: numbers.scalar(row.kl_p999)),
    ("same top-1", lambda row: f"{100 * row.same_top1:.2f} %"),
    ("read packed", lambda row: numbers.MISSING if row.packed_share is None else f"{100 * row.packed_share:.0f} %"),
    ("cache", lambda row: numbers.size(row.bytes)),
    ("one more token", lambda row: numbers.exact_size(row.slope_bytes_per_token)),
)
NOTES = (
    "ΔNLL, KL and top-1: against the baseline (first row), on the same tokens; SE over windows.",
    "read packed: share of the cached positions read that lies beyond the window of newest tokens kept in fp16 "
    "(128 unless residual= says otherwise); at 0 % the formats were not measured.",
)
PROBE_NOTES = (
    "needle: ln of the probability of a planted value after its key (share of prompts where it came first), by depth; "
    "no better than the control: this model retrieves nothing.",
    "induction: NLL of a repeated random sequence's second copy minus the first (share of its tokens predicted); "
    "below 0: the model copies.",
)


def print_evaluation(title: str, evaluation: Evaluation) -> None:
    console = Console(highlight=False)
    for context in sorted({row.context for row in evaluation.quality}):
        rows = [row for row in evaluation.quality if row.context == context]
        console.print(f"[bold]{title}[/bold]: {summary(rows[0])}", soft_wrap=True)
        _print(console, [name for name, _ in COLUMNS], [[cell(row) for _, cell in COLUMNS] for row in rows])
        needles = [row for row in evaluation.needle if row.context == context]
        if needles:
            _print(console, *probe_table(needles, [row for row in evaluation.induction if row.context == context]))
        console.print()
    for note in (*NOTES, *(PROBE_NOTES if evaluation.needle else ())):
        console.print(note, soft_wrap=True)


def quality_frame(rows: Sequence[PolicyQuality]) -> pd.DataFrame:
    """Rows of `cache_quality` as people read them, a line a policy: what the table of `evaluate` shows."""
    import pandas as pd

    cells = [[cell(row) for _, cell in COLUMNS] for row in rows]
    return pd.DataFrame(cells, columns=[heading for heading, _ in COLUMNS]).set_index("policy")


def summary(row: PolicyQuality) -> str:
    """What a context's rows were measured on."""
    return (
        f"context {row.context:,} tokens, {row.windows} windows x {row.scored} scored = {row.scored_tokens:,} tokens, "
        f"baseline {row.policy}"
    )


def probe_table(needles: Sequence[NeedleScore], repeats: Sequence[InductionScore]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the probes at one context, policies down, depths across."""
    depths = sorted({row.depth for row in needles})
    headings = ["policy", *(f"needle at {100 * depth:.0f} %, nats" for depth in depths), "control, nats"]
    rows = []
    for repeat in repeats:
        of_policy = {row.depth: row for row in needles if row.policy == repeat.policy}
        found = [f"{of_policy[depth].log_prob:.3f} ({100 * of_policy[depth].top1:.0f} %)" for depth in depths]
        control = f"{of_policy[depths[0]].control_log_prob:.3f}"
        copied = f"{repeat.score:+.4f} ({100 * repeat.top1:.1f} %)"
        rows.append([repeat.policy, *found, control, copied])
    return [*headings, "induction, nats/token"], rows


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is left-aligned, numbers right."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def _delta(row: PolicyQuality) -> str:
    error = numbers.MISSING if row.delta_nll_se is None else f"{row.delta_nll_se:.4f}"
    return f"{row.delta_nll:+.4f} ± {error}"


def _print(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, heading in enumerate(headings):
        # The unit on a second line: eleven columns would not fit a terminal otherwise.
        table.add_column(heading.replace(", ", "\n"), justify="right" if at else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A narrow terminal folds the lines; rich would cut the numbers.
    wide = Console(highlight=False, width=1000).measure(table).maximum
    Console(highlight=False, width=max(console.width, wide)).print(table)
