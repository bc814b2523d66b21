"""Optuna's dashboard of the studies, for this machine's browsers only."""

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer, make_server

from stores import reach_database, studies_database, until_it_works

HOSTS = {"localhost", "127.0.0.1"}
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Threaded(ThreadingMixIn, WSGIServer):
    """A slow page does not keep the others waiting."""

    daemon_threads = True


def show_studies() -> None:
    """Serve the dashboard; the database's address is no argument, which `ps` would show."""
    until_it_works(lambda: reach_database(studies_database()), "PostgreSQL's database of studies")
    from optuna.storages import RDBStorage
    from optuna_dashboard import wsgi

    storage = RDBStorage(studies_database().uri)  # makes the tables that the dashboard only reads
    guarded = only_for(HOSTS, wsgi(storage))
    host = os.environ.get("DASHBOARD_HOST", "127.0.0.1")
    with make_server(host, port(), guarded, server_class=Threaded) as server:
        server.serve_forever()


def port() -> int:
    return int(os.environ.get("DASHBOARD_PORT", "8080"))


def only_for(hosts: set[str], application: Application) -> Application:
    """The application for pages and under names of `hosts` alone.

    A foreign web page could have its own name point here, or write without reading the answer.
    """

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN", "")
        if environ.get("HTTP_HOST", "").rsplit(":", 1)[0] not in hosts:
            reason = b"this name is not known here"
        elif origin and urlsplit(origin).hostname not in hosts:
            reason = b"a page of another site may not ask here"
        else:
            return application(environ, start)
        start("403 Forbidden", [("Content-Type", "text/plain")])
        return [reason]

    return guarded


def check() -> None:
    """Exit 0 when the studies can be listed."""
    address = f"http://127.0.0.1:{port()}/api/studies"
    try:
        with urllib.request.urlopen(address, timeout=8) as answer:
            json.load(answer)["study_summaries"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"start.py check: {address} does not list studies: {error}")
