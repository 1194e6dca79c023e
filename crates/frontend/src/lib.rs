//! The AWS Lambda REST API.
