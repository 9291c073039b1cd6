//! Varia, the command.

fn main() {}
