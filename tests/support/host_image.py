"""The image of a test eval host: Debian or Ubuntu as this machine runs it, built once and kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.engine import Engine, cache_directory

RECIPE = Path(__file__).parent / "eval_host"
BUILD_S = 1200.0


def host_image(docker: Engine) -> str:
    """Return the tag of the host image, in the engine; built (a minute) or loaded from the cache when it is not there."""
    tag = f"fleet-eval-host:{recipe_key()}"
    with open(cache_directory() / "image.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if docker.run("image", "inspect", tag, check=False).returncode == 0:
            return tag
        archive = cache_directory() / f"eval-host-{recipe_key()}.tar.zst"
        if not archive.exists():
            _build(archive)
        _load(docker, archive, tag)
    return tag


def recipe_key() -> str:
    """Return a short digest of everything that goes into the image: the recipe's files, the release, the machine."""
    digest = hashlib.sha256(f"{codename()} {platform.machine()}".encode())
    for path in sorted(RECIPE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def codename() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def apt_mirror() -> tuple[str, str]:
    """Return the mirror this machine's apt uses for its own release, and the components, from apt itself."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found: dict[str, list[str]] = {}
    for line in targets:
        site, release, component, created_by = line.split("|")
        if release == codename() and created_by == "Packages":
            found.setdefault(site, []).append(component)
    for site, components in found.items():
        if "main" in components:
            return site, ",".join(dict.fromkeys(components))
    raise RuntimeError(f"apt has no mirror for {codename()} main; the test hosts are built from it")


def _build(archive: Path) -> None:
    if os.geteuid() != 0:
        raise RuntimeError("building the image of the test hosts needs root: run the tests as root once")
    mirror, components = apt_mirror()
    work = Path(tempfile.mkdtemp(prefix="build-", dir=cache_directory()))
    log = cache_directory() / "build.log"
    try:
        with open(log, "wb") as output:
            built = subprocess.run(
                ["unshare", "--mount", "--propagation", "private", str(RECIPE / "build.sh"), str(work / "rootfs"),
                 codename(), mirror, components],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=BUILD_S, check=False,
            )  # fmt: skip
        if built.returncode != 0:
            raise RuntimeError(f"building the test host image failed; {log} ends with:\n{log.read_text()[-3000:]}")
        partial = archive.with_suffix(".partial")
        pack = 'set -o pipefail; tar --numeric-owner -C "$1" -c . | zstd -q -T0 -3 -f -o "$2"'
        subprocess.run(["bash", "-c", pack, "pack", str(work / "rootfs"), str(partial)], check=True)
        partial.rename(archive)
        for old in cache_directory().glob("eval-host-*.tar.zst"):
            if old != archive:
                old.unlink()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _load(docker: Engine, archive: Path, tag: str) -> None:
    for line in docker.lines("images", "--format", "{{.Repository}}:{{.Tag}}"):
        if line.startswith("fleet-eval-host:"):  # an older recipe; one in use by another session stays
            docker.run("rmi", line, check=False)
    unpack = subprocess.Popen(["zstd", "-q", "-dc", str(archive)], stdout=subprocess.PIPE)
    try:
        docker.run(
            "import", "--change", 'ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/sbin/eval-host-init"]', "-", tag,
            stdin=unpack.stdout, timeout_s=300,
        )  # fmt: skip
    finally:
        if unpack.stdout is not None:
            unpack.stdout.close()
        if unpack.wait() != 0:
            archive.unlink(missing_ok=True)
            raise RuntimeError(f"{archive} could not be unpacked; it was removed and the next run builds it anew")
