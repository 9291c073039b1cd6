//! The core as a user of VFIO sees it. One program: linking is most of what a small one costs.

mod config;
mod dma;
mod dma_files;
mod dma_transaction;
mod dvsec;
mod fake;
mod irq;
mod masks;
mod product_data;
mod random;
mod refused;
mod regions;
mod reset;
