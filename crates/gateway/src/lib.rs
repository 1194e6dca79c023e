//! Function URLs: HTTP in, invocation, HTTP out.
