//! The protocol between the lab and its agent: frames with a JSON head and a raw body.
//!
//! A frame is a 4-byte magic, the head's length (u32, little endian), the body's length
//! (u64, little endian), the head and the body. What is bulky (file contents, standard
//! input and output) travels in the body as it is; all else is in the head, a
//! [`Request`] one way and a [`Reply`] the other. The agent opens with one
//! [`Reply::Hello`]; from then on each request gets one reply, in order.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of this protocol; the lab refuses an agent with another.
pub const VERSION: u32 = 1;

/// The name of the virtio-serial port that carries the channel.
pub const PORT_NAME: &str = "varia.lab";

/// Path of the agent's own binary in the machine.
pub const AGENT_PATH: &str = "/init";

/// The file, in the machine, that lists what the agent does at boot (a [`BootPlan`]).
pub const BOOT_PLAN_PATH: &str = "/lab/boot.json";

const MAGIC: [u8; 4] = *b"VLA1";
/// The longest head that is accepted, in bytes.
const HEAD_LIMIT: u32 = 16 << 20;
/// The longest body that is accepted, in bytes.
const BODY_LIMIT: u64 = 1 << 30;

/// Steps of the agent before it opens the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// Modules to load, in this order.
    pub modules: Vec<ModuleFile>,
    /// 9p exports to mount, each read-only under its path.
    pub shares: Vec<Share>,
    /// Start a shell on the console for a person, and open no channel.
    pub shell: bool,
}

/// A kernel module in the machine's own file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleFile {
    /// The path of the `.ko` file (uncompressed).
    pub path: String,
    /// Parameters, as `insmod` takes them.
    pub parameters: String,
}

/// A 9p export that the lab gives to the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The mount tag of the virtio-9p device.
    pub tag: String,
    /// Mount point.
    pub path: String,
}

/// A command to run in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The program and its arguments; a program without `/` is looked up in `PATH`.
    pub argv: Vec<String>,
    /// Variables added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// The working directory; the agent's own (`/`) by default.
    pub cwd: Option<String>,
    /// Time limit; afterwards the command's process group is killed.
    pub limit: Option<Duration>,
}

/// End of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It left with this code.
    Exit(i32),
    /// A signal with this number ended it.
    Signal(i32),
    /// It was killed because its time limit had passed.
    TimedOut,
}

/// A request from the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answer [`Reply::Done`] with the request's body.
    Ping,
    /// Run a command with the body as its standard input and wait for it: [`Reply::Ran`].
    Run(RunSpec),
    /// Start a command likewise, but do not wait: [`Reply::Started`].
    Spawn(RunSpec),
    /// Wait for a command that was started: [`Reply::Ran`]; fails with ETIMEDOUT and
    /// leaves the command running when the limit passes first.
    Wait {
        /// From [`Reply::Started`].
        task: u32,
        /// Time limit of the wait.
        limit: Duration,
    },
    /// Kill the process group of a command that was started: [`Reply::Done`]; it is
    /// still to be waited for.
    Kill {
        /// From [`Reply::Started`].
        task: u32,
    },
    /// Read a file, in sysfs and procfs too: [`Reply::Done`] with its bytes as the body.
    Read {
        /// The file's path.
        path: String,
        /// Where to start, in bytes.
        offset: u64,
        /// The largest number of bytes wanted.
        limit: u64,
    },
    /// Write the body to a file with a single `write` (as sysfs wants it) where the
    /// system takes it whole; a regular file is created or emptied first.
    Write {
        /// The file's path.
        path: String,
        /// The permissions of a file that is created.
        mode: u32,
    },
    /// The names in a directory, sorted: [`Reply::Names`].
    List {
        /// The directory's path.
        path: String,
    },
    /// Target of a symbolic link, unresolved: [`Reply::Names`] with one entry.
    ReadLink {
        /// The link's path.
        path: String,
    },
    /// Load modules in this order; one that is already there is fine: [`Reply::Done`].
    Insmod(Vec<ModuleFile>),
    /// Mount a file system, creating the mount point: [`Reply::Done`].
    Mount {
        /// The device or tag.
        source: String,
        /// Where to mount it.
        target: String,
        /// The file system's name; empty for a recursive bind mount.
        kind: String,
        /// The file system's options.
        options: String,
    },
    /// Switch the machine off; no reply.
    PowerOff,
}

