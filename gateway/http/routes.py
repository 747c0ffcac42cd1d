"""The table of routes: the dialect's and the project's own. Each is served at `/` and under `/v1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from catalog.ingest import SourceConfig
from gateway.dialect import bodies
from gateway.dialect import query_bodies as queries
from gateway.dialect.bodies import (
    DeadLetterParams,
    OperationParams,
    OptimizationsParams,
    ProofParams,
    ReadParams,
    SearchReadParams,
    SnapshotParams,
    TelemetryParams,
    UploadParams,
    WriteParams,
)
from gateway.dialect.feed_bodies import (
    ChangesBody,
    ChangesParams,
    FetchBody,
    NackBody,
    OwnReadParams,
    ParkedBody,
    SubscriptionBody,
    TokensBody,
)
from gateway.handlers import (
    audit,
    changes,
    cluster,
    collections,
    dead_letters,
    field_indexes,
    history,
    ingest,
    log_level,
    log_trim,
    memory,
    node_snapshots,
    operations,
    points,
    rewind,
    searches,
    snapshots,
    subscriptions,
    tags,
    telemetry,
    vector_names,
)
from gateway.services import Handler, Stream

DEFAULT_TIER = 1
BULK_TIER = 2
CATALOG_TIER = 0

_C = "/collections/{collection_name}"
POINTS = f"{_C}/points"
_SHARD = f"{_C}/shards/{{shard_id}}"
_VECTOR = f"{_C}/vectors/{{vector_name}}"
_SOURCE = "/ingest/sources/{name}"
_SUBSCRIPTION = "/subscriptions/{name}"


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: its path, parameters, body and handler."""

    method: str
    path: str
    handler: Handler
    tag: str
    body: Any = None
    params: type = ReadParams
    tier: int = DEFAULT_TIER
    optional_body: bool = False
    bulk: bool = False
    """Whether the handler parses large bodies itself."""
    streamed: bool = False
    """Whether the handler reads the body itself, a form with a file in the field `snapshot`, of any size."""
    is_file: bool = False
    """Whether the answer is a file."""
    stream: Stream | None = None
    """The handler of a request that accepts a stream of events."""

    @property
    def summary(self) -> str:
        return (self.handler.__doc__ or "").split("\n")[0].rstrip(".")


