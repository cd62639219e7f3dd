//! The node.
pub mod api;
pub use api::*;
