"""What a process inside the sandbox gives up: every layer the kernel grants, one at a time, and the names of those it did.

Namespaces hide the host's network, processes and files (`enter`, once, before the fork); Landlock, seccomp and limits
bind each process (`lock`). A layer that is refused is left out of the list and the next is tried. Standard library
only, few imports: this is loaded once for every program judged. Numbers are the kernel's.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

NEW_USER = 0x10000000
NAMESPACES = {"net": 0x40000000, "ipc": 0x08000000, "mount": 0x00020000, "pid": 0x20000000}
READ_ONLY, NO_SUID, NO_DEV, BIND, RECURSIVE, PRIVATE, DETACH = 1, 2, 4, 0x1000, 0x4000, 0x40000, 2
MOUNT_SETATTR, HERE, ALL_BENEATH = 442, -100, 0x8000
DUMPABLE, DEATH_SIGNAL, SECCOMP, NO_NEW_PRIVS, SECCOMP_FILTER = 4, 1, 22, 38, 2
RULESET, RULE, RESTRICT = 444, 445, 446  # Landlock's calls, the same on every machine
READ_FILE, READ_FOLDER = 0b100, 0b1000
USE = sum(1 << bit for bit in (1, 2, 3, 4, 5, 7, 8, 13, 14))  # plain files and folders: no links, pipes, sockets, devices
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights on files each version of Landlock knows

# System calls that are refused, for x86-64 and arm64: new processes and programs, sockets, signals, other processes'
# memory, leaving our group or parent, mounts and namespaces, keys, kernel interfaces no function needs, and objects
# that outlive their process or that no limit counts.
DENIED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "socket": (41, 198),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "process_madvise": (440, 440), "prctl": (157, 167), "setsid": (112, 157),
    "setpgid": (109, 154), "setns": (308, 268), "unshare": (272, 97), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "personality": (135, 92), "syslog": (103, 116),
}  # fmt: skip
MACHINES = {"x86_64": (0xC000003E, 0, 56, 72, 302), "aarch64": (0xC00000B7, 1, 220, 25, 261)}
# ... audit number, column in DENIED, and three calls of which only some uses are refused: clone, fcntl, prlimit64
CLONE3, LAST_KNOWN, THREAD = 435, 462, 0x10000
OWNERSHIP = (8, 10, 15)  # fcntl's F_SETOWN, F_SETSIG, F_SETOWN_EX: signals by another door
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
THREADS = 64
INODES = 4096

libc = ctypes.CDLL(None, use_errno=True)


def readable() -> list[str]:
    """Return what a program may read: the standard library and the shared libraries its extensions are linked to."""
    found: list[str] = []
    for path in sorted({*sys.path, f"{sys.base_prefix}/lib", *LIBRARIES}):
        if os.path.exists(path) and not any(path.startswith(f"{outer}/") for outer in found):
            found.append(path)
    return found


def packages() -> list[str]:
    """Return what lies in readable folders and must not be read: installed packages, some of which carry test sets."""
    pythons = [
        f"{lib}/{name}" for lib in readable() if os.path.isdir(lib) for name in os.listdir(lib) if name[:6] == "python"
    ]
    inside = [f"{python}/{kind}" for python in {*pythons, *sys.path} for kind in ("site-packages", "dist-packages")]
    return [path for path in inside if os.path.isdir(path)]


def around(path: str, hidden: list[str]) -> list[str]:
    """Return a folder, or, where something in it is hidden, all that is beside that."""
    if path in hidden:
        return []
    if not any(other.startswith(f"{path}/") for other in hidden):
        return [path]
    return [part for name in os.listdir(path) for part in around(f"{path}/{name}", hidden)]


def enter(tried: list[str], scratch_bytes: int) -> list[str]:
    """Leave the host's network, processes and files; return what worked. PID namespaces begin with the next fork."""
    if sys.platform != "linux":
        return []
    uid, gid = os.getuid(), os.getgid()
    got: list[str] = []
    if "user" in tried and libc.unshare(NEW_USER) == 0:
        got.append("user")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            _set(f"/proc/self/{name}", text)
    got += [name for name, flag in NAMESPACES.items() if name in tried and libc.unshare(flag) == 0]
    if "mount" in got and not _own_root(scratch_bytes):
        got.remove("mount")
    return got


def lock(
    tried: list[str], entered: list[str], writes: bool, cpu_seconds: int, memory_bytes: int, scratch_bytes: int
) -> list[str]:
    """Bind this process for good; return all layers now in force.

    Files are written (by a program that `writes`) only where a file system of bounded size was entered.
    """
    layers = list(entered)
    writes = writes and "mount" in entered
    if sys.platform == "linux":
        libc.prctl(DUMPABLE, 0, 0, 0, 0)  # nobody of our user may look into our memory
        libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
        if "landlock" in tried and (
            version := _landlock([os.getcwd()] if writes else [], packages() if "mount" not in entered else [])
        ):
            layers.append(f"landlock-{version}")
        if "seccomp" in tried and _seccomp():
            layers.append("seccomp")
    if "rlimits" in tried:
        layers += _limit(layers, cpu_seconds, memory_bytes, scratch_bytes if writes else 0)
    return layers


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    if sys.platform == "linux":
        libc.prctl(DEATH_SIGNAL, 9, 0, 0, 0)


