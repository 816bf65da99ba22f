"""A second reader of .shq files, written from FORMAT.md alone. M1 to M22 are its rules.

usage: read_shq.py --check FILE...     per file a line: OK or the class of the error, and the file
       read_shq.py --tensors FILE...   before it, per tensor: name kind shape SHA-256 of its values as float32
       read_shq.py --shards FILE...    the same of tensors alone in a frame, fetching no other frames

Needs NumPy, and zstandard or Python 3.14.
"""
from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from dataclasses import dataclass
from typing import Any, BinaryIO, Iterator

try:
    import numpy as np
except ImportError:
    sys.exit("read_shq.py: NumPy is missing: pip install numpy")
try:
    import zstandard

    def unzstd(data: bytes, raw: int) -> bytes:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=raw)

    ZstdError = zstandard.ZstdError
except ImportError:
    try:
        from compression.zstd import ZstdDecompressor, ZstdError  # type: ignore
    except ImportError:
        sys.exit("read_shq.py: no zstd: pip install zstandard, or run Python 3.14")

    def unzstd(data: bytes, raw: int) -> bytes:
        return ZstdDecompressor().decompress(data, raw + 1)


MAX_MANIFEST = 1 << 20
MAX_ENTRIES = 4096
MAX_FRAME = 2 << 20
MAX_BLOCK = 128 << 10
MAX_DEPTH = 64
BUDGET = 1 << 30


class Refused(Exception):
    def __init__(self, kind: str, rule: str, why: str):
        super().__init__(f"{kind}: {rule}: {why}")
        self.kind = kind


def must(ok: bool, rule: str, why: str, kind: str = "Corrupt") -> None:
    if not ok:
        raise Refused(kind, rule, why)


@dataclass
class Frame:
    stage: int
    offset: int
    size: int
    raw: int
    sha256: str


@dataclass
class Tensor:
    name: str
    kind: str
    shape: list[int]
    frame: int
    offset: int
    stage: int = 0
    begin: int = 0  # in the raw stream of its stage
    end: int = 0


