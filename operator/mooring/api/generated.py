"""Files that are generated from the models and checked in: write them, or check that none is stale.

The CRDs and the reference page are such files. Checking compares text, so a change of a model that
was not followed by the command fails the build and names the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Generated:
    """A folder of generated files.

    `module` is run to write them; `pattern` matches every file that this module owns in the folder,
    so that one which belongs to nothing any more is found.
    """

    module: str
    what: str
    folder: Path
    pattern: str
    render: Callable[[], Mapping[str, str]]

    def stale(self, folder: Path) -> Iterator[str]:
        """Describes every file of the folder that is not what the models say."""
        wanted = self.render()
        for name, text in wanted.items():
            path = folder / name
            if not path.exists():
                yield f"{path} is missing"
            elif path.read_text(encoding="utf-8") != text:
                yield f"{path} is stale"
        for path in sorted(folder.glob(self.pattern)):
            if path.name not in wanted:
                yield f"{path} is generated from nothing any more"

    def write(self, folder: Path) -> Iterator[Path]:
        """Writes every file and gives its path; removes what belongs to nothing any more."""
        folder.mkdir(parents=True, exist_ok=True)
        wanted = self.render()
        for path in sorted(folder.glob(self.pattern)):
            if path.name not in wanted:
                path.unlink()
        for name, text in wanted.items():
            (folder / name).write_text(text, encoding="utf-8")
            yield folder / name

    def main(self, arguments: list[str] | None = None) -> int:
        """The command line; returns the exit code: 0 written or up to date, 1 stale."""
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=f"Writes {self.what} from the resource models.",
            epilog="Exit codes: 0 written or up to date, 1 stale (with --check), 2 wrong usage.",
        )
        parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
        parser.add_argument(
            "--out", type=Path, default=self.folder, metavar="FOLDER", help="default: %(default)s"
        )
        options = parser.parse_args(arguments)
        if not options.check:
            for path in self.write(options.out):
                print(path)
            return 0
        problems = list(self.stale(options.out))
        for problem in problems:
            print(f"{problem}: run `python -m {self.module} --out {options.out}`", file=sys.stderr)
        return 1 if problems else 0
