//! Every bound of the node agent in one place, proven against each other where they meet.

use std::time::Duration;

/// First wait after a container crashed twice; doubles up to the maximum (`MaxContainerBackOff`).
pub const CRASH_BACKOFF_FIRST: Duration = Duration::from_secs(10);
pub const CRASH_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts over with the first wait.
pub const CRASH_BACKOFF_RESET: Duration = Duration::from_secs(600);
/// Waits between tries of everything that is not a crash: volumes, sandbox, configuration.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
pub const RETRY_MAX: Duration = Duration::from_secs(20);
/// Least time a container gets between its stop signal and the kill.
pub const GRACE_SECONDS_MIN: i64 = 2;
/// Commands waiting for one pod's worker. Senders wait: state is level-based and nothing is lost.
pub const WORKER_QUEUE_MAX: usize = 64;
/// Bytes of a termination message file that count (`MaxContainerTerminationMessageLength`).
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;
/// Bytes and lines of log used as a message with `FallbackToLogsOnError`.
pub const TERMINATION_LOG_BYTES_MAX: usize = 2048;
pub const TERMINATION_LOG_LINES_MAX: usize = 80;
/// All messages of one pod together (`MaxPodTerminationMessageLogLength`).
pub const TERMINATION_POD_BYTES_MAX: usize = 12 * 1024;
/// Body of a probe's answer that is read.
pub const PROBE_BODY_BYTES_MAX: usize = 10 * 1024;
/// Redirects a probe follows on the same host.
pub const PROBE_REDIRECTS_MAX: usize = 10;
/// How often everything is listed when the runtime sends no events.
pub const RELIST_EVERY: Duration = Duration::from_secs(1);
/// How often everything is listed even with events.
pub const RELIST_WITH_EVENTS_EVERY: Duration = Duration::from_secs(20);
/// Largest time a verb of the runtime may take before we give up on the answer.
pub const RUNTIME_VERB_TIMEOUT: Duration = Duration::from_secs(120);
pub const SANDBOX_TIMEOUT: Duration = Duration::from_secs(240);
pub const PULL_TIMEOUT: Duration = Duration::from_secs(3600);
/// Pulls at a time.
pub const PULLS_MAX: usize = 4;
/// Lease renewal and node status (`nodeStatusUpdateFrequency`, `nodeStatusReportFrequency`).
pub const LEASE_SECONDS: i32 = 40;
pub const LEASE_EVERY: Duration = Duration::from_secs(10);
pub const NODE_CHECK_EVERY: Duration = Duration::from_secs(10);
pub const NODE_REPORT_EVERY: Duration = Duration::from_secs(300);
/// Images listed in the node's status (`nodeStatusMaxImages`).
pub const NODE_IMAGES_MAX: usize = 50;
/// Log file size and number of files per container.
pub const LOG_BYTES_MAX: u64 = 10 << 20;
pub const LOG_FILES_MAX: usize = 5;
pub const LOG_ROTATE_EVERY: Duration = Duration::from_secs(10);
/// Longest line of a log file that is kept in memory (the runtime cuts at 16 KiB).
pub const LOG_LINE_BYTES_MAX: usize = 1 << 20;
/// An exec, attach or port-forward on which nothing passes is let go after this.
pub const STREAM_IDLE_MAX: Duration = Duration::from_secs(4 * 3600);
pub const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests served at a time on the kubelet port, streams included.
pub const CONNECTIONS_MAX: usize = 512;
/// Largest frame accepted from a stream peer.
pub const FRAME_BYTES_MAX: usize = 1 << 22;
/// Streams one SPDY connection may have open.
pub const SPDY_STREAMS_MAX: usize = 1024;
/// Answers of TokenReview and SubjectAccessReview are believed this long.
pub const AUTH_CACHE_FOR: Duration = Duration::from_secs(30);
pub const AUTH_CACHE_ENTRIES_MAX: usize = 1024;
/// Largest ConfigMap or Secret file tree written.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// How long to wait for an object a pod refers to.
pub const OBJECT_WAIT: Duration = Duration::from_secs(10);

/// How often the machine is looked at for pressure and for limits of scratch space (`housekeeping-interval`).
pub const PRESSURE_LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long what the runtime says of all containers is good for whoever asks next.
pub const STATS_KEPT_FOR: Duration = Duration::from_secs(5);
/// How long a walk of a pod's folders is good for a summary (`volume-stats-agg-period`), and for the judge of limits.
pub const FOLDERS_KEPT_FOR: Duration = Duration::from_secs(60);
pub const FOLDERS_KEPT_FOR_EVICTION: Duration = PRESSURE_LOOK_EVERY;
/// How long an evicted pod may take before the next look.
pub const EVICTION_WAIT: Duration = Duration::from_secs(30);
/// How often resizes that did not fit are looked at again, and when one that the runtime refused is tried again.
pub const RESIZE_LOOK_EVERY: Duration = Duration::from_secs(10);
pub const RESIZE_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How often images are collected, and how long an image is left alone after it came.
pub const IMAGE_GC_EVERY: Duration = Duration::from_secs(300);
pub const IMAGE_AGE_MIN: Duration = Duration::from_secs(120);

const _: () = assert!(TERMINATION_LOG_BYTES_MAX <= TERMINATION_MESSAGE_BYTES_MAX);
const _: () = assert!(FOLDERS_KEPT_FOR_EVICTION.as_secs() <= FOLDERS_KEPT_FOR.as_secs());
const _: () = assert!(LEASE_EVERY.as_secs() * 4 <= LEASE_SECONDS as u64);
const _: () = assert!(LOG_LINE_BYTES_MAX < FRAME_BYTES_MAX);
