//! The user-space runtime as a client sees it: emulated silicon, core, variant, endpoint, server
//! and protocol in one process, and the device's memory beside it to compare with.

mod access;
mod client_memory;
mod clique;
mod config;
mod connection;
mod copy_engine;
mod decline;
mod device_region;
mod igd;
mod ism;
mod layouts;
mod machine;
mod mapping;
mod nvlink;
mod open;
mod opregion;
mod other_clients;
mod readiness;
mod regions;
mod registers;
mod views;
mod zdev;
