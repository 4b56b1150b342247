"""Opens new connections at a steady rate, one HTTP request each, and counts what failed: HOST PORT RATE SECONDS."""
import socket
import sys
import threading
import time

host, port, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
WORKERS = 8
start = time.monotonic()
lock = threading.Lock()
turns = made = 0
failures = []


def call():
    with socket.create_connection((host, port), timeout=10) as stream:
        stream.sendall(b"GET / HTTP/1.0\r\nHost: api\r\n\r\n")
        answer = b""
        while part := stream.recv(4096):
            answer += part
    if b" 200 " not in answer.split(b"\r\n")[0] or not answer.endswith(b'{"ok": true}'):
        raise OSError("answered %r" % answer[:100])


def work():
    global turns, made
    while True:
        with lock:
            due = start + turns / rate
            turns += 1
        if due > start + seconds:
            return
        time.sleep(max(0.0, due - time.monotonic()))
        error = None
        try:
            call()
        except OSError as caught:
            error = "%.1f s: %s" % (time.monotonic() - start, caught)
        with lock:
            made += 1
            if error:
                failures.append(error)


threads = [threading.Thread(target=work) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done", made, len(failures), "%.1f" % (time.monotonic() - start), *failures[:3])
