"""Numbers of a running server in the format of Prometheus."""

from __future__ import annotations

import os
import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# The environment variable that has prometheus_client keep numbers in files of a folder, from when it is imported.
SHARED_NUMBERS: Final = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mcip_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "mcip_request_seconds", "Time to answer a request.", ("route",), registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20),
        )  # fmt: skip
        self.batches = Histogram(
            "mcip_batch_size", "Queries per forward pass of the model.", ("kind",), registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip
        self.cached_texts = Counter(
            "mcip_text_cache", "Texts looked up among those embedded before.", ("result",), registry=self.registry
        )
        self.images = Gauge(
            "mcip_images", "Images in the index.", registry=self.registry, multiprocess_mode="mostrecent"
        )
        self.version = Gauge(
            "mcip_table_version", "Version of the table that is served.", registry=self.registry,
            multiprocess_mode="mostrecent",
        )  # fmt: skip
        self.refresh_failures = Counter(
            "mcip_refresh_failures", "Looks for a newer version of the table that failed.", registry=self.registry
        )

    def text(self) -> bytes:
        """All numbers as Prometheus reads them: of all processes, where several share an address."""
        registry = self.registry
        if SHARED_NUMBERS in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class Measured:
    """Counts and times the requests to an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, method = time.perf_counter(), 500, scope["method"]

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            # By the route, not the path: ids would make endlessly many series.
            route = getattr(scope.get("route"), "path", "other")
            known = method if method in ("GET", "HEAD", "POST") else "other"
            self.metrics.requests.labels(known, route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
