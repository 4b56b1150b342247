"""The HTTP API: POST /items stores a row, GET /items/N reads it back, /healthz, /readyz, /metrics."""
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

from common import Counters, connect

counters = Counters()
local = threading.local()


def query(sql, arguments):
    """Runs one statement; a lost connection is made anew once."""
    for attempt in (1, 2):
        if getattr(local, "connection", None) is None:
            local.connection = connect()
        try:
            with local.connection.cursor() as cursor:
                cursor.execute(sql, arguments)
                return cursor.fetchone()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            local.connection = None
            if attempt == 2:
                raise


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body, kind="application/json"):
        data = body.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        counters.add("saas_api_requests_total")

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/items" or length > 1 << 16:
            return self.answer(400, '{"error": "POST /items with at most 64 KiB"}')
        text = self.rfile.read(length).decode("utf-8", "replace")
        row = query("insert into items (text) values (%s) returning id", (text,))
        counters.add("saas_items_created_total")
        return self.answer(201, json.dumps({"id": row[0]}))

    def do_GET(self):
        if self.path == "/metrics":
            return self.answer(200, counters.text(), "text/plain; version=0.0.4")
        if self.path in ("/healthz", "/"):
            return self.answer(200, '{"ok": true}')
        if self.path == "/readyz":
            query("select 1", ())
            return self.answer(200, '{"ready": true}')
        if self.path.startswith("/items/") and self.path[7:].isdigit():
            row = query("select id, text, done is not null from items where id = %s", (int(self.path[7:]),))
            if row:
                return self.answer(200, json.dumps({"id": row[0], "text": row[1], "done": row[2]}))
        return self.answer(404, '{"error": "not found"}')

    def log_message(self, pattern, *arguments):
        if self.path not in ("/healthz", "/readyz", "/metrics"):
            sys.stdout.write("%s\n" % (pattern % arguments))


server = ThreadingHTTPServer(("", 8080), Handler)
server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving on 8080")
server.serve_forever()