def up(a: int, b: int) -> int:
    return -(-a // b) * b


# ---- manifest ----------------------------------------------------------------


def parse(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = {re.sub("[\ud800-\udfff]", "\ufffd", key) for key, _ in pairs}
        must(len(keys) == len(pairs), "M5", "a key stands twice")
        return {key: value for key, value in pairs if value is not None}

    def no_constant(name: str) -> None:
        raise ValueError(name + " is no JSON")

    depth = deepest = 0
    for c in re.sub(rb'"(?:[^"\\]|\\.)*"?', b"", text, flags=re.S):  # without strings
        depth += (c in b"[{") - (c in b"]}")
        deepest = max(deepest, depth)
    must(deepest <= MAX_DEPTH, "M5", "nested too deep")
    try:
        # No number of the container's is long, and int refuses very long ones.
        value = json.loads(
            text.decode(),
            object_pairs_hook=unique,
            parse_constant=no_constant,
            parse_int=lambda s: int(s) if len(s) < 100 else math.inf,
        )
    except ValueError as e:
        raise Refused("Corrupt", "M5", str(e))
    must(isinstance(value, dict), "M5", "no object")
    must(isinstance(value.get("model"), dict), "M5", "no model")
    strings(value, "name")
    provenance = value.get("provenance", {})
    must(isinstance(provenance, dict), "M5", "provenance is no object")
    strings(provenance, "source", "licence", "tool")
    return value


def strings(entry: dict[str, Any], *keys: str) -> None:
    for key in keys:
        must(isinstance(entry.get(key, ""), str), "M5", f"{key} is no string")


def entries(manifest: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = manifest.get(key)
    must(isinstance(found, list) and len(found) > 0, "M6", f"no {key}")
    must(len(found) <= MAX_ENTRIES, "M6", f"too many {key}", "TooLarge")
    must(all(isinstance(e, dict) for e in found), "M5", f"{key}: an entry is no object")
    return found


def integer(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key, 0)
    must(type(value) is int and -(1 << 63) <= value < 1 << 63, "M5", f"{key} is no integer")
    return value


def frames_of(listed: list[dict[str, Any]], start: int) -> list[Frame]:
    frames: list[Frame] = []
    total = 0
    for e in listed:
        f = Frame(*(integer(e, key) for key in ("stage", "offset", "size", "raw")), e.get("sha256"))
        before = frames[-1] if frames else None
        must(f.offset == (before.offset + before.size if before else start), "M7", "offset")
        must(f.raw <= MAX_FRAME, "M8", "raw", "TooLarge")
        must(f.raw >= 1 and 1 <= f.size <= f.raw + f.raw // 1024 + 64, "M8", "raw or size")
        total += f.raw
        must(total <= BUDGET, "M9", "raw bytes", "TooLarge")
        must(f.stage - before.stage in (0, 1) if before else f.stage == 0, "M10", "stage")
        must(not before or before.raw % 16 == 0 or f.stage > before.stage, "M11", "raw")
        must(isinstance(f.sha256, str) and bool(re.fullmatch("[0-9a-f]{64}", f.sha256)), "M12", "sha256")
        frames.append(f)
    return frames


def tensors_of(listed: list[dict[str, Any]], frames: list[Frame]) -> list[Tensor]:
    starts: list[int] = []  # of each frame in its stage's raw stream
    raw = [0] * (frames[-1].stage + 1)
    for f in frames:
        starts.append(raw[f.stage])
        raw[f.stage] += f.raw

    tensors: list[Tensor] = []
    names: set[str] = set()
    ends = [0] * len(raw)
    for e in listed:
        t = Tensor(e.get("name"), e.get("kind"), e.get("shape"), integer(e, "frame"), integer(e, "offset"))
        must(isinstance(t.name, str) and bool(re.fullmatch(r"[a-zA-Z0-9._-]{1,128}", t.name)), "M15", "name")
        must(t.name not in names, "M16", t.name)
        names.add(t.name)
        must(isinstance(t.kind, str) and bool(re.fullmatch("u8|f16|q8r|q8c|q[4567](g32|g64|g128)?", t.kind)), "M17", "kind")
        must(isinstance(t.shape, list) and all(type(d) is int and 1 <= d < 1 << 63 for d in t.shape), "M18", "shape")
        must(len(t.shape) == 2 if t.kind[0] == "q" else 1 <= len(t.shape) <= 4, "M18", "rank")
        must(math.prod(t.shape) <= BUDGET, "M18", "elements", "TooLarge")
        size = size_of(t.kind, t.shape)
        must(size < 1 << 31, "M18", "bytes")
        must(0 <= t.frame < len(frames) and 0 <= t.offset < frames[t.frame].raw, "M19", "no such place")
        t.stage = frames[t.frame].stage
        must(not tensors or t.stage >= tensors[-1].stage, "M20", "order")
        t.begin = starts[t.frame] + t.offset
        t.end = t.begin + size
        must(t.begin == up(ends[t.stage], 16), "M19", "not behind the tensor before")
        must(t.end <= raw[t.stage], "M20", "runs over the end")
        ends[t.stage] = t.end
        tensors.append(t)
    must(ends == raw, "M20", "bytes behind the last tensor")
    return tensors


# ---- file --------------------------------------------------------------------


def read(file: BinaryIO, n: int) -> bytes:
    data = file.read(n)
    must(len(data) == n, "M22", "the file ends", "Truncated")
    return data


def unpack(frame: Frame, data: bytes) -> bytes:
    must(hashlib.sha256(data).hexdigest() == frame.sha256, "M12", "hash")
    must(data[:4] == b"\x28\xb5\x2f\xfd" and len(data) > 5, "M13", "no zstd frame")
    flags = data[4]
    must(flags & 0x20 != 0, "M13", "not single segment")
    must(flags & 8 == 0, "M13", "reserved bit")
    d, n = (0, 1, 2, 4)[flags & 3], 1 << (flags >> 6)
    must(not any(data[5 : 5 + d]), "M13", "dictionary")
    content = int.from_bytes(data[5 + d : 5 + d + n], "little") + (256 if n == 2 else 0)
    must(content == frame.raw, "M13", "content size")
    at, last = 5 + d + n, 0
    while not last:
        must(at + 3 <= len(data), "M13", "cut short")
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        must(kind != 3 and size <= MAX_BLOCK, "M13", "block")
        at += 3 + (1 if kind == 1 else size)
    must(at + (flags & 4) == len(data), "M13", "not one frame")
    try:
        raw = unzstd(data, frame.raw)
    except ZstdError as e:
        raise Refused("Corrupt", "M14", str(e))
    must(len(raw) == frame.raw, "M14", "size")
    return raw


class File:
    """A file whose manifest has been checked."""

    def __init__(self, file: BinaryIO):
        self.file = file
        head = file.read(44)
        must(head[:4] == b"SHQ1"[: len(head)], "M1", "magic", "Magic")
        must(len(head) == 44, "M22", "the file ends", "Truncated")
        must(head[4:8] == b"\1\0\0\0", "M2", "version", "Version")
        size = int.from_bytes(head[8:12], "little")
        must(size <= MAX_MANIFEST, "M3", "manifest length", "TooLarge")
        text = read(file, size)
        must(hashlib.sha256(text).digest() == head[12:], "M4", "hash")
        manifest = parse(text)
        tensors, frames = entries(manifest, "tensors"), entries(manifest, "frames")
        self.frames = frames_of(frames, 44 + size)
        self.all = tensors_of(tensors, self.frames)

    def tensors(self) -> Iterator[tuple[Tensor, bytes]]:
        """Reads the file as a stream, to its end."""
        todo = iter(self.all)
        t = next(todo, None)
        held, start = bytearray(), 0  # raw bytes not handed out yet, and the first one's place in the stage
        for i, f in enumerate(self.frames):
            held += unpack(f, read(self.file, f.size))
            while t and t.stage == f.stage and t.end <= start + len(held):
                must(not any(held[: t.begin - start]), "M21", "padding")
                yield t, bytes(held[t.begin - start : t.end - start])
                del held[: t.end - start]
                start = t.end
                t = next(todo, None)
            if i + 1 < len(self.frames) and self.frames[i + 1].stage > f.stage:
                start = 0
        must(not self.file.read(1), "M7", "bytes behind the last frame")

    def shards(self) -> Iterator[tuple[Tensor, bytes]]:
        """Fetches each tensor that has a frame to itself, and no other frame."""
        for t in self.all:
            f, size = self.frames[t.frame], t.end - t.begin
            if t.offset == 0 and size <= f.raw <= up(size, 16):
                self.file.seek(f.offset)
                raw = unpack(f, read(self.file, f.size))
                must(not any(raw[size:]), "M21", "padding")
                yield t, raw[:size]


# ---- kinds -------------------------------------------------------------------


def groups(kind: str, columns: int) -> tuple[int, int]:
    """The columns of a group, and the groups of a row."""
    k = up(columns, 4)
    if "g" in kind:
        g = int(kind.split("g")[1])
    elif k < 16:
        g = k
    else:
        g = max((g for g in range(16, 65, 4) if k % g == 0), default=64)
    return g, up(k, g) // g


def panel(kind: str, columns: int) -> int:
    t = up(columns, 4) // 4
    u = up(t, 4) // 4
    return {"4": 16 * t, "5": 16 * t + 16 * u, "6": 16 * t + 32 * u, "7": 32 * t}[kind[1]]


def size_of(kind: str, shape: list[int]) -> int:
    if kind in ("u8", "f16"):
        return math.prod(shape) * (2 if kind == "f16" else 1)
    n, k = shape
    if kind == "q8r":
        return up(2 * n, 16) + n * k
    if kind == "q8c":
        return 2 * up(n, 8) + up(n, 8) * up(k, 4)
    return 2 * up(n, 8) * groups(kind, k)[1] + up(n, 8) // 8 * panel(kind, k)


def dequantize(kind: str, shape: list[int], data: bytes) -> np.ndarray:
    if kind == "u8":
        return np.frombuffer(data, np.uint8).astype(np.float32).reshape(shape)
    if kind == "f16":
        return halves(data).reshape(shape)
    rows, columns = shape
    if kind == "q8r":
        codes = np.frombuffer(data[up(2 * rows, 16) :], np.int8).reshape(shape)
        return halves(data[: 2 * rows])[:, None] * codes.astype(np.float32)
    n, k = np.arange(rows)[:, None], np.arange(columns)[None, :]
    if kind == "q8c":
        s = 2 * up(rows, 8)
        codes = np.frombuffer(data[s:], np.int8)[n // 8 * 8 * up(columns, 4) + k // 4 * 32 + n % 8 * 4 + k % 4]
        return halves(data[: 2 * rows])[:, None] * codes.astype(np.float32)

    g, c = groups(kind, columns)
    s = 2 * up(rows, 8) * c
    scales = halves(data[:s])[(n // 8 * c + k // g) * 8 + n % 8]
    b = np.frombuffer(data[s:], np.uint8)
    p = n // 8 * panel(kind, columns)
    steps = up(columns, 4) // 4
    h, t, l = n % 8 // 4, k // 4, n % 4 * 4 + k % 4
    u, j = t // 4, 2 * (t % 4) + h
    if kind[1] == "7":
        codes = b[p + 32 * t + 16 * h + l] & 127
    else:
        codes = b[p + 16 * t + l] >> (4 * h) & 15
    if kind[1] == "5":
        codes |= (b[p + 16 * steps + 16 * u + l] >> j & 1) << 4
    if kind[1] == "6":
        codes |= (b[p + 16 * steps + 32 * u + 16 * (j // 4) + l] >> (2 * (j % 4)) & 3) << 4
    return scales * (codes.astype(np.float32) - np.float32(1 << int(kind[1]) - 1))


def halves(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f2").astype(np.float32)


# ---- command -----------------------------------------------------------------


def run(command: str, file: BinaryIO) -> None:
    opened = File(file)
    for t, data in opened.shards() if command == "--shards" else opened.tensors():
        if command != "--check":
            values = dequantize(t.kind, t.shape, data).astype("<f4")
            print(t.name, t.kind, "x".join(map(str, t.shape)), hashlib.sha256(values.tobytes()).hexdigest())


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in ("--check", "--tensors", "--shards"):
        sys.exit(__doc__)
    status = 0
    for path in sys.argv[2:]:
        result = "OK"
        with open(path, "rb") as file:
            try:
                run(sys.argv[1], file)
            except Refused as e:
                print(f"{path}: {e}", file=sys.stderr)
                result, status = e.kind, 1
        print(result, path)
    return status


if __name__ == "__main__":
    sys.exit(main())