/// An answer from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The first frame of all.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
        /// The running kernel's release, as `uname -r` prints it.
        release: String,
        /// Steps of the [`BootPlan`] that failed.
        troubles: Vec<String>,
    },
    /// It worked; the body depends on the request.
    Done,
    /// A command has ended; the body is its standard output, then its standard error.
    Ran {
        /// End of the command.
        ending: Ending,
        /// Number of bytes of the body that are standard output.
        stdout: u64,
    },
    /// A command is running.
    Started {
        /// Number of the task, for [`Request::Wait`] and [`Request::Kill`].
        task: u32,
    },
    /// Names.
    Names(Vec<String>),
    /// It failed.
    Failed {
        /// Operation that the agent tried, and the reason of its failure.
        what: String,
        /// The system's error number, if it was the system that refused.
        errno: Option<i32>,
    },
}

/// Writes one frame and flushes.
///
/// # Errors
/// Errors of the writer, and `InvalidData` if the head can't be serialised or is too long.
pub fn send<T: Serialize>(to: &mut impl Write, head: &T, body: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(head).map_err(io::Error::other)?;
    let head_length = u32::try_from(head.len())
        .ok()
        .filter(|&n| n <= HEAD_LIMIT)
        .ok_or_else(too_long)?;
    let mut frame = Vec::with_capacity(16 + head.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&head_length.to_le_bytes());
    frame.extend_from_slice(&(body.len() as u64).to_le_bytes());
    frame.extend_from_slice(&head);
    to.write_all(&frame)?;
    to.write_all(body)?;
    to.flush()
}

/// Reads one frame: its head and its body.
///
/// # Errors
/// Errors of the reader, `UnexpectedEof` if the other side has gone, and `InvalidData` if
/// what arrives is no frame of this protocol.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let mut magic = [0; 4];
    from.read_exact(&mut magic)?;
    if magic != MAGIC {
        let message = format!("{magic:02x?} is not the start of a frame");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut head_length = [0; 4];
    from.read_exact(&mut head_length)?;
    let mut body_length = [0; 8];
    from.read_exact(&mut body_length)?;
    let head_length = u32::from_le_bytes(head_length);
    let body_length = u64::from_le_bytes(body_length);
    if head_length > HEAD_LIMIT || body_length > BODY_LIMIT {
        return Err(too_long());
    }
    let head = read_counted(from, head_length.into())?;
    let body = read_counted(from, body_length)?;
    let head = serde_json::from_slice(&head)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((head, body))
}

/// Reads exactly `count` bytes, without trusting `count` with an allocation up front.
fn read_counted(from: &mut impl Read, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = from.take(count).read_to_end(&mut bytes)?;
    if got as u64 == count {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the frame is longer than the protocol allows",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_as_it_was_sent() {
        let request = Request::Write {
            path: "/sys/x".into(),
            mode: 0o644,
        };
        let body = vec![0xa5; 3 << 20];
        let mut pipe = Vec::new();
        send(&mut pipe, &request, &body).unwrap();
        assert_eq!(
            receive::<Request>(&mut pipe.as_slice()).unwrap(),
            (request, body)
        );
    }

    #[test]
    fn a_frame_that_stops_early_is_an_end_of_file() {
        let mut pipe = Vec::new();
        send(&mut pipe, &Reply::Done, b"body").unwrap();
        for length in 0..pipe.len() {
            let error = receive::<Reply>(&mut &pipe[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
        }
    }

    #[test]
    fn noise_and_oversized_lengths_are_refused() {
        let noise = [0x55; 64];
        let error = receive::<Reply>(&mut noise.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&4u32.to_le_bytes());
        frame.extend_from_slice(&u64::MAX.to_le_bytes());
        let error = receive::<Reply>(&mut frame.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
