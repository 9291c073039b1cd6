//! Texts that are no definition of a VM.

/// More than anybody writes: a definition with 128 nodes and all their distances is about 1 MB.
pub const MOST_BYTES: usize = 8 << 20;

/// Why a text can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing, or blanks.
    #[error("there is no definition: give libvirt's XML of a domain, or a QEMU command line")]
    Empty,
    /// More than [`MOST_BYTES`].
    #[error(
        "it is larger than {MOST_BYTES} bytes, which no definition of a VM is: give the XML of one \
         domain (virsh dumpxml), or one QEMU command line"
    )]
    TooLarge,
    /// Bytes that are not UTF-8.
    #[error("line {line} is not UTF-8 text: give libvirt's XML, or a QEMU command line, as text")]
    NotText {
        /// Where.
        line: usize,
    },
    /// A quote that nobody closes.
    #[error("line {line}: the quote {quote} that begins there is never closed: close it")]
    Quote {
        /// Where it begins.
        line: usize,
        /// Which one.
        quote: char,
    },
    /// A word that a shell would not take.
    #[error("line {line}: {word:?} is no word of a shell command: check its quotes")]
    Word {
        /// Where it begins.
        line: usize,
        /// Its beginning.
        word: String,
    },
    /// No option of QEMU's.
    #[error(
        "line {line}: this is neither libvirt's XML of a domain nor a QEMU command line: no \
         command qemu-system-* with options, and no -machine, -device, -object or -numa"
    )]
    Neither {
        /// Where the text begins.
        line: usize,
    },
    /// Several commands.
    #[error(
        "there are QEMU commands in lines {first} and {second}: give one at a time, for instance \
         with sed -n"
    )]
    Commands {
        /// Of the first.
        first: usize,
        /// Of the second.
        second: usize,
    },
    /// Not well-formed XML, or with a document type.
    #[error("line {line}: this is no XML that libvirt would take: {why}")]
    Xml {
        /// Where.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// More options than a command line has.
    #[error(
        "the command line has more than {most} options, which no VM has: give one QEMU command line"
    )]
    Options {
        /// The most that are read.
        most: usize,
    },
    /// Other XML.
    #[error(
        "line {line}: the XML has a <{element}> where a <domain> is expected: give what virsh \
         dumpxml prints"
    )]
    Element {
        /// Where.
        line: usize,
        /// What is there.
        element: String,
    },
    /// A JSON value that is none.
    #[error("line {line}: the JSON of -{option} can't be read: {why}")]
    Json {
        /// Where.
        line: usize,
        /// The option.
        option: String,
        /// What the parser says.
        why: String,
    },
}

/// The line, from 1, that a byte of a text is in.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
