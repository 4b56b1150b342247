//! Every bound of the HTTP side, in one place, proven against each other where they meet.

use std::time::Duration;

/// HTTP/2 receive window of one stream. hyper's 64 KiB starves hundreds of watches (upstream uses 256 KiB).
pub const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// HTTP/2 receive window of one connection.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Concurrent streams of one HTTP/2 connection: one per watch of a busy client.
pub const H2_STREAMS_MAX: u32 = 4096;
/// Bytes queued for sending on one HTTP/2 stream before the body is no longer polled.
pub const H2_SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Streams a peer may reset before they are accepted, before the connection is closed (rapid reset).
pub const H2_PENDING_RESETS_MAX: usize = 128;
/// Bytes of a request head (line and headers).
pub const HEADER_BYTES_MAX: u32 = 64 << 10;
/// Time for a request's head on HTTP/1.1, and for the first request of any connection.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(32);
/// Bytes of a body that are still read when its request was answered without it, so that the connection can go on.
pub const UNREAD_BODY_BYTES_MAX: usize = 256 << 10;
/// Time for that.
pub const UNREAD_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle HTTP/2 connection is pinged this often; silence for as long again closes it.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Open connections.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Time for open requests to end after drain began.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a request that is not a watch, log or stream (upstream `--request-timeout`).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Reads served at once (upstream `--max-requests-inflight`).
pub const READS_INFLIGHT_MAX: usize = 400;
/// Writes served at once (upstream `--max-mutating-requests-inflight`).
pub const WRITES_INFLIGHT_MAX: usize = 200;
/// Requests that may wait for a seat before they are told 429.
pub const WAITING_REQUESTS_MAX: usize = 2_000;
/// How long a request waits for a seat.
pub const SEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest life of a watch that named no timeout; the actual one lies between it and twice as long.
pub const WATCH_SECONDS_MIN: u64 = 1_800;
/// Bytes of watch events gathered into one frame of the body.
pub const WATCH_FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes of a list sent as one frame of the body.
pub const LIST_FRAME_BYTES: usize = 128 << 10;
/// Responses from this size on are compressed for clients that ask for it.
pub const GZIP_BYTES_MIN: usize = 128 << 10;
/// Deletions of one `deletecollection` under way at once; the engine commits them in groups.
pub const COLLECTION_DELETES_INFLIGHT_MAX: usize = 256;
/// Audit lines waiting for the writer; a full queue drops lines and counts them.
pub const AUDIT_QUEUE_LINES_MAX: usize = 16_384;
/// Longest life of a token a client may ask for (`TokenRequest`): one year.
pub const TOKEN_SECONDS_MAX: i64 = 365 * 24 * 3600;
/// Shortest life of a token a client may ask for.
pub const TOKEN_SECONDS_MIN: i64 = 600;
/// Longest bearer token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Time to reach a kubelet or a proxied address.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(H2_STREAM_WINDOW_BYTES < H2_CONNECTION_WINDOW_BYTES);
const _: () = assert!(LIST_FRAME_BYTES <= H2_SEND_BUFFER_BYTES_MAX);
const _: () = assert!(COLLECTION_DELETES_INFLIGHT_MAX < WAITING_REQUESTS_MAX);
