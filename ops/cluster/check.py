"""Whether this machine permits a lab: the answer is found by making a tiny one and letting it vanish."""

import os
import shutil
import subprocess

from . import kernel


def report() -> int:
    """Prints yes, or the cause why not; returns 0 or 3."""
    cause = _cause()
    print(f"no lab here: {cause}" if cause else "a lab can be made here")
    return 3 if cause else 0


def _cause() -> str:
    if os.geteuid():
        return "only root may make namespaces. try: sudo ops/lab check"
    if not shutil.which("ip"):
        return "iproute2 is not installed. try: ops/install"
    reader, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _try_all()
            os._exit(0)
        except BaseException as error:
            os.write(told, str(error).encode())
            os._exit(1)
    os.close(told)
    with open(reader, errors="replace") as stream:
        words = stream.read()
    _, status = os.waitpid(child, 0)
    return words or ("" if status == 0 else "the trial ended without a word")


def _try_all() -> None:
    """Namespaces, tmpfs, an overlay over /, /proc in it, a bridge and a cable. Raises OSError at the first refusal."""
    kernel.unshare(kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWNET)
    kernel.mount("none", "/", flags=kernel.RECURSIVE | kernel.PRIVATE)
    # Hides /tmp from this process alone.
    kernel.mount("trial", "/tmp", "tmpfs")
    os.chdir("/tmp")
    for name in ("upper", "work", "root"):
        os.mkdir(name)
    kernel.mount("trial", "root", "overlay", 0, "lowerdir=/,upperdir=upper,workdir=work")
    for line in ("link add br0 type bridge", "link add v0 type veth peer name v1"):
        done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {line}: {done.stderr.strip()}")
    # Last, since a pid namespace ends with its first process, and only that one may mount its /proc.
    kernel.unshare(kernel.NEWPID)
    child = os.fork()
    if child == 0:
        try:
            kernel.mount("proc", "/tmp/root/proc", "proc")
            os._exit(0)
        except OSError:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise OSError("mount proc in a new pid namespace: refused")
