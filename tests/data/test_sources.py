from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from bottleneck_core.data import sources
from bottleneck_core.errors import UserError


def write(folder: Path, **texts: str | bytes) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


def hash_order(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def test_the_standard_library_is_the_library_and_nothing_else() -> None:
    source = sources.python_stdlib()
    names = [document.name for document in source.documents()]
    assert {"os.py", "json/decoder.py", "asyncio/base_events.py"} <= set(names)
    folders = {part for name in names for part in Path(name).parts[:-1]}
    assert not folders & {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "__pycache__",
        "_bundled",
    }
    assert all(name.endswith(".py") for name in names)
    assert names == hash_order(names)
    assert source.details()["python"].startswith("3.") and source.details()["n_skipped"] == 0


def test_the_order_depends_on_names_and_not_on_the_place(tmp_path: Path) -> None:
    orders = []
    for place in ("one", "two/deeper"):
        write(tmp_path / place, **{f"a__{k}_md": f"text {k}" for k in range(20)})
        orders.append([d.name for d in sources.files([f"{tmp_path / place}/**/*.md"]).documents()])
    assert orders[0] == orders[1] == hash_order([f"{k}.md" for k in range(20)])
    assert orders[0] != sorted(orders[0])


def test_globs_reach_into_folders_overlap_and_unpack(tmp_path: Path) -> None:
    write(tmp_path, a_txt="A", sub__b_md="\ufeffB", sub__deep__c_py="C")
    write(tmp_path, sub__d_txt_gz=gzip.compress(b"D"))
    source = sources.files([f"{tmp_path}/**/*", f"{tmp_path}/a.txt"])
    assert {d.name: d.text for d in source.documents()} == {
        "a.txt": "A",
        "sub/b.md": "B",  # the byte order mark is no text
        "sub/deep/c.py": "C",
        "sub/d.txt.gz": "D",
    }


def test_a_name_with_glob_characters_is_taken_literally(tmp_path: Path) -> None:
    (tmp_path / "notes[1].txt").write_text("kept")
    assert [d.text for d in sources.files([str(tmp_path / "notes[1].txt")]).documents()] == ["kept"]


def test_what_is_no_text_is_skipped_and_reported(tmp_path: Path) -> None:
    write(tmp_path, good_txt="good", empty_txt="", nul_bin=b"a\0b", latin_txt=b"caf\xe9")
    write(tmp_path, broken_gz=b"\x1f\x8bnot really", cut_gz=gzip.compress(b"long enough" * 9)[:-9])
    (tmp_path / "gone.txt").write_text("x")
    source = sources.files([f"{tmp_path}/*"])
    os.remove(tmp_path / "gone.txt")
    for _ in range(2):  # a second reading counts anew
        assert [d.text for d in source.documents()] == ["good"]
        details = source.details()
        assert details["n_skipped"] == 5
        assert set(details["skipped"]) == {"nul.bin", "latin.txt", "broken.gz", "cut.gz", "gone.txt"}


def test_documents_are_read_when_asked_for(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, **{f"{k}_txt": "x" for k in range(5)})
    read: list[Path] = []
    monkeypatch.setattr(sources, "_read_text", lambda path: read.append(path) or "text")
    documents = sources.files([f"{tmp_path}/*"]).documents()
    assert read == []
    next(documents)
    assert len(read) == 1


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("nothing/**/*.md", "nothing/.*spelling"), ("folder", "FOLDER/")],
    ids=["none", "folder"],
)
def test_a_pattern_without_files_is_named(pattern: str, said: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, here_txt="x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=said):
        sources.files(["here.txt", pattern])
    with pytest.raises(UserError, match="at least one"):
        sources.files([])
