//! Limits that more than one crate relies on, proven against each other. A limit of one crate lives in that crate.

/// Largest request body the API reads (upstream: `MaxRequestBodyBytes`, 3 MiB).
pub const REQUEST_BODY_BYTES_MAX: usize = 3 << 20;
/// Largest object a store accepts in its stored form (etcd's default `--max-request-bytes` is 1.5 MiB).
pub const OBJECT_BYTES_MAX: usize = 3 << 19;
/// Deepest nesting any decoder follows.
pub const NESTING_DEPTH_MAX: usize = 128;
/// Times the API server re-runs a patch or delete from fresh state before it reports the conflict.
pub const CONFLICT_RETRIES_MAX: usize = 5;

const _: () = assert!(OBJECT_BYTES_MAX <= REQUEST_BODY_BYTES_MAX);