def _limit(layers: list[str], cpu_seconds: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Bound CPU time, memory, files and processes; name what was refused. Without a limit of CPU time it is no layer."""
    limits = {
        "CPU": (resource.RLIMIT_CPU, cpu_seconds),
        "memory": (resource.RLIMIT_AS, memory_bytes),
        "file-size": (resource.RLIMIT_FSIZE, file_bytes),
        "files": (resource.RLIMIT_NOFILE, 64),
        "core": (resource.RLIMIT_CORE, 0),
        "processes": (resource.RLIMIT_NPROC, THREADS if "seccomp" in layers else 0),  # seccomp knows threads from processes
    }
    refused = []
    for name, (what, most) in limits.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (most, most))
        except (OSError, ValueError):  # macOS knows no limit of memory
            refused.append(name)
    if "CPU" in refused:
        return []
    return ["rlimits" + (f" without {' and '.join(refused)}" if refused else "")]


def _own_root(scratch_bytes: int) -> bool:
    """Make the working directory the root of a small memory file system that holds only what is readable, and /scratch."""
    root = os.getcwd()
    size = f"size={scratch_bytes},nr_inodes={INODES},mode=0700".encode()
    attributes = struct.pack("QQQQ", READ_ONLY | NO_SUID | NO_DEV, 0, 0, 0)
    if libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None):
        return False
    if libc.mount(b"none", os.fsencode(root), b"tmpfs", NO_SUID | NO_DEV, size):
        return False
    for path in readable():
        inside = os.fsencode(root + path)
        if os.path.isdir(path):
            os.makedirs(inside)
        else:
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            os.close(os.open(inside, os.O_CREAT | os.O_WRONLY))
        if libc.mount(os.fsencode(path), inside, None, BIND | RECURSIVE, None):
            return False
        if libc.syscall(MOUNT_SETATTR, HERE, inside, ALL_BENEATH, attributes, len(attributes)):
            return False
    for path in packages():
        if libc.mount(b"none", os.fsencode(root + path), b"tmpfs", NO_SUID | NO_DEV | READ_ONLY, b"size=4k"):
            return False
    os.chdir(root)
    if libc.pivot_root(b".", b".") or libc.umount2(b".", DETACH):
        return False
    os.mkdir("/scratch", 0o700)
    os.chdir("/scratch")
    return True


def _landlock(writable: list[str], hidden: list[str]) -> int:
    """Deny all files but the readable and the writable ones, TCP, and signals to outside; return the version, 0 for none."""
    granted = [part for path in readable() for part in around(path, hidden)]
    version: int = libc.syscall(RULESET, None, 0, 1)
    if version < 1:
        return 0
    handled = (1 << RIGHTS.get(version, 16)) - 1
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    attributes = struct.pack("QQQ", handled, network, scope)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = libc.syscall(RULESET, attributes, len(attributes), 0)
    for paths, rights in ((granted, READ_FILE | READ_FOLDER), (writable, USE)):
        for path in paths:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = rights & handled if os.path.isdir(path) else READ_FILE
            libc.syscall(RULE, rules, 1, struct.pack("=Qi", allowed, opened), 0)
            os.close(opened)
    done: bool = libc.syscall(RESTRICT, rules, 0) == 0
    os.close(rules)
    return version if done else 0


def _seccomp() -> bool:
    """Install the system-call filter, on the two machines whose numbers we know."""
    if os.uname().machine not in MACHINES:
        return False
    audit, column, clone, fcntl, prlimit = MACHINES[os.uname().machine]
    load, equal, above, bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, refuse, absent, allow = 0x80000000, 0x00050001, 0x00050026, 0x7FFF0000
    rules = [
        (load, 0, 0, 4), (equal, 1, 0, audit), (answer, 0, 0, kill),  # no other machine's numbers
        (load, 0, 0, 0), (above, 0, 1, LAST_KNOWN + 1), (answer, 0, 0, absent),  # nor calls newer than this list
        (equal, 0, 1, CLONE3), (answer, 0, 0, absent),  # its flags cannot be seen; the C library falls back on clone
    ]  # fmt: skip
    for numbers in DENIED.values():
        if (number := numbers[column]) is not None:
            rules += [(equal, 0, 1, number), (answer, 0, 0, refuse)]
    rules += [
        (equal, 0, 4, clone), (load, 0, 0, 16), (bits, 1, 0, THREAD), (answer, 0, 0, refuse), (answer, 0, 0, allow),
        (equal, 0, 4, prlimit), (load, 0, 0, 16), (equal, 0, 1, 0), (answer, 0, 0, allow), (answer, 0, 0, refuse),
        (equal, 0, 4, fcntl), (load, 0, 0, 24), *((equal, 3 - i, 0, command) for i, command in enumerate(OWNERSHIP)),
        (answer, 0, 0, allow), (answer, 0, 0, refuse),
    ]  # fmt: skip
    code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(buffer))
    return bool(libc.prctl(SECCOMP, SECCOMP_FILTER, filter_, 0, 0) == 0)


def _set(path: str, text: str) -> None:
    """Write a kernel file; one that may not be written (setgroups, on some kernels) is left."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        return
