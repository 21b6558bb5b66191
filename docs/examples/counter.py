#!/usr/bin/env python3
"""Counts through switch-overs and failovers, with redis-py (Debian: python3-redis) and its Sentinel.

usage: counter.py HOST:PORT[,HOST:PORT...] KEY    counts until its standard input ends, then prints what happened as JSON

An increment whose outcome is unknown is neither repeated blindly nor given up: a write to another key of the same file goes behind it,
and then the counter says whether it was done.
"""
import json
import sys
import threading
import time

import redis
from redis.sentinel import Sentinel

addresses = [(host, int(port)) for host, port in (a.rsplit(":", 1) for a in sys.argv[1].split(","))]
key = sys.argv[2]
fence = key.rsplit(":", 1)[0] + ":fence" if ":" in key else "fence"

sentinel = Sentinel(addresses, socket_timeout=20)
client = sentinel.master_for("default", socket_timeout=20)

over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()

UNKNOWN = (redis.ConnectionError, redis.TimeoutError)  # no answer at all; a master that is not there is one, too


def settle():
    """Returns the counter once nothing that was sent before can change it any more."""
    end = time.monotonic() + 60
    while True:
        try:
            client.set(fence, time.time())
            return int(client.get(key) or 0)
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


counted = settle()
begun = counted
unknown = refused = 0
print("counting", flush=True)
while not over.is_set():
    try:
        value = client.incr(key)
    except UNKNOWN:
        unknown += 1
        value = settle()
    except redis.ResponseError as e:
        if str(e).startswith("TRYAGAIN"):  # surely not done
            refused += 1
            continue
        if not str(e).startswith("UNKNOWNOUTCOME"):
            raise
        unknown += 1
        value = settle()
    if value not in (counted, counted + 1):
        sys.exit(f"the counter is {value} after {counted}")
    counted = value

print(json.dumps({"client": "redis-py " + redis.__version__, "begun": begun, "counted": counted, "value": settle(), "unknown": unknown, "refused": refused}))
