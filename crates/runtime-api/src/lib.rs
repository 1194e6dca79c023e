//! The Lambda Runtime, Extensions and Telemetry API served into one container.
