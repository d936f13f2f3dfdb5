//! Meshes on loopback.
