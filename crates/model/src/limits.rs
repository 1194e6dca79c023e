//! AWS Lambda's quotas, each under its name. Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
//! and the constraints of the Lambda service model.

use std::time::Duration;

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// A deployment package uploaded in the request, zipped.
pub const ZIPPED_CODE_BYTES: u64 = 50 * MIB;
/// A deployment package with all its layers, unzipped.
pub const UNZIPPED_CODE_BYTES: u64 = 250 * MIB;
/// All function code and layers of one account in one region.
pub const TOTAL_CODE_BYTES: u64 = 75 * 1024 * MIB;
/// The body of a synchronous invocation: 6 MiB and the slack AWS allows for the envelope.
pub const SYNC_REQUEST_BYTES: usize = 6_291_456;
/// What a function may answer a buffered, synchronous invocation with, 6 MiB plus 100 bytes.
pub const SYNC_RESPONSE_BYTES: usize = 6_291_556;
/// What a function may stream as its response.
pub const STREAMED_RESPONSE_BYTES: u64 = 200 * MIB;
/// The body of an asynchronous invocation.
pub const ASYNC_REQUEST_BYTES: usize = 1_048_576;
/// How long an asynchronous event is tried, unless configured; also the most that can be.
pub const EVENT_AGE: Duration = Duration::from_secs(6 * 3_600);
/// How often an asynchronous event is tried again after the function failed, unless configured.
pub const EVENT_RETRIES: u32 = 2;
/// How often a chain of invocations may come to the same function before it is taken for a loop.
pub const RECURSION: u32 = 16;
/// The base64 of `X-Amz-Client-Context`, decoded.
pub const CLIENT_CONTEXT_BYTES: usize = 3_583;
/// The tail of the log that `LogType=Tail` returns.
pub const LOG_TAIL_BYTES: usize = 4_096;
/// All environment variables of a function together, keys and values.
pub const ENVIRONMENT_BYTES: usize = 4_096;
/// Layers of one function version.
pub const LAYERS: usize = 5;
/// Time-out of a function that asked for none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest time-out, in seconds.
pub const MAX_TIMEOUT_SECS: u32 = 900;
/// Memory of a function that asked for none, in MiB.
pub const DEFAULT_MEMORY_MIB: u32 = 128;
/// The least and the most memory, in MiB.
pub const MEMORY_MIB: std::ops::RangeInclusive<u32> = 128..=10_240;
/// The least (and default) and the most space in `/tmp`, in MiB.
pub const EPHEMERAL_MIB: std::ops::RangeInclusive<u32> = 512..=10_240;
/// Memory that buys one full virtual CPU, in MiB.
pub const MEMORY_MIB_PER_VCPU: u32 = 1_769;
/// The init phase: extensions and runtime must ask for their first event within it.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The init phase of provisioned concurrency, unless the function's own time-out is longer.
pub const PROVISIONED_INIT_TIMEOUT: Duration = Duration::from_secs(130);
/// Restoring a snapshot: memory, and the function's hooks after it.
pub const RESTORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Ephemeral storage of a function with snapshots, at most.
pub const SNAP_START_EPHEMERAL_MIB: u32 = 512;
/// What processes get between SIGTERM and SIGKILL when an external extension is registered.
pub const SHUTDOWN_WITH_EXTENSIONS: Duration = Duration::from_secs(2);
/// What processes get between SIGTERM and SIGKILL when only internal extensions are registered.
pub const SHUTDOWN_WITH_INTERNAL_EXTENSIONS: Duration = Duration::from_millis(500);
/// Concurrent executions of an account.
pub const ACCOUNT_CONCURRENCY: u32 = 1_000;
/// Containers of one function version that may be begun within [`SCALING_WINDOW`].
pub const SCALING_STARTS: u32 = 1_000;
/// What the rate of scaling counts in.
pub const SCALING_WINDOW: Duration = Duration::from_secs(10);
/// Concurrency that reservations must leave to everyone else.
pub const UNRESERVED_CONCURRENCY_MINIMUM: u32 = 100;
/// Processes and threads of one container.
pub const CONTAINER_PROCESSES: u32 = 1_024;
/// File descriptors of one process of a container.
pub const CONTAINER_FILE_DESCRIPTORS: u64 = 1_024;
