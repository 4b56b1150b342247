"""The background worker: marks items done, a few at a time, and serves its own counters on 8081."""
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg2

from common import Counters, connect

counters = Counters()
stopping = threading.Event()


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self):
        data = counters.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def work(connection):
    with connection.cursor() as cursor:
        cursor.execute("update items set done = now() where id in (select id from items where done is null "
                       "order by id limit 100 for update skip locked)")
        return cursor.rowcount


signal.signal(signal.SIGTERM, lambda *_: stopping.set())
threading.Thread(target=HTTPServer(("", 8081), Metrics).serve_forever, daemon=True).start()
counters.add("saas_items_done_total", 0)
connection = None
while not stopping.is_set():
    try:
        connection = connection or connect()
        counters.add("saas_items_done_total", work(connection))
    except psycopg2.Error as error:
        print("database:", str(error).strip())
        connection = None
    stopping.wait(float(os.environ.get("PERIOD_SECONDS", "0.5")))
print("stopped")
