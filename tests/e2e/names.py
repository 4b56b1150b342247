"""Asks for a name at a steady rate until its input ends, and counts what failed: SERVER NAME RATE.

A question fails where a resolver would give up on it: the port is closed, nothing comes in time, or what comes is no
address. Nothing is asked twice."""
import socket
import struct
import sys
import threading
import time

server, name, rate = sys.argv[1], sys.argv[2], float(sys.argv[3])
WORKERS = 8
# Less than resolvers wait before they ask again.
TIMEOUT = 4.5
# One in so many goes over TCP.
TCP_EVERY = 10
start = time.monotonic()
lock = threading.Lock()
turns = made = 0
slowest = 0.0
failures = []
ended = threading.Event()


def question(number):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0)
    return head + labels + b"\0" + struct.pack(">HH", 1, 1)


def over_udp(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT)
        asking.connect((server, 53))
        asking.send(question(number))
        return asking.recv(4096)


def over_tcp(number):
    with socket.create_connection((server, 53), timeout=TIMEOUT) as asking:
        asked = question(number)
        asking.sendall(struct.pack(">H", len(asked)) + asked)
        stream = asking.makefile("rb")
        return stream.read(struct.unpack(">H", stream.read(2))[0])


def ask(turn):
    number = turn % 65536
    answer = over_tcp(number) if turn % TCP_EVERY == 0 else over_udp(number)
    same, flags, _, records = struct.unpack(">HHHH", answer[:8])
    if same != number or flags & 15 or records == 0:
        raise OSError("answered %r" % answer[:12])


def work():
    global turns, made, slowest
    while not ended.is_set():
        with lock:
            turn, due = turns, start + turns / rate
            turns += 1
        time.sleep(max(0.0, due - time.monotonic()))
        began, error = time.monotonic(), None
        try:
            ask(turn)
        except (OSError, struct.error) as caught:
            error = "%.1f s: %s" % (began - start, caught)
        with lock:
            made += 1
            slowest = max(slowest, time.monotonic() - began)
            if error:
                failures.append(error)


threads = [threading.Thread(target=work) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
print("done", made, len(failures), "%.1f" % (time.monotonic() - start), "%.2f" % slowest, *failures)
