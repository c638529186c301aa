"""The part of a run that lives in analysis.h5, opened when it is first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bottleneck_core.errors import UserError

if TYPE_CHECKING:
    from bottleneck_core.store.analysis import AnalysisFile


class AnalysisAccess:
    """Attention and weight metrics of a run, as arrays."""

    def __init__(self, path: Path) -> None:
        self._analysis_path = path
        self._analysis_file: AnalysisFile | None = None

    @property
    def analysis_file(self) -> AnalysisFile:
        """analysis.h5. Raises UserError where there is none that can be read."""
        from bottleneck_core.store.analysis import AnalysisError, AnalysisFile

        if self._analysis_file is None:
            try:
                self._analysis_file = AnalysisFile.open(self._analysis_path)
            except AnalysisError as error:
                raise UserError(f"{error}; attention metrics need a run with --instrument full") from None
        return self._analysis_file

    @property
    def attention_steps(self) -> np.ndarray:
        """Steps of the probes, [S]; empty where there is no analysis.h5 that can be read."""
        try:
            return self.analysis_file.steps
        except UserError:
            return np.empty(0, np.int64)

    def attention(self, metric: str) -> np.ndarray:
        """An attention metric, float32 [S, layer, head]; S follows `attention_steps`. Raises UserError."""
        return self._from_analysis("attn", metric)

    def weights(self, metric: str) -> np.ndarray:
        """A metric of the weights, float32 [S, layer]. Raises UserError."""
        return self._from_analysis("weights", metric)

    def attention_map(self, layer: int, head: int, probe: int | None = None) -> np.ndarray:
        """Attention weights of one head, [T, T], of the last probe, or of one by its index in `attention_steps`.

        Raises UserError.
        """
        return self._from_analysis("map", layer, head, probe)

    def _from_analysis(self, what: str, *arguments: object) -> np.ndarray:
        from bottleneck_core.store.analysis import AnalysisError

        try:
            return getattr(self.analysis_file, what)(*arguments)
        except AnalysisError as error:
            raise UserError(str(error)) from None

    def refresh_analysis(self) -> bool:
        """Take in new probes; whether there are any."""
        if self._analysis_file is None:
            return False
        from bottleneck_core.store.analysis import AnalysisError

        try:
            return self._analysis_file.refresh()
        except AnalysisError:  # replaced by something else: the next access says what
            self._analysis_file = None
            return True
