//! Who may do what: access keys, SigV4, resource policies.
