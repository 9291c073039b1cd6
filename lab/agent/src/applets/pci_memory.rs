//! `pci-memory BDF BAR`: reads and writes the memory behind a BAR, as a driver's mapping would.
//!
//! Each line of standard input is `r OFFSET LEN` or `w OFFSET HEX`, the numbers in hexadecimal;
//! each read prints its bytes as a line of hexadecimal digits. The function is enabled first, unless a
//! driver has it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::process::ExitCode;

use varia_sys::mapping::{Access, Mapping, Share};

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match script(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pci-memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn script(arguments: &[String]) -> Result<(), String> {
    let [bdf, bar] = arguments else {
        return Err("usage: pci-memory BDF BAR".into());
    };
    let device = format!("/sys/bus/pci/devices/{bdf}");
    match fs::write(format!("{device}/enable"), "1") {
        Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
            return Err(format!("can't enable {bdf}: {error}"));
        }
        _ => {}
    }
    let path = format!("{device}/resource{bar}");
    let open = OpenOptions::new().read(true).write(true).open(&path);
    let file = open.map_err(|e| format!("can't open {path}: {e}"))?;
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    for line in text.lines() {
        let answer = access(&file, line).map_err(|e| format!("{path}: {line:?}: {e}"))?;
        if let Some(bytes) = answer {
            println!(
                "{}",
                bytes
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            );
        }
    }
    Ok(())
}

/// Carries out a line; the bytes of a read.
fn access(file: &File, line: &str) -> Result<Option<Vec<u8>>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| u64::from_str_radix(text, 16).map_err(|e| format!("{text:?}: {e}"));
    match words.as_slice() {
        ["r", offset, len] => {
            let mut bytes = vec![0; usize::try_from(number(len)?).map_err(|e| e.to_string())?];
            let (mapping, at) = map(file, number(offset)?, bytes.len())?;
            mapping.read(at, &mut bytes).map_err(|e| e.to_string())?;
            Ok(Some(bytes))
        }
        ["w", offset, digits] => {
            let bytes = decode(digits)?;
            let (mapping, at) = map(file, number(offset)?, bytes.len())?;
            mapping.write(at, &bytes).map_err(|e| e.to_string())?;
            Ok(None)
        }
        _ => Err("expected: r OFFSET LEN, or w OFFSET HEX".into()),
    }
}

/// Maps the pages of an access; its place in the mapping.
fn map(file: &File, offset: u64, len: usize) -> Result<(Mapping, usize), String> {
    let page = rustix::param::page_size() as u64;
    let inside = offset % page;
    let pages = (inside + len as u64).next_multiple_of(page);
    let mapping = Mapping::new(
        file,
        offset - inside,
        pages,
        Access::ReadWrite,
        Share::Shared,
    );
    Ok((
        mapping.map_err(|e| format!("can't be mapped: {e}"))?,
        inside as usize,
    ))
}

fn decode(digits: &str) -> Result<Vec<u8>, String> {
    let byte = |at: usize| {
        digits
            .get(at..at + 2)
            .and_then(|two| u8::from_str_radix(two, 16).ok())
    };
    (0..digits.len())
        .step_by(2)
        .map(|at| byte(at).ok_or_else(|| format!("{digits:?} is not hexadecimal")))
        .collect()
}
