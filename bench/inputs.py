"""Directories to pack, the same in every run."""

import random
from pathlib import Path

from measure import MIB

_BLOCK = 8 * MIB


def weights(root: Path, size: int, layers: int) -> Path:
    """A kit of `size` bytes in `layers` files, one layer each."""
    root.mkdir(parents=True)
    block = random.Random(2026).randbytes(_BLOCK)
    lines = ["manifestVersion: 1.0.0", "package: {name: bench, version: 1.0.0}", "model:"]
    lines += ["  name: bench", "  path: part-0.bin", *(["  parts:"] if layers > 1 else [])]
    for number in range(layers):
        if number:
            lines.append(f"    - {{name: part-{number}, path: part-{number}.bin}}")
        with (root / f"part-{number}.bin").open("wb") as file:
            for step in range(size // layers // _BLOCK):
                file.write(block[:-16] + number.to_bytes(8) + step.to_bytes(8))
    (root / "Kitfile").write_text("\n".join(lines) + "\n")
    return root


def small_files(root: Path, count: int, size: int) -> Path:
    """A kit whose one dataset has `count` files of `size` bytes, a thousand a directory."""
    numbers = random.Random(2026)
    for number in range(count):
        directory = root / "data" / f"{number // 1000:03}"
        if number % 1000 == 0:
            directory.mkdir(parents=True)
        (directory / f"{number:06}.bin").write_bytes(numbers.randbytes(size))
    rename(root, "1.0.0")
    return root


def rename(root: Path, version: str) -> None:
    """Gives a kit of small files another version: another kit, with the same layer."""
    (root / "Kitfile").write_text(
        "manifestVersion: 1.0.0\n"
        f"package: {{name: bench, version: {version}}}\n"
        "datasets:\n  - {name: bench, path: data}\n"
    )
