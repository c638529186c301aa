"""The same scalars as a run's train events, as a TensorBoard event file, and how long TensorBoard takes to serve them.

Written as arrays of equal records: TensorBoard's own writer takes minutes for millions of scalars. Format: TFRecord
(length, masked crc32c, data, masked crc32c) around the protobuf message Event {1: wall_time, 2: step, 5: Summary {1:
Value {1: tag, 2: simple_value}}}.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

_PATIENCE_S = 300.0
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected


def write_events(folder: Path, scalars: Mapping[str, NDArray[np.float32]]) -> int:
    """One event a step with all `scalars` (n,); the size of the file in bytes."""
    folder.mkdir(parents=True)
    n = len(next(iter(scalars.values())))
    with open(folder / "events.out.tfevents.1700000000.host", "wb") as file:
        version = b"\x09" + struct.pack("<d", 1.7e9) + b"\x1a" + _sized(b"brain.Event:2")
        file.write(_records(np.frombuffer(version, np.uint8)[None]).tobytes())
        for start, stop in ((0, 1 << 7), (1 << 7, 1 << 14), (1 << 14, 1 << 21)):  # steps of one, two and three bytes
            for begin in range(start, min(stop, n), 50_000):
                steps = np.arange(begin, min(begin + 50_000, stop, n))
                file.write(_records(_events(steps, {tag: v[steps] for tag, v in scalars.items()})).tobytes())
        return file.tell()


def seconds_to_serve(folder: Path, tag: str, last_step: int) -> tuple[float, float]:
    """From the start of the process to an answer over HTTP that holds the last step of `tag`; processor time, too,
    with that of the processes which it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    query = urllib.parse.urlencode({"run": ".", "tag": tag})
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?{query}"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - start < _PATIENCE_S and process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    points = json.load(answer)
                if points and points[-1][1] >= last_step:
                    seconds = time.perf_counter() - start
                    whole = [psutil.Process(process.pid)]
                    times = [one.cpu_times() for one in whole + whole[0].children(recursive=True)]
                    return seconds, sum(each.user + each.system for each in times)
            except (OSError, ValueError):
                pass  # not listening yet, or no such tag yet
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait()
    raise RuntimeError("TensorBoard did not serve the last step")


def _events(steps: NDArray[np.int64], scalars: Mapping[str, NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Messages of equal length, (n, bytes)."""
    length = max(1, (int(steps[-1]).bit_length() + 6) // 7)
    values, places = b"", []
    for tag in scalars:
        value = b"\x0a" + _sized(tag.encode()) + b"\x15"
        places.append(len(values) + 2 + len(value))
        values += b"\x0a" + _sized(value + bytes(4))
    head = b"\x09" + bytes(8) + b"\x10" + bytes(length) + b"\x2a" + _varint(len(values))
    events = np.tile(np.frombuffer(head + values, np.uint8), (len(steps), 1))
    events[:, 1:9] = (1.7e9 + steps).astype("<f8")[:, None].view(np.uint8)
    for i in range(length):
        events[:, 10 + i] = ((steps >> (7 * i)) & 127) | (128 if i < length - 1 else 0)
    for place, values_of_tag in zip(places, scalars.values(), strict=True):
        at = len(head) + place
        events[:, at : at + 4] = values_of_tag.astype("<f4")[:, None].view(np.uint8)
    return events


def _records(events: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """TFRecords around messages of equal length, (n, bytes)."""
    size = np.frombuffer(struct.pack("<Q", events.shape[1]), np.uint8)[None]
    head = np.tile(np.concatenate([size, _masked_crc(size)], axis=1), (len(events), 1))
    return np.concatenate([head, events, _masked_crc(events)], axis=1)


def _masked_crc(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """TFRecord's masked CRC-32C of each row, (n, 4)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    crc = np.full(len(data), 0xFFFFFFFF, np.uint32)
    for column in np.ascontiguousarray(data.T):
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    crc ^= np.uint32(0xFFFFFFFF)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)
    return masked.astype("<u4")[:, None].view(np.uint8)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
