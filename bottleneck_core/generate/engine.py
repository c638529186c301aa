"""Prefill and decode: a model, its cache, and the tokens that both have seen.

Legend: B requests, T tokens, N vocabulary.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import chain

import torch
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate.graph import GraphedDecoder, Graphs, refusal
from bottleneck_core.generate.layer import Plan, inference_dtype, layers_of
from bottleneck_core.generate.sampling import Sampler, Sampling
from bottleneck_core.kvcache import KVCache
from bottleneck_core.kvcache.cache import PAGE
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT

PREFILL_CHUNK = 512


class Engine:
    """Continues token sequences with a model and a cache of its keys and values.

    Without a policy the cache is native: it stores the model's own dtype, and cached decoding equals the full forward
    pass. `tokens` holds the ids of each request that the cache holds, padding left out. `graphs`: whether `generate`
    may repeat its steps as CUDA graphs; `graph_fallback` tells why the last token did not come from one, None where it
    did or none was drawn.
    """

    def __init__(
        self,
        model: GPT,
        policy: CachePolicy | None = None,
        *,
        plan: Plan | None = None,
        page: int = PAGE,
        graphs: Graphs = "auto",
    ) -> None:
        self.model = model.eval()
        self.policy = policy
        self.plan = plan or Plan()
        self.page = page
        self.graphs: Graphs = graphs
        self.graph_fallback: str | None = None
        self.device = model.embed.weight.device
        self.tokens: list[list[int]] = []
        self._set(self._new_cache(1))

    @property
    def fallback(self) -> str | None:
        """Why single tokens are not read by a fused kernel; None where they are, or none was asked for."""
        return next((layer.fallback for layer in self.layers if layer.fallback), None)

    def prefill(self, prompts: Sequence[Sequence[int]], chunk: int = PREFILL_CHUNK) -> Tensor:
        """Read the prompts and return the logits (B, N) of their next tokens.

        What the cache already holds of a single prompt's beginning is used again. Prompts of different length are
        padded on the left. Raises UserError for an empty prompt and for ids outside the vocabulary.
        """
        self._validate(prompts)
        known = self._common_prefix(prompts)
        if known:
            self.cache.truncate(known)
        else:
            self._set(self._new_cache(len(prompts)))
            longest = max(map(len, prompts))
            pads = [longest - len(prompt) for prompt in prompts]
            if any(pads):
                self.cache.first = torch.tensor(pads, dtype=torch.int32, device=self.device)
        self.tokens = [list(prompt[:known]) for prompt in prompts]
        longest = max(map(len, prompts))
        padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        logits = torch.empty(0)
        for begin in range(known, longest, chunk):
            piece = [row[begin : begin + chunk] for row in padded]
            logits = self._forward(torch.tensor(piece, device=self.device), last_only=True)
        self.tokens = [list(prompt) for prompt in prompts]
        self.cache.check()
        return logits[:, -1]

    def feed(self, idx: Tensor) -> Tensor:
        """Logits (B, T, N) of tokens idx (B, T) int64 that follow what the cache holds, which grows by them."""
        if not self.tokens:
            self._set(self._new_cache(idx.size(0)))
            self.tokens = [[] for _ in range(idx.size(0))]
        logits = self._forward(idx, last_only=False)
        for held, row in zip(self.tokens, idx.tolist(), strict=True):
            held.extend(row)
        self.cache.check()
        return logits

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        sampling: Sampling | None = None,
        seed: int = 1337,
        stop: Sequence[int] = (),
    ) -> Iterator[list[int | None]]:
        """The continuation, token by token: one id a request, None for a request that has met a stop token.

        The stop token itself is given once. Ends when all requests have stopped or `max_new_tokens` are made.
        """
        sampler = Sampler(sampling or Sampling(), seed, len(prompts))
        logits = self.prefill(prompts)
        if max_new_tokens < 1:
            return
        first = sampler.draw(logits).tolist()
        stopped = [False] * len(prompts)
        with closing(self.decode(first, sampler, max_new_tokens - 1)) as more:
            for ids in chain([first], more):
                yield [None if done else token for done, token in zip(stopped, ids, strict=True)]
                stopped = [done or token in stop for done, token in zip(stopped, ids, strict=True)]
                if all(stopped):
                    return

    def decode(self, ids: Sequence[int], sampler: Sampler, count: int) -> Generator[list[int], None, None]:
        """`count` more tokens of each request, one id a request at a time, after the tokens `ids` that come next.

        From CUDA graphs where that can be. The device is then a step ahead of what was given, unless the plan has just
        been changed: who changes it (`use`) to compare times measures the plan's own steps.
        """
        plan, decoder = self.plan, None
        try:
            for left in range(count, 0, -1):
                steady, plan = plan == self.plan, self.plan
                if decoder is None or not decoder.in_flight:
                    decoder = self._decoder(decoder, ids, sampler)
                    if decoder is None:
                        ids = sampler.draw(self.feed(torch.tensor(ids, device=self.device)[:, None])[:, -1]).tolist()
                        yield list(ids)
                        continue
                    self._launch(decoder)
                if steady and decoder.in_flight < left and decoder.has_room:
                    self._launch(decoder)
                fed, ids = ids, decoder.read()
                for held, token in zip(self.tokens, fed, strict=True):
                    held.append(token)
                yield list(ids)
        finally:
            if decoder is not None:
                decoder.end(sampler)

    def use(self, plan: Plan) -> None:
        """Read the cache by another plan from the next token on."""
        self.plan = plan
        for layer in self.layers:
            layer.plan = plan

    def fork(self, requests: Sequence[int]) -> Engine:
        """An engine that goes on from here with the given requests, repeated where they are given twice."""
        other = Engine(self.model, self.policy, plan=self.plan, page=self.page, graphs=self.graphs)
        other._set(self.cache.fork(requests=requests))
        other.tokens = [list(self.tokens[request]) for request in requests]
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cache and its tokens to a file."""
        self.cache.save(path, self.tokens)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a snapshot. Raises UserError where it is another model's, by its shape."""
        cache, tokens = KVCache.load(path, self.device)
        if cache.shape != self.cache.shape:
            raise UserError(f"{path} is the cache of a model of another shape: give the snapshot of this model")
        self.policy = cache.policy
        self._set(cache)
        self.tokens = tokens

    def _decoder(self, running: GraphedDecoder | None, ids: Sequence[int], sampler: Sampler) -> GraphedDecoder | None:
        """What decodes the next token by a graph: `running`, or one that begins with `ids`; None where none can."""
        fits = running is not None and running.fits(self.cache)
        if running is not None and fits and running.knows(self.plan):
            return running  # the question below takes as long as a step
        self.graph_fallback = refusal(self.model, self.cache, self.plan, self.graphs)
        if self.graph_fallback:
            return None
        if fits:
            return running
        if self._graphed is None or not self._graphed.fits(self.cache):
            self._graphed = GraphedDecoder(self.model, self.cache)
        self._graphed.begin(ids, sampler)
        return self._graphed

    def _launch(self, decoder: GraphedDecoder) -> None:
        start = self.cache.length + decoder.in_flight
        self._warn_of_growth(start, start + 1)
        decoder.launch(self.plan)

    def _warn_of_growth(self, start: int, end: int) -> None:
        block_size = self.model.config.block_size
        if end > block_size >= start:
            warnings.warn(
                f"the text grows beyond {block_size} tokens, the context this model was trained with: "
                "expect worse predictions",
                stacklevel=4,
            )

    @torch.inference_mode()
    def _forward(self, idx: Tensor, last_only: bool) -> Tensor:
        end = self.cache.length + idx.size(1)
        self._warn_of_growth(self.cache.length, end)
        if self.model.rotary is not None:
            self.model.rotary.reserve(end)
        logits = self.model.continue_from(self.layers, idx, last_only)
        self.cache.advance(idx.size(1))
        return logits

    def _validate(self, prompts: Sequence[Sequence[int]]) -> None:
        vocabulary = self.model.embed.num_embeddings
        if not prompts or not all(prompts):
            raise UserError("a prompt is empty: give at least one token")
        for prompt in prompts:
            wrong = next((token for token in prompt if not 0 <= token < vocabulary), None)
            if wrong is not None:
                raise UserError(f"token {wrong} of a prompt is outside the vocabulary: ids are 0 to {vocabulary - 1}")

    def _common_prefix(self, prompts: Sequence[Sequence[int]]) -> int:
        """Leading tokens of a single prompt that the cache holds, the last one left out: its logits are needed."""
        if len(prompts) != 1 or len(self.tokens) != 1:
            return 0
        pairs = zip(self.tokens[0], prompts[0][:-1], strict=False)
        return next(
            (at for at, (held, new) in enumerate(pairs) if held != new), min(len(self.tokens[0]), len(prompts[0]) - 1)
        )

    def _new_cache(self, batch: int) -> KVCache:
        return KVCache(
            self.model.config,
            self.policy,
            batch=batch,
            page=self.page,
            device=self.device,
            dtype=inference_dtype(self.model),
        )

    def _set(self, cache: KVCache) -> None:
        self.cache = cache
        self._graphed: GraphedDecoder | None = None  # of this cache
        self.layers = layers_of(cache, self.plan)
