//! Errors of texts that are not a definition of a VM.

use varia_facts::Bytes;

/// Size limit of a definition in bytes: one with 128 nodes and all distances has about 1 MB.
pub const MOST_BYTES: usize = 8 << 20;

/// Reason for which a text is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// No text, or blanks only.
    #[error("there is no definition: give libvirt's XML of a domain, or a QEMU command line")]
    Empty,
    /// More than [`MOST_BYTES`].
    #[error(
        "the text is larger than {}: give the XML of one domain (virsh dumpxml), or one QEMU \
         command line",
        Bytes(MOST_BYTES as u64)
    )]
    TooLarge,
    /// Bytes that are not UTF-8.
    #[error("line {line} is not UTF-8 text: give libvirt's XML, or a QEMU command line, as text")]
    NotText {
        /// Line.
        line: usize,
    },
    /// A quote without an end.
    #[error("line {line}: the quote {quote} is never closed: close it")]
    Quote {
        /// Line of its begin.
        line: usize,
        /// The quote.
        quote: char,
    },
    /// Neither XML nor a command line with options of QEMU.
    #[error(
        "line {line}: the text is neither libvirt's XML of a domain nor a QEMU command line: no \
         command qemu-system-* with options, and no -machine, -device, -object or -numa"
    )]
    Neither {
        /// First line of the text.
        line: usize,
    },
    /// A form of definitions that is not read.
    #[error("this is {what}, which is not read: give {instead}")]
    Form {
        /// Name of the form.
        what: &'static str,
        /// Text to give instead.
        instead: &'static str,
    },
    /// A part that another program fills in.
    #[error(
        "line {line}: another program fills in {part:?}, so that this is a template: give the text \
         that comes of it, or libvirt's XML of the VM (virsh dumpxml)"
    )]
    Template {
        /// Line.
        line: usize,
        /// Begin of the part.
        part: String,
    },
    /// Loops that never end, or variables that grow.
    #[error(
        "line {line}: the script takes more than {most} steps: give the command that it runs, or \
         /proc/PID/cmdline"
    )]
    Steps {
        /// Line.
        line: usize,
        /// Limit.
        most: usize,
    },
    /// Several commands.
    #[error(
        "QEMU commands begin in lines {first} and {second}: give one at a time, for instance with \
         sed -n"
    )]
    Commands {
        /// Line of the first one.
        first: usize,
        /// Line of the second one.
        second: usize,
    },
    /// Not well-formed XML, or with a document type.
    #[error("line {line}: libvirt does not take this XML: {why}")]
    Xml {
        /// Line.
        line: usize,
        /// Message of the parser.
        why: String,
    },
    /// More options than any command line has.
    #[error("the command line has more than {most} options: give one QEMU command line")]
    Options {
        /// Limit.
        most: usize,
    },
    /// XML of something else.
    #[error(
        "line {line}: the XML has a <{element}> where a <domain> is expected: give what virsh \
         dumpxml prints"
    )]
    Element {
        /// Line.
        line: usize,
        /// Name of the element.
        element: String,
    },
    /// Invalid JSON.
    #[error("line {line}: the JSON of -{option} can't be read: {why}")]
    Json {
        /// Line.
        line: usize,
        /// The option.
        option: String,
        /// Message of the parser.
        why: String,
    },
}

/// The line, from 1, that a byte of a text is in.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
