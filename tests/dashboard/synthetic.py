"""Run folders as training leaves them, written with the store's own writers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bottleneck_core.config import RunConfig
from bottleneck_core.store.analysis import AnalysisWriter
from bottleneck_core.store.events import EventWriter

METRICS = ("entropy", "local_mass", "topk_mass", "null_mass", "sink_mass")


class SyntheticRun:
    """A run that the test trains: each step writes what a trainer would."""

    def __init__(self, root: Path, run_id: str, *, steps: int = 100, exp: str = "paper_bottleneck") -> None:
        self.path = root / run_id
        self.path.mkdir(parents=True)
        self.steps = steps
        self.step = 0
        self.config = RunConfig.resolve(size="nano", exp=exp, steps=steps, log_every=1).model_dump(mode="json")
        self.write("config.json", self.config)
        self.write("manifest.json", {"created": "2026-01-02T03:04:05+00:00", "n_params": 1_234_567, "argv": ["train"]})
        self.events = EventWriter(self.path / "train.jsonl")
        self.events.write("meta", 0, argv=["train"], env={"device": "cpu"}, config=self.config)
        self.events.write("mem", 0, kv_128k_bytes=24_576_000, kv_ctx_bytes=49_152, vocab_size=256)
        self.events.flush()

    def close(self) -> None:
        """The trainer is gone."""
        self.events.close()

    def write(self, name: str, value: object) -> None:
        (self.path / name).write_text(json.dumps(value))

    def train(self, count: int, eval_every: int = 10, loss: float | None = None) -> None:
        """`count` more steps, the loss falling towards 2, with an evaluation at each `eval_every`-th."""
        for step in range(self.step, self.step + count):
            value = 2 + 3.5 * np.exp(-step / 30) if loss is None else loss
            if step % eval_every == 0:
                self.evaluate(step, value + 0.05)
            self.events.write(
                "train",
                step,
                loss=value,
                ppl=float(np.exp(value)),
                tok_s=12_345.0,
                lr=2e-3,
                tokens=(step + 1) * 4096,
                grad_norm_attn=0.5,
                grad_norm_ffn=0.4,
                grad_clip_total_norm=0.8,
            )
        self.step += count
        self.events.flush()

    def evaluate(self, step: int, value: float) -> None:
        self.events.write("eval", step, train_loss=value - 0.05, val_loss=value, val_ppl=float(np.exp(value)))
        self.events.flush()

    def analyse(self, probes: int = 3) -> None:
        """analysis.h5 with `probes` rows, every value different."""
        n_layer, n_head = self.config["n_layer"], self.config["n_head"]
        rng = np.random.default_rng(0)
        with AnalysisWriter.create(
            self.path / "analysis.h5",
            n_layer=n_layer,
            n_head=n_head,
            attn_metrics=METRICS,
            weight_metrics=("stable_rank_q",),
        ) as writer:
            for probe in range(probes):
                values = {name: rng.random((n_layer, n_head)) for name in METRICS}
                writer.append(probe * 10, attn=values, weights={"stable_rank_q": rng.random(n_layer) + 1})

    def finish(self, reason: str = "completed") -> None:
        """The last evaluation, the summary and the end."""
        self.evaluate(self.steps, 2.1)
        self.events.write("done", self.steps, reason=reason)
        self.events.flush()
        (self.path / "summary.md").write_text("# Run Summary\n\n## Results\n\n- Best val loss: `2.100000`\n")
