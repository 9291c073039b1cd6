//! Wait for a host that can be used, and hints about one that waits itself.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// Time between two polls.
pub(crate) const POLL: Duration = Duration::from_millis(250);
/// Time that an SSH server has for its first line: it is slow in software emulation.
const BANNER: Duration = Duration::from_secs(10);
/// Beginning of an SSH server's first line (RFC 4253, 4.2).
const SSH: &[u8] = b"SSH-";
/// Text of a console that asks for a login.
const LOGIN: &str = "login: ";

const NO_ROOT: &str = "the image waits for a root file system that it does not find";

/// Texts of a console that show an image which waits for its first boot to be set up, and the hint.
const HINTS: [(&str, &str); 5] = [
    (
        "cloud-init",
        "the image sets itself up by cloud-init: without data of a NoCloud disk (--qemu-arg=-drive \
         --qemu-arg=file=seed.iso,format=raw,if=virtio,readonly=on) it has no user to log in as",
    ),
    (
        "ignition",
        "the image sets itself up by Ignition: give it a configuration \
         (--qemu-arg=-fw_cfg --qemu-arg=name=opt/com.coreos/config,file=FILE)",
    ),
    (
        "Press any key to enter the Boot Manager",
        "firmware found nothing to boot on the image: it has no loader for this architecture",
    ),
    ("dracut-initqueue timeout", NO_ROOT),
    ("dracut-initqueue: timeout", NO_ROOT),
];

/// Watch over a host's console.
pub(crate) struct Console {
    path: PathBuf,
    position: u64,
    /// End of the text before, so that a text that two reads cut is found.
    tail: String,
    given: [bool; HINTS.len()],
    asks_for_login: bool,
}

impl Console {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            position: 0,
            tail: String::new(),
            given: [false; HINTS.len()],
            asks_for_login: false,
        }
    }

    /// Reads what is new, and returns the hints that it gives reason for.
    pub(crate) fn poll(&mut self) -> Vec<&'static str> {
        let mut new = Vec::new();
        // QEMU makes the file when it starts
        let Ok(mut file) = File::open(&self.path) else {
            return Vec::new();
        };
        let read = file.seek(SeekFrom::Start(self.position));
        if read.and_then(|_| file.read_to_end(&mut new)).is_err() {
            return Vec::new();
        }
        self.position += new.len() as u64;
        self.tail += &String::from_utf8_lossy(&new);
        self.asks_for_login |= self.tail.contains(LOGIN);
        let mut hints = Vec::new();
        for ((text, hint), given) in HINTS.iter().zip(&mut self.given) {
            if !*given && self.tail.contains(text) {
                *given = true;
                hints.push(*hint);
            }
        }
        let keep = self.tail.len().saturating_sub(128);
        let keep = (keep..=self.tail.len()).find(|at| self.tail.is_char_boundary(*at));
        self.tail.drain(..keep.unwrap_or_default());
        hints
    }

    pub(crate) fn asks_for_login(&self) -> bool {
        self.asks_for_login
    }
}

/// True if an SSH server answers at this port. QEMU itself accepts the connection, and closes it if
/// nobody listens in the host.
pub(crate) fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, POLL) else {
        return false;
    };
    let mut first = [0; SSH.len()];
    let read = stream
        .set_read_timeout(Some(BANNER))
        .and_then(|()| stream.read_exact(&mut first));
    read.is_ok() && first == SSH
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write, net::TcpListener};

    use super::*;

    #[test]
    fn a_console_is_read_as_it_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("console.log");
        let mut console = Console::new(&path);
        assert!(console.poll().is_empty());
        let append = |text: &str| {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .append(true)
                .open(&path)
                .expect("a file");
            file.write_all(text.as_bytes()).expect("a write");
        };
        append("Starting dracut-initqueue.service - dracut initqueue hook...\n");
        assert!(console.poll().is_empty(), "a normal boot");
        append("booting\nä starting cloud-");
        assert!(console.poll().is_empty());
        append("init\ndebian log");
        let hints = console.poll();
        assert!(
            hints.len() == 1 && hints[0].contains("NoCloud"),
            "{hints:?}"
        );
        assert!(!console.asks_for_login());
        append("in: cloud-init");
        assert!(console.poll().is_empty(), "a hint is given once");
        assert!(console.asks_for_login());
    }

    #[test]
    fn a_server_answers_by_its_banner_alone() {
        for (banner, expected) in [("SSH-2.0-x\r\n", true), ("HTTP", false), ("", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let serving = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                stream.write_all(banner.as_bytes()).expect("a write");
            });
            assert_eq!(answers(port), expected, "{banner:?}");
            serving.join().expect("a thread");
        }
    }
}
