//! Why an operation was refused, in AWS's words.

/// One variant for each error code of the Lambda API that a control-plane operation answers with; the text is the
/// message AWS sends. Everything a front end needs to choose the status is the variant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `InvalidParameterValueException`, 400.
    #[error("{0}")]
    InvalidParameterValue(String),
    /// `ValidationException`, 400: a constraint that only this layer can check.
    #[error("{0}")]
    Validation(String),
    /// `ResourceNotFoundException`, 404.
    #[error("{0}")]
    ResourceNotFound(String),
    /// `ResourceConflictException`, 409.
    #[error("{0}")]
    ResourceConflict(String),
    /// `ResourceInUseException`, 400.
    #[error("{0}")]
    ResourceInUse(String),
    /// `PreconditionFailedException`, 412.
    #[error("{0}")]
    PreconditionFailed(String),
    /// `AccessDeniedException`, 403.
    #[error("{0}")]
    AccessDenied(String),
    /// `PolicyLengthExceededException`, 400.
    #[error("{0}")]
    PolicyLengthExceeded(String),
    /// `CodeStorageExceededException`, 400.
    #[error("{0}")]
    CodeStorageExceeded(String),
    /// `CodeVerificationFailedException`, 400.
    #[error("{0}")]
    CodeVerificationFailed(String),
    /// `RequestTooLargeException` (`RequestEntityTooLargeException` on the wire), 413.
    #[error("{0}")]
    RequestTooLarge(String),
    /// `CodeSigningConfigNotFoundException`, 404.
    #[error("{0}")]
    CodeSigningConfigNotFound(String),
    /// `ProvisionedConcurrencyConfigNotFoundException`, 404.
    #[error("{0}")]
    ProvisionedConcurrencyConfigNotFound(String),
    /// `TooManyRequestsException`, 429: writers kept getting in each other's way; try again.
    #[error("Rate Exceeded.")]
    TooManyRequests,
    /// An operation, or a setting of one, that this system does not have yet; 501.
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
    /// `ServiceException`, 500: the store failed; the cause is for the log, not for the caller.
    #[error("The AWS Lambda service encountered an internal error.")]
    Store(#[source] lambent_store::Error),
}

impl Error {
    /// AWS's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidParameterValue(_) => "InvalidParameterValueException",
            Self::Validation(_) => "ValidationException",
            Self::ResourceNotFound(_) => "ResourceNotFoundException",
            Self::ResourceConflict(_) => "ResourceConflictException",
            Self::ResourceInUse(_) => "ResourceInUseException",
            Self::PreconditionFailed(_) => "PreconditionFailedException",
            Self::AccessDenied(_) => "AccessDeniedException",
            Self::PolicyLengthExceeded(_) => "PolicyLengthExceededException",
            Self::CodeStorageExceeded(_) => "CodeStorageExceededException",
            Self::CodeVerificationFailed(_) => "CodeVerificationFailedException",
            Self::RequestTooLarge(_) => "RequestEntityTooLargeException",
            Self::CodeSigningConfigNotFound(_) => "CodeSigningConfigNotFoundException",
            Self::ProvisionedConcurrencyConfigNotFound(_) => "ProvisionedConcurrencyConfigNotFoundException",
            Self::TooManyRequests => "TooManyRequestsException",
            Self::NotBuilt(_) => "NotImplementedException",
            Self::Store(_) => "ServiceException",
        }
    }

    /// The HTTP status AWS sends with [`Error::code`].
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidParameterValue(_)
            | Self::Validation(_)
            | Self::ResourceInUse(_)
            | Self::PolicyLengthExceeded(_)
            | Self::CodeStorageExceeded(_)
            | Self::CodeVerificationFailed(_) => 400,
            Self::AccessDenied(_) => 403,
            Self::ResourceNotFound(_)
            | Self::CodeSigningConfigNotFound(_)
            | Self::ProvisionedConcurrencyConfigNotFound(_) => 404,
            Self::ResourceConflict(_) => 409,
            Self::PreconditionFailed(_) => 412,
            Self::RequestTooLarge(_) => 413,
            Self::TooManyRequests => 429,
            Self::Store(_) => 500,
            Self::NotBuilt(_) => 501,
        }
    }

    /// Whether the fault is the caller's (`Type: User`) or ours (`Type: Service`).
    pub fn is_callers(&self) -> bool {
        self.status() < 500
    }
}

impl From<lambent_store::Error> for Error {
    fn from(error: lambent_store::Error) -> Self {
        Self::Store(error)
    }
}
