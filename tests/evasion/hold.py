"""Keeps the lock of its own memory: it maps a file of a file system that it serves itself, and does not answer.

Its arguments are a folder to mount on and the device of FUSE. It runs as root of a user namespace of its own.
"""

import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fuse = os.open(sys.argv[2], os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
if libc.mount(b"own", sys.argv[1].encode(), b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
def attributes(node):
    size, mode = (4096, 0o100777) if node == 2 else (0, 0o40777)
    return struct.pack("<6Q10I", node, size, 8, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
def serve():
    opened = 0
    while True:
        request = os.read(fuse, 1 << 20)
        _, operation, unique, node = struct.unpack_from("<IIQQ", request)
        opened += operation == 14
        answers = {
            26: lambda: struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 0, 0, 65536, 1, 0, 0, 0),
            1: lambda: struct.pack("<4Q2I", 2, 0, 1000, 1000, 0, 0) + attributes(2),
            3: lambda: struct.pack("<QII", 1000, 0, 0) + attributes(node),
            14: lambda: struct.pack("<QII", 1, 3 if opened == 2 else 2, 0),
            15: lambda: b"x" * 4096,
        }
        # What is written is never answered.
        if operation not in (2, 16, 42):
            answer = answers.get(operation, bytes)()
            os.write(fuse, struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer)
if os.fork() == 0:
    serve()
path = sys.argv[1] + "/file"
written = os.open(path, os.O_RDWR)
page = mmap.mmap(written, 4096, mmap.MAP_SHARED)
page[0] = 65
read = os.open(path, os.O_RDONLY)
os.close(fuse)
print("holds", flush=True)
libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_PRIVATE, read, 0)
