"""Put what stands beside the package in the repository, the workflow and its configurations, into
the package that is built; all else is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = (
    "workflow/Snakefile",
    "workflow/**/*.smk",
    "workflow/**/*.yaml",
    "config/**/*.yaml",
    "envs/brnf.yaml",
)
PLACE = Path("brnf", "share")  # read by brnf/shipped.py


def beside() -> list[str]:
    """Return the files to put in, relative to the repository."""
    return sorted(str(path) for pattern in FILES for path in Path().glob(pattern))


class BuildWithWorkflow(build_py):
    """Build the package with its workflow; an editable installation finds it where it is."""

    def run(self) -> None:
        """Build from nothing: what an earlier version left in build/ would be packed, too."""
        shutil.rmtree(Path(self.build_lib, "brnf"), ignore_errors=True)
        super().run()
        for name in [] if self.editable_mode else beside():
            target = Path(self.build_lib, PLACE, name)
            self.mkpath(str(target.parent))
            self.copy_file(name, str(target))

    def get_source_files(self) -> list[str]:
        """Return what an archive of the sources needs."""
        return [*super().get_source_files(), *beside()]


setup(cmdclass={"build_py": BuildWithWorkflow})
