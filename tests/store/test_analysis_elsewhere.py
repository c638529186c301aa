"""HDF5 can keep values in other files; a file from elsewhere would so show what this machine holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck_core.store.analysis import AnalysisError, AnalysisFile

SHAPE = (2, 3, 4)  # steps, layers, heads
MAP = (4, 4)


def raw(group: h5py.Group, name: str, shape: tuple[int, ...], secret: Path) -> None:
    group.create_dataset(name, shape, "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def virtual(group: h5py.Group, name: str, shape: tuple[int, ...], secret: Path) -> None:
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource(str(secret), "x", shape, "f4")
    group.create_virtual_dataset(name, layout)


def link(group: h5py.Group, name: str, shape: tuple[int, ...], secret: Path) -> None:
    with h5py.File(secret, "w") as other:
        other["x"] = np.ones(shape, "f4")
    group[name] = h5py.ExternalLink(str(secret), "/x")


@pytest.fixture(params=[raw, virtual, link], ids=lambda way: way.__name__)
def elsewhere(request: pytest.FixtureRequest) -> Callable[[h5py.Group, str, tuple[int, ...], Path], None]:
    return request.param


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(np.ones(64, "f4").tobytes())
    return path


def test_values_of_another_file_are_not_read(elsewhere: Callable[..., None], secret: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        file.attrs["schema_version"] = 1
        file["steps"] = np.array([0, 10], np.int64)
        file.create_group("attn")["entropy"] = np.zeros(SHAPE, "f4")
        elsewhere(file["attn"], "local_mass", SHAPE, secret)
    analysis = AnalysisFile.open(tmp_path / "analysis.h5")
    assert (analysis.attn("entropy") == 0).all()
    with pytest.raises(AnalysisError, match="lies in another file"):
        analysis.attn("local_mass")


def test_maps_of_another_file_are_not_read(elsewhere: Callable[..., None], secret: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        elsewhere(file.create_group("analysis/step_0/attn/L0"), "H0", MAP, secret)
    analysis = AnalysisFile.open(tmp_path / "analysis.h5")
    with pytest.raises(AnalysisError, match="lies in another file"):
        analysis.map(0, 0)


def test_steps_of_another_file_are_none(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["attn/L0/H0"] = np.tril(np.ones(MAP, "f4"))
    with h5py.File(tmp_path / "analysis.h5", "w") as file:
        file.create_group("analysis")["step_0"] = h5py.ExternalLink("other.h5", "/")
    assert not len(AnalysisFile.open(tmp_path / "analysis.h5").steps)
