//! Project automation behind ./x.

fn main() {}
