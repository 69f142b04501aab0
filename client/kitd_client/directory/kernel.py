"""System calls that the standard library lacks."""

import ctypes
import errno
import os
import platform
from functools import cache
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_OPENAT2: Final = 437
"""The same number on every architecture (`asm-generic/unistd.h`)."""
_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}
_RENAME_NOREPLACE: Final = 1
_BENEATH: Final = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS (`openat2(2)`)."""
_ATTEMPTS: Final = 16


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _syscall(
    number: int, *arguments: ctypes.c_int | ctypes.c_char_p | ctypes.c_void_p | ctypes.c_size_t
) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def openat2(dir_fd: int, path: bytes, flags: int, mode: int) -> int:
    """Opens beneath `dir_fd`, over no link of any kind (`openat2(2)`, Linux 5.6).

    Raises:
        OSError: ELOOP for a link, ENOSYS (or EPERM, in old sandboxes) where the kernel has no such call.
    """
    how = _OpenHow(flags, mode, _BENEATH)
    for _ in range(_ATTEMPTS):
        try:
            return _syscall(
                _OPENAT2,
                ctypes.c_int(dir_fd),
                ctypes.c_char_p(path),
                ctypes.c_void_p(ctypes.addressof(how)),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        except BlockingIOError:
            # EAGAIN: something was renamed meanwhile and the kernel could not be sure
            continue
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


@cache
def has_openat2() -> bool:
    """Asks once; a sandbox that answers EPERM has it not."""
    try:
        os.close(openat2(-100, b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM)
    return True


def rename_noreplace(source_dir: int, source: bytes, target_dir: int, target: bytes) -> None:
    """Renames, and replaces nothing (`renameat2(2)`, RENAME_NOREPLACE).

    Raises:
        FileExistsError: there is something of that name, a link included.
        OSError: ENOSYS or EINVAL where kernel or file system have no such call.
    """
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _syscall(
        number,
        ctypes.c_int(source_dir),
        ctypes.c_char_p(source),
        ctypes.c_int(target_dir),
        ctypes.c_char_p(target),
        ctypes.c_int(_RENAME_NOREPLACE),
    )


def syncfs(descriptor: int) -> None:
    """Writes out the whole file system of `descriptor` (`syncfs(2)`).

    Raises:
        OSError: something could not be written since `descriptor` was opened (Linux 5.8).
    """
    if _libc.syncfs(ctypes.c_int(descriptor)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
