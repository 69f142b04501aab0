"""120 random trees, Kitfiles and .kitignore files that kit packed or refused: kitd does the same with each."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.daemon import Daemon
from fakes.figures import Figures
from fakes.kits import GOLDEN

from kitd_client.api.errors import KitdError
from kitd_client.api.jobs import Packed
from kitd_client.client import Client

SUITE = "random kits against kit"
BATCHES = 4


class Case:
    """What kit was given, and what it did."""

    def __init__(self, facts: dict[str, object]) -> None:
        self.seed = facts["seed"]
        self._facts = facts

    @property
    def accepted(self) -> bool:
        """Today's kit refuses two entries of one path; the kit that made the cases took seven such."""
        return self._facts["exit"] == 0 and "rejected_now" not in self._facts

    @property
    def layers(self) -> object:
        return self._facts["layers"]

    @property
    def config(self) -> object:
        return self._facts["config"]

    def make(self, root: Path) -> Path:
        """The tree, with its modes; those of directories come last."""
        dirs, files = self._facts["dirs"], self._facts["files"]
        assert isinstance(dirs, dict)
        assert isinstance(files, dict)
        root.mkdir(mode=0o755)
        for name in dirs:
            (root / name).mkdir(parents=True, exist_ok=True)
        for name, (mode, text) in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
            (root / name).chmod(int(mode, 8))
        for name, key in (("Kitfile", "kitfile"), (".kitignore", "kitignore")):
            if (text := self._facts[key]) is not None:
                (root / name).write_text(str(text))
        for name in sorted(dirs, reverse=True):
            (root / name).chmod(int(dirs[name], 8))
        return root


def _cases() -> list[Case]:
    return [Case(facts) for facts in json.loads((GOLDEN / "random-cases.json").read_bytes())]


def _differences(case: Case, packed: Packed | None, error: KitdError | None, config: str) -> Iterator[str]:
    if packed is None:
        if case.accepted:
            yield f"kit packed it, kitd refused: {error}"
        return
    if not case.accepted:
        yield "kit refused it, kitd packed"
        return
    layers = [[layer.media_type, layer.digest, layer.size] for layer in packed.layers]
    if layers != case.layers:
        yield f"layers {layers}, kit has {case.layers}"
    if config != case.config:
        yield f"config {config}, kit has {case.config}"


@pytest.mark.root
@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_same_verdict_layers_and_config(
    batch: int, shared: Daemon, client: Client, tmp_path: Path, figures: Figures
) -> None:
    for case in _cases()[batch::BATCHES]:
        packed, error, config = None, None, ""
        tree = case.make(tmp_path / f"case-{case.seed}")
        name = f"localhost/random-{case.seed}:v1"
        try:
            packed = client.pack(tree, tags=[name])
            config = bytes(client.inspect(name).kitfile).decode()
        except KitdError as problem:
            error = problem
        figures.tried(SUITE)
        for difference in _differences(case, packed, error, config):
            figures.violated(SUITE, f"seed {case.seed}: {difference}")
        if error is not None and (error.code == "internal" or not 65 <= error.exit_code <= 66):
            figures.violated(SUITE, f"seed {case.seed}: refused with {error.code}")
        if error is not None and client.list(name.rpartition(":")[0]):
            figures.violated(SUITE, f"seed {case.seed}: refused, and named")


def test_all_cases_are_there() -> None:
    cases = _cases()
    assert len(cases) == 120
    assert sum(case.accepted for case in cases) == 69
