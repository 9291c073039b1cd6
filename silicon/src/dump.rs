//! Configuration space as text that `lspci -F` reads.

use std::fmt::Write;

use crate::Silicon;

impl Silicon {
    /// The raw configuration space as `lspci -xxxx` prints it, for the function at 01:00.0.
    /// `lspci -F FILE -vvv` parses it.
    pub fn lspci_dump(&self) -> String {
        let mut text = format!("01:00.0 {}\n", self.profile().title);
        for (row, bytes) in self.config_bytes().chunks(16).enumerate() {
            // writing to a String can't fail
            let _ = write!(text, "{:02x}:", row * 16);
            bytes.iter().for_each(|byte| {
                let _ = write!(text, " {byte:02x}");
            });
            text.push('\n');
        }
        text
    }
}