ROUTES = (
    # The most frequent routes are first, since the router tries them in this order.
    Route("POST", f"{_C}/points/search", searches.search_points, "search", queries.SearchBody, SearchReadParams),
    Route("POST", f"{_C}/points/query", searches.query_points, "search", queries.QueryBody, ReadParams),
    Route("PUT", f"{_C}/points", points.upsert, "points", bodies.UpsertBody, WriteParams, bulk=True),
    Route("POST", f"{_C}/points", points.retrieve, "points", bodies.RetrieveBody, ReadParams),
    Route("POST", f"{_C}/points/search/batch", searches.search_batch, "search", queries.SearchBatchBody, ReadParams),
    Route("POST", f"{_C}/points/query/batch", searches.query_batch, "search", queries.QueryBatchBody, ReadParams),
    Route("POST", f"{_C}/points/query/groups", searches.query_groups, "search", queries.QueryGroupsBody, ReadParams),
    Route("POST", f"{_C}/points/search/groups", searches.search_groups, "search", queries.SearchGroupsBody, ReadParams),
    Route("POST", f"{_C}/points/search/matrix/pairs", searches.matrix_pairs, "search", queries.MatrixBody, ReadParams),
    Route("POST", f"{_C}/points/search/matrix/offsets", searches.matrix_offsets, "search", queries.MatrixBody, ReadParams),
    Route("POST", f"{_C}/points/recommend", searches.recommend, "search", queries.RecommendBody, ReadParams),
    Route("POST", f"{_C}/points/recommend/batch", searches.recommend_batch, "search", queries.RecommendBatchBody, ReadParams),
    Route("POST", f"{_C}/points/recommend/groups", searches.recommend_groups, "search", queries.RecommendGroupsBody, ReadParams),
    Route("POST", f"{_C}/points/discover", searches.discover, "search", queries.DiscoverBody, ReadParams),
    Route("POST", f"{_C}/points/discover/batch", searches.discover_batch, "search", queries.DiscoverBatchBody, ReadParams),
    Route("POST", "/vectors/search", searches.search_named, "search", queries.CollectionSearchBody, ReadParams),
    Route("POST", "/vectors/bulk", points.bulk, "points", bodies.BulkBody, WriteParams, BULK_TIER, bulk=True),
    Route("POST", f"{_C}/points/scroll", points.scroll, "points", bodies.ScrollBody, ReadParams),
    Route("POST", f"{_C}/points/count", points.count, "points", bodies.CountBody, ReadParams, optional_body=True),
    Route("POST", f"{_C}/facet", points.facet, "points", bodies.FacetBody, ReadParams),
    Route("POST", f"{_C}/points/delete", points.delete, "points", bodies.PointsSelector, WriteParams),
    Route("POST", f"{_C}/points/payload", points.set_payload, "points", bodies.SetPayloadBody, WriteParams),
    Route("PUT", f"{_C}/points/payload", points.overwrite_payload, "points", bodies.SetPayloadBody, WriteParams),
    Route("POST", f"{_C}/points/payload/delete", points.delete_payload, "points", bodies.DeletePayloadBody, WriteParams),
    Route("POST", f"{_C}/points/payload/clear", points.clear_payload, "points", bodies.PointsSelector, WriteParams),
    Route("PUT", f"{_C}/points/vectors", points.update_vectors, "points", bodies.UpdateVectorsBody, WriteParams),
    Route("POST", f"{_C}/points/vectors/delete", points.delete_vectors, "points", bodies.DeleteVectorsBody, WriteParams),
    Route("POST", f"{_C}/points/batch", points.batch, "points", bodies.UpdateBatchBody, WriteParams),
    Route("GET", f"{_C}/points/{{point_id}}", points.get, "points", None, ReadParams),
    Route("GET", "/collections", collections.list_all, "collections"),
    Route("PUT", _C, collections.create, "collections", bodies.CreateCollectionBody, WriteParams, CATALOG_TIER),
    Route("GET", _C, collections.info, "collections", None, ReadParams),
    Route("PATCH", _C, collections.update, "collections", bodies.UpdateCollectionBody, WriteParams, CATALOG_TIER),
    Route("DELETE", _C, collections.delete, "collections", None, WriteParams, CATALOG_TIER),
    Route("GET", f"{_C}/exists", collections.exists, "collections"),
    Route("GET", f"{_C}/aliases", collections.aliases, "aliases"),
    Route(
        "POST", "/collections/aliases", collections.change_aliases, "aliases", bodies.ChangeAliasesBody, WriteParams, CATALOG_TIER
    ),
    Route("GET", "/aliases", collections.aliases, "aliases"),
    Route("PUT", f"{_C}/index", field_indexes.create_index, "collections", bodies.CreateIndexBody, WriteParams, CATALOG_TIER),
    Route("DELETE", f"{_C}/index/{{field_name}}", field_indexes.delete_index, "collections", None, WriteParams, CATALOG_TIER),
    Route("GET", f"{_C}/tags", tags.list_all, "rewind"),
    Route("PUT", f"{_C}/tags/{{tag_name}}", tags.put, "rewind", bodies.TagBody, WriteParams, CATALOG_TIER, True),
    Route("DELETE", f"{_C}/tags/{{tag_name}}", tags.delete, "rewind", None, WriteParams, CATALOG_TIER),
    Route("GET", f"{_C}/diff", rewind.diff, "rewind", None, bodies.DiffParams),
    Route("POST", f"{_C}/restore", rewind.restore, "rewind", bodies.RestoreBody, WriteParams),
    Route("GET", f"{_C}/points/{{point_id}}/history", history.history, "rewind", None, bodies.HistoryParams),
    Route("POST", f"{_C}/points/{{point_id}}/restore", rewind.restore_point, "rewind", bodies.PointRestoreBody, WriteParams),
    Route("POST", f"{_C}/fork", rewind.fork, "rewind", bodies.ForkBody, WriteParams, CATALOG_TIER),
    Route("PUT", _VECTOR, vector_names.create_vector, "collections", bodies.VectorNameBody, WriteParams, CATALOG_TIER),
    Route("DELETE", _VECTOR, vector_names.delete_vector, "collections", None, WriteParams, CATALOG_TIER),
    Route("GET", f"{_C}/changes", changes.changes, "changes", None, ChangesParams, stream=changes.stream),
    Route("POST", f"{_C}/changes", changes.changes, "changes", ChangesBody, OwnReadParams, stream=changes.stream),
    Route("GET", f"{_C}/cluster", cluster.collection_status, "cluster"),
    Route("GET", f"{_C}/shards", cluster.shard_keys, "cluster"),
    Route("GET", f"{_C}/optimizations", cluster.optimizations, "cluster", None, OptimizationsParams),
    Route("GET", "/cluster", cluster.status, "cluster"),
    Route("GET", "/telemetry", telemetry.telemetry, "cluster", None, TelemetryParams),
    Route("GET", "/quotas", telemetry.quotas, "cluster"),
    Route("GET", "/issues", cluster.issues, "cluster"),
    Route("DELETE", "/issues", cluster.clear_issues, "cluster"),
    Route("GET", "/operations", operations.list_all, "operations", None, OperationParams),
    Route("GET", "/operations/{request_id}", operations.show, "operations"),
    Route("GET", "/audit/checkpoints", audit.checkpoints, "audit"),
    Route("GET", "/audit/proof", audit.proof, "audit", None, ProofParams),
    Route("GET", "/ingest/sources", ingest.list_all, "ingest"),
    Route("GET", _SOURCE, ingest.show, "ingest"),
    Route("PUT", _SOURCE, ingest.put, "ingest", SourceConfig, WriteParams, CATALOG_TIER),
    Route("DELETE", _SOURCE, ingest.delete, "ingest", None, WriteParams, CATALOG_TIER),
    *(
        Route("POST", f"{_SOURCE}/{action.__name__}", action, "ingest", bodies.PartitionsBody, WriteParams, CATALOG_TIER, True)
        for action in (ingest.pause, ingest.resume)
    ),
    Route("POST", f"{_SOURCE}/restart", ingest.restart, "ingest", None, WriteParams, CATALOG_TIER),
    Route("POST", f"{_SOURCE}/move", ingest.move, "ingest", bodies.MoveIngestBody, WriteParams, CATALOG_TIER),
    *(
        route
        for prefix in ("", _C, _SHARD)
        for route in (
            Route("GET", f"{prefix}/snapshots", snapshots.list_all, "snapshots"),
            Route("POST", f"{prefix}/snapshots", snapshots.create, "snapshots", None, SnapshotParams),
            Route("GET", f"{prefix}/snapshots/{{snapshot_name}}", snapshots.download, "snapshots", is_file=True),
            Route("DELETE", f"{prefix}/snapshots/{{snapshot_name}}", snapshots.delete, "snapshots", None, SnapshotParams),
        )
    ),
    *(
        route
        for prefix in (_C, _SHARD)
        for route in (
            Route("PUT", f"{prefix}/snapshots/recover", snapshots.recover, "snapshots", bodies.RecoverBody, SnapshotParams),
            Route("POST", f"{prefix}/snapshots/upload", snapshots.upload, "snapshots", None, UploadParams, streamed=True),
        )
    ),
    Route("GET", f"{_SHARD}/snapshot", snapshots.stream, "snapshots", is_file=True),
    Route("GET", "/admin/snapshots", node_snapshots.list_all, "admin"),
    Route("POST", "/admin/snapshots", node_snapshots.create, "admin", None, SnapshotParams),
    Route("POST", "/admin/snapshots/prune", node_snapshots.prune, "admin", bodies.PruneBody),
    Route("POST", "/admin/snapshots/{snapshot_id}/verify", node_snapshots.verify, "admin"),
    Route("DELETE", "/admin/snapshots/{snapshot_id}", node_snapshots.delete, "admin"),
    Route("GET", "/subscriptions", subscriptions.list_all, "changes"),
    Route("GET", _SUBSCRIPTION, subscriptions.show, "changes"),
    Route("PUT", _SUBSCRIPTION, subscriptions.put, "changes", SubscriptionBody, WriteParams, CATALOG_TIER),
    Route("DELETE", _SUBSCRIPTION, subscriptions.delete, "changes", None, WriteParams, CATALOG_TIER),
    Route("POST", f"{_SUBSCRIPTION}/fetch", subscriptions.fetch, "changes", FetchBody, WriteParams, optional_body=True),
    Route("POST", f"{_SUBSCRIPTION}/ack", subscriptions.ack, "changes", TokensBody, WriteParams),
    Route("POST", f"{_SUBSCRIPTION}/nack", subscriptions.nack, "changes", NackBody, WriteParams),
    Route("POST", f"{_SUBSCRIPTION}/resume", subscriptions.resume, "changes", None, WriteParams),
    Route("GET", f"{_SUBSCRIPTION}/parked", subscriptions.parked, "changes"),
    *(
        Route("POST", f"{_SUBSCRIPTION}/parked/{action.__name__}", action, "changes", ParkedBody, WriteParams, optional_body=True)
        for action in (subscriptions.replay, subscriptions.discard)
    ),
    Route("POST", "/admin/journal/trim", log_trim.trim, "admin", bodies.TrimBody),
    Route("GET", "/admin/lag", dead_letters.lag, "admin"),
    Route("GET", "/admin/memory", memory.show, "admin"),
    Route("GET", "/admin/log-level", log_level.show, "admin"),
    Route("PUT", "/admin/log-level", log_level.change, "admin", bodies.LogLevelBody),
    *(
        route
        for path in ("/admin/dlq", "/admin/collections/{collection_name}/dlq")
        for route in (
            Route("GET", path, dead_letters.list_letters, "admin", None, DeadLetterParams),
            Route("DELETE", path, dead_letters.clear_all, "admin", None, DeadLetterParams),
            Route("POST", f"{path}/retry", dead_letters.retry_all, "admin", None, DeadLetterParams),
        )
    ),
    Route("GET", "/admin/dlq/{number}", dead_letters.show, "admin"),
    Route("DELETE", "/admin/dlq/{number}", dead_letters.clear, "admin"),
    Route("POST", "/admin/dlq/{number}/retry", dead_letters.retry, "admin"),
)
