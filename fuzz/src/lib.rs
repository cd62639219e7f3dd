//! The bodies of the fuzz targets: they live with the tests, which replay the corpus.

#[path = "../../tests/fuzz/targets/mod.rs"]
pub mod targets;
