//! Why an invocation was refused, in AWS's words. What the function itself did wrong is no error here but an answer.

use lambent_model::affinity::MAX_VALUE_BYTES;
use lambent_registry::State;

use crate::ThrottleReason;

/// What AWS says of a loop that it has stopped.
pub(crate) const LOOP: &str = "Lambda has detected your function being invoked in a recursive loop with other AWS resources and stopped \
     your function's invocation.";

/// An invocation that did not run. Each variant is one AWS error ([`Error::code`], [`Error::status`]); `Display` is AWS's message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such function, version or alias.
    #[error(transparent)]
    Resolve(#[from] lambent_registry::Error),
    /// The version cannot be invoked in the state it is in.
    #[error(
        "The operation cannot be performed at this time. The function is currently in the following state: {state:?}"
    )]
    NotReady {
        /// The state.
        state: State,
    },
    /// The function isolates tenants, and the call names none.
    #[error(
        "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
    )]
    TenantMissing,
    /// The call names a tenant, and the function does not isolate them.
    #[error(
        "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again."
    )]
    TenantUnwanted,
    /// No concurrency is left.
    #[error("Rate Exceeded.")]
    Throttled {
        /// AWS's `Reason`.
        reason: ThrottleReason,
    },
    /// The event is larger than AWS takes.
    #[error("Request must be smaller than {limit} bytes for the InvokeFunction operation")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// A request wants to be known by a key and has none.
    #[error(
        "X-Lambent-Idempotency: key needs a key: send X-Lambent-Idempotency-Key, or configure where in the payload it is"
    )]
    NoIdempotencyKey,
    /// What a request says of itself cannot be.
    #[error(transparent)]
    Idempotency(#[from] crate::executions::Refused),
    /// A request's own affinity value is empty, or too long.
    #[error("X-Lambent-Affinity has {bytes} bytes; a value has 1 to {MAX_VALUE_BYTES}")]
    AffinityValue {
        /// So long.
        bytes: usize,
    },
    /// The key was used for another payload.
    #[error("The idempotency key was used with another payload; use a new key for a new request.")]
    IdempotencyMismatch,
    /// No room is left for records of executions that must not run twice.
    #[error("Rate Exceeded.")]
    RecordsFull,
    /// A streamed answer is too large to be kept.
    #[error("The answer is larger than {limit} bytes, which is the most that an idempotent execution may return")]
    AnswerTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The task that ran it ended without an answer.
    #[error("The AWS Lambda service encountered an internal error.")]
    Lost,
    /// The queue of events has no room left for this function.
    #[error("Rate Exceeded.")]
    QueueFull,
    /// The call is part of an event's chain that has come back to the function too often.
    #[error("{LOOP}")]
    Recursive,
    /// Events cannot be kept, or read. Calling again is safe.
    #[error("The AWS Lambda service encountered an internal error: {0}.")]
    Store(#[source] lambent_store::Error),
    /// The runtime of the function is not on this machine.
    #[error("The runtime {runtime} is not available on this machine. Available: {found}")]
    NoRuntime {
        /// What it asks for.
        runtime: String,
        /// What there is.
        found: String,
    },
    /// What the function does after its snapshot was restored failed.
    #[error("Error: {error_type}. The after-restore runtime hook of the function encountered an error.")]
    SnapStart {
        /// The type that its runtime reported.
        error_type: String,
    },
    /// The same took too long.
    #[error("Lambda couldn't restore the snapshot within the timeout limit.")]
    SnapStartTimeout,
    /// The node failed; the cause is for the log, not for the caller. Calling again is safe.
    #[error("The AWS Lambda service encountered an internal error.")]
    Service(#[source] lambent_fleet::Error),
    /// The node is shutting down; another one, or this one later, will take the call.
    #[error("The service is shutting down.")]
    ShuttingDown,
}

impl Error {
    /// AWS's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Resolve(error) => error.code(),
            Self::NotReady { .. } => "ResourceConflictException",
            Self::Recursive => "RecursiveInvocationException",
            Self::Throttled { .. } | Self::QueueFull | Self::RecordsFull => "TooManyRequestsException",
            Self::NoIdempotencyKey
            | Self::Idempotency(_)
            | Self::AffinityValue { .. }
            | Self::TenantMissing
            | Self::TenantUnwanted => "InvalidParameterValueException",
            Self::IdempotencyMismatch => "IdempotentParameterMismatchException",
            Self::AnswerTooLarge { .. } => "ResponseSizeTooLargeException",
            Self::TooLarge { .. } => "RequestEntityTooLargeException",
            Self::NoRuntime { .. } => "InvalidRuntimeException",
            Self::SnapStart { .. } => "SnapStartException",
            Self::SnapStartTimeout => "SnapStartTimeoutException",
            Self::Service(_) | Self::Store(_) | Self::Lost | Self::ShuttingDown => "ServiceException",
        }
    }

    /// The HTTP status AWS sends with [`Error::code`].
    pub fn status(&self) -> u16 {
        match self {
            Self::Resolve(error) => error.status(),
            Self::NotReady { .. } => 409,
            Self::Throttled { .. } | Self::QueueFull | Self::RecordsFull => 429,
            Self::NoIdempotencyKey | Self::Idempotency(_) | Self::AffinityValue { .. } | Self::IdempotencyMismatch => {
                400
            }
            Self::TooLarge { .. } | Self::AnswerTooLarge { .. } => 413,
            Self::NoRuntime { .. } => 502,
            Self::SnapStart { .. } | Self::Recursive | Self::TenantMissing | Self::TenantUnwanted => 400,
            Self::SnapStartTimeout => 408,
            Self::Service(_) | Self::Store(_) | Self::Lost => 500,
            Self::ShuttingDown => 503,
        }
    }

    /// AWS's `Reason` member, which only throttling has.
    pub fn reason(&self) -> Option<ThrottleReason> {
        match self {
            Self::Throttled { reason } => Some(*reason),
            Self::QueueFull | Self::RecordsFull => Some(ThrottleReason::CallerRateLimitExceeded),
            _ => None,
        }
    }
}

impl From<lambent_store::Error> for Error {
    fn from(error: lambent_store::Error) -> Self {
        match error {
            lambent_store::Error::QueueFull { .. } => Self::QueueFull,
            lambent_store::Error::RecordsFull => Self::RecordsFull,
            error => Self::Store(error),
        }
    }
}

impl From<lambent_fleet::Error> for Error {
    fn from(error: lambent_fleet::Error) -> Self {
        match error {
            lambent_fleet::Error::ShuttingDown => Self::ShuttingDown,
            // A full node is what AWS calls a concurrency limit: the caller's SDK backs off and tries again.
            lambent_fleet::Error::Full { .. } => {
                Self::Throttled { reason: ThrottleReason::ConcurrentInvocationLimitExceeded }
            }
            lambent_fleet::Error::Restore(error_type) => Self::SnapStart { error_type },
            lambent_fleet::Error::RestoreTimedOut(_) => Self::SnapStartTimeout,
            lambent_fleet::Error::NoRuntime { runtime, found } => Self::NoRuntime { runtime, found },
            lambent_fleet::Error::Prepare(_) | lambent_fleet::Error::Sandbox(_) | lambent_fleet::Error::Lost => {
                Self::Service(error)
            }
        }
    }
}
