"""What the API and the worker share: the database connection and counters in Prometheus text format."""
import os
import threading
import time

import psycopg2


def connect():
    """Connects with the settings of the pod's environment; waits for a database that is still starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg2.connect(
                host=os.environ["DB_HOST"], user=os.environ["DB_USER"], password=os.environ["DB_PASSWORD"],
                dbname=os.environ["DB_NAME"], connect_timeout=3,
                # Of several the one that takes writes.
                target_session_attrs="read-write")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select pg_advisory_lock(1)")
                cursor.execute("create table if not exists items (id bigserial primary key, text text not null, "
                               "made timestamptz not null default now(), done timestamptz)")
                cursor.execute("select pg_advisory_unlock(1)")
            return connection
        except psycopg2.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


class Counters:
    """Named counters that a scrape reads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.values = {}

    def add(self, name, by=1):
        with self.lock:
            self.values[name] = self.values.get(name, 0) + by

    def text(self):
        with self.lock:
            lines = [f"# TYPE {name} counter\n{name} {value}\n" for name, value in sorted(self.values.items())]
        return "".join(lines)
