//! Variants from outside. One program: linking is most of what a small one costs.

mod decisions;
mod descriptor;
mod extension;
mod methods;
mod size;
