//! Compiled rules against an event.
