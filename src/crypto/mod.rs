//! Keys and sessions.
