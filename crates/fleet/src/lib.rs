//! Instances and containers: placement, lifecycle, metering, logs.
