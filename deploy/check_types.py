"""Type-check the package under its installed name: mypy follows neither import hooks nor a root that is the package."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run mypy over a folder in which `driftloop` is a link to the repository root."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "driftloop").symlink_to(ROOT, target_is_directory=True)
        command = [
            sys.executable,
            "-m",
            "mypy",
            f"--config-file={ROOT / 'pyproject.toml'}",
            f"--cache-dir={ROOT / '.mypy_cache'}",
            "--namespace-packages",
            "--explicit-package-bases",
            *(f"driftloop/{name}" for name in ("schemas", "detectors", "compression", "streams")),
            *(f"driftloop/{path.name}" for path in sorted(ROOT.glob("*.py"))),
        ]
        return subprocess.run(command, cwd=folder, env=dict(os.environ, MYPYPATH=folder), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
