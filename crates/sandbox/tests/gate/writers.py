"""A thousand writers at one workspace: each tries until it is let in, then writes ten lines and says so.

Each is a process of its own with a file of its own, so that whatever is there at the end was written by one of them.
"""

import errno
import os
import sys
import time

COUNT, LINES = 1000, 10


def append(number, line):
    with open(f"/workspace/file-{number}", "a") as file:
        file.write(line)


def replace(number, line):
    path = f"/workspace/file-{number}"
    with open(path) as file:
        text = file.read()
    with open(f"{path}.new", "w") as file:
        file.write(text + line)
    os.rename(f"{path}.new", path)


def create(number, line):
    fd = os.open(f"/workspace/new-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)


def write(number, tell):
    """Tells `refused` once, then the time of the first line that was written and how often it was refused."""
    act, refused = (append, replace, create)[number % 3], 0
    while True:
        try:
            act(number, f"writer {number} line 0\n")
            break
        except FileNotFoundError:
            # The sync takes a file away for the moment in which it makes the new one.
            continue
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            refused += 1
            if refused == 1:
                os.write(tell, b"refused\n")
            time.sleep(0.05 + number % 7 * 0.02)
    first = time.monotonic_ns()
    for line in range(1, LINES):
        act(number, f"writer {number} line {line}\n")
    os.write(tell, f"wrote {first} {refused}\n".encode())


for number in range(COUNT):
    if os.fork() == 0:
        try:
            write(number, sys.stdout.fileno())
        except BaseException as error:
            os.write(sys.stdout.fileno(), f"failed {number} {error!r}\n".encode())
        os._exit(0)
for number in range(COUNT):
    os.wait()
