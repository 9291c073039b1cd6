//! The server and the client over a real socket, a file for each command.

mod bad_input;
mod device_info;
mod dma;
mod fake;
mod features;
mod irq_info;
mod region_info;
mod region_read;
mod region_write;
mod reset;
mod set_irqs;
mod version;
mod waiting;
