"""What cache policies cost a trained checkpoint in quality, on a text file: the numbers of `evaluate`, recorded.

    python -m benchmarks.cache_quality --ckpt FILE --text FILE [--contexts 256,1024] [--policies "q8_0;q4_0"] ...

Takes the flags of `evaluate`; at least eight policies are asked for. Prints Markdown tables and writes
`results/cache_quality.json`, or `<name>.json` with --name. Nothing is added to the run folder.
"""

from __future__ import annotations

import sys

from benchmarks.record import record
from bottleneck_core.cli.evaluate import Words, measure
from bottleneck_core.cli.evaluate_text import COLUMNS, NOTES, PROBE_NOTES, markdown, probe_table, summary
from bottleneck_core.cli.trained import open_trained
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.memory import count_parameters

LEAST_POLICIES = 8


def main(argv: list[str]) -> int:
    name = "cache_quality"
    if "--name" in argv[:-1]:
        at = argv.index("--name")
        name, argv = argv[at + 1], [*argv[:at], *argv[at + 2 :]]
    try:
        words = read_words(Words, argv, prog="python -m benchmarks.cache_quality")
        if words.policies is not None and (given := len(words.policies.split(";"))) < LEAST_POLICIES:
            raise UserError(f"{given} policies are too few for a table: give at least {LEAST_POLICIES}")
        trained = open_trained(words.run or words.ckpt, words.device, words.dtype)
        document, evaluation = measure(words, trained)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for context in document["key"]["contexts"]:
        rows = [row for row in evaluation.quality if row.context == context]
        print(f"### {summary(rows[0])}\n")
        print(markdown([heading for heading, _ in COLUMNS], [[cell(row) for _, cell in COLUMNS] for row in rows]))
        print()
        needles = [row for row in evaluation.needle if row.context == context]
        if needles:
            print(markdown(*probe_table(needles, [row for row in evaluation.induction if row.context == context])))
            print()
    print("\n\n".join((*NOTES, *(PROBE_NOTES if evaluation.needle else ()))), end="\n\n")
    model = {
        setting: getattr(trained.config, setting)
        for setting in ("size", "exp", "attn_mode", "n_layer", "d_model", "n_head", "block_size", "vocab_size")
    }
    model["n_params"] = count_parameters(trained.config, trained.model.embed.num_embeddings)
    gpus = [document["key"]["device"]] if trained.device.type == "cuda" else []
    print(record(name, {"model": model} | document, gpus=gpus))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
