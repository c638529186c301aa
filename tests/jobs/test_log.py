"""The end of a log is text: no escapes, no controls, no line that was written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck_core.jobs import job_log


def log(folder: Path, text: str | bytes, lines: int = 40) -> str:
    (folder / "console.log").write_bytes(text.encode() if isinstance(text, str) else text)
    return job_log(folder, lines)


def test_the_last_lines(tmp_path: Path) -> None:
    assert job_log(tmp_path) == ""
    text = "".join(f"line {number}\n" for number in range(100))
    assert log(tmp_path, text, 2) == "line 98\nline 99"
    assert log(tmp_path, text).count("\n") == 39
    assert log(tmp_path, text, 0) == "" and log(tmp_path, "") == ""
    assert log(tmp_path, "a\n\nb", 2) == "\nb"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m text", "red text"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bplain\x1b=", "plain"),
        ("\x9b2Jc1", "c1"),
        ("bell\x07 null\x00 del\x7f next\x85", "bell null del next"),
        ("10 %\r20 %\r30 %", "30 %"),
        ("10 %\r20 %\r\n", "20 %"),
        ("\x1b[2K\r30 %", "30 %"),
        ("windows\r\n", "windows"),
        ("a\tb", "a\tb"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("ünï 語 🙂", "ünï 語 🙂"),
        ("<script>alert(1)</script> **no**", "<script>alert(1)</script> **no**"),
        ("\x1b", ""),
    ],
)
def test_what_would_move_or_colour_is_taken_out(tmp_path: Path, written: str, shown: str) -> None:
    assert log(tmp_path, written) == shown


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert log(tmp_path, b"a\xff\xfeb\n") == "a\ufffd\ufffdb"


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    shown = log(tmp_path, "x" * (1 << 20) + "\nlast\n")
    assert shown == "last"
    assert len(log(tmp_path, "y" * (1 << 20))) == 256 << 10
