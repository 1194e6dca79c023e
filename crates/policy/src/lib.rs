//! Who may do what: access keys, request signatures (SigV4), resource policies, auxiliary services.
//!
//! [`keys`] holds the access keys of the accounts in the store; [`sigv4`] proves that a request was made with one of
//! them, or with the short-lived credentials of a function ([`sessions`]), and makes such proofs for our own clients; [`document`] judges requests by resource policies.
//! [`services`] holds the databases outside that functions' answers depend on, with the node's credentials for them.
#![forbid(unsafe_code)]

pub mod document;
pub mod keys;
pub mod services;
pub mod sessions;
pub mod sigv4;
