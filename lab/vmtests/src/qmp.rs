//! QEMU's monitor (QMP): of a QEMU that is started with given arguments and asked what it made of
//! them, and of a machine that runs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use varia_lab::Arch;
use varia_lab::qemu::Qemu;

use crate::fw_cfg::FwCfg;

/// A connection to a monitor.
pub struct Connection {
    to: Box<dyn Write>,
    from: Box<dyn BufRead>,
}

impl Connection {
    /// Connects to the monitor of a machine that was started with
    /// `-qmp unix:PATH,server=on,wait=off`.
    ///
    /// # Panics
    /// If no QEMU listens there.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let to = UnixStream::connect(path).expect("a monitor that listens");
        let from = to.try_clone().expect("a second handle");
        Self::greeted(to, from).unwrap_or_else(|why| panic!("{why}"))
    }

    /// In words, if QEMU has ended.
    fn greeted(to: impl Write + 'static, from: impl Read + 'static) -> Result<Self, String> {
        let mut connection = Self {
            to: Box::new(to),
            from: Box::new(BufReader::new(from)),
        };
        let greeting = connection.line()?;
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        connection.ask("qmp_capabilities", &json!({}))?;
        Ok(connection)
    }

    fn line(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(1..) => Ok(serde_json::from_str(&line).expect("QMP is JSON")),
            ended => Err(format!("QEMU ended: {ended:?}")),
        }
    }

    /// The answer to a command.
    ///
    /// # Errors
    /// In words, if QEMU has ended or answers with an error.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let request = json!({ "execute": command, "arguments": arguments });
        let sent = writeln!(self.to, "{request}").and_then(|()| self.to.flush());
        sent.map_err(|error| format!("QEMU ended: {error}"))?;
        loop {
            let mut answer = self.line()?;
            if answer.get("event").is_some() {
                continue;
            }
            if answer.get("return").is_none() {
                return Err(format!("{command}: {answer}"));
            }
            return Ok(answer["return"].take());
        }
    }

    /// The answer of the human monitor.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn human(&mut self, command: &str) -> Result<String, String> {
        let arguments = json!({ "command-line": command });
        let answer = self.ask("human-monitor-command", &arguments)?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A QEMU whose CPUs have not started.
#[derive(Debug)]
pub struct Monitor {
    qemu: Child,
    connection: Connection,
    messages: PathBuf,
    folder: TempDir,
}

impl Monitor {
    /// Starts it with these arguments, stopped, without a display.
    ///
    /// # Panics
    /// If there is no QEMU, or it refuses the arguments: with what it said.
    #[must_use]
    pub fn start(arch: Arch, arguments: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let messages = folder.path().join("qemu.log");
        let socket = folder.path().join("qtest");
        let qtest = format!("unix:{},server=on,wait=off", socket.display());
        let mut qemu = Qemu::find(arch)
            .expect("a QEMU")
            .command()
            .args(arguments)
            .args(["-S", "-display", "none", "-nodefaults", "-no-user-config"])
            .args(["-qmp", "stdio"])
            .args(["-qtest-log", "none", "-qtest", &qtest])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages).expect("a log"))
            .spawn()
            .expect("QEMU starts");
        let to = qemu.stdin.take().expect("a pipe");
        let from = qemu.stdout.take().expect("a pipe");
        match Connection::greeted(to, from) {
            Ok(connection) => Self {
                qemu,
                connection,
                messages,
                folder,
            },
            Err(why) => {
                // it may have ended
                let _ = qemu.kill();
                let _ = qemu.wait();
                let said = fs::read_to_string(&messages).unwrap_or_default();
                panic!("{why}; it said: {said}");
            }
        }
    }

    /// Standard error of QEMU so far.
    #[must_use]
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// The machine as its firmware would find it.
    #[must_use]
    pub fn fw_cfg(&self) -> FwCfg {
        FwCfg::connect(&self.folder.path().join("qtest"))
    }

    /// The answer to a command.
    ///
    /// # Panics
    /// If QEMU ends or answers with an error.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let answer = self.connection.ask(command, arguments);
        answer.unwrap_or_else(|why| panic!("{why}; it said: {}", self.messages()))
    }

    /// The answer of the human monitor.
    ///
    /// # Panics
    /// As [`ask`](Self::ask).
    pub fn human(&mut self, command: &str) -> String {
        let answer = self.connection.human(command);
        answer.unwrap_or_else(|why| panic!("{why}; it said: {}", self.messages()))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
