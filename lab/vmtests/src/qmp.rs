//! A QEMU that is started with given arguments and asked what it made of them (QMP).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use varia_lab::Arch;
use varia_lab::qemu::Qemu;

/// A QEMU whose CPUs have not started.
#[derive(Debug)]
pub struct Monitor {
    qemu: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    messages: PathBuf,
    _folder: TempDir,
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
        let mut qemu = Qemu::find(arch)
            .expect("a QEMU")
            .command()
            .args(arguments)
            .args(["-S", "-display", "none", "-nodefaults", "-no-user-config"])
            .args(["-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages).expect("a log"))
            .spawn()
            .expect("QEMU starts");
        let to = qemu.stdin.take().expect("a pipe");
        let from = BufReader::new(qemu.stdout.take().expect("a pipe"));
        let mut monitor = Self {
            qemu,
            to,
            from,
            messages,
            _folder: folder,
        };
        let greeting = monitor.line();
        assert!(greeting.get("QMP").is_some(), "{greeting}");
        monitor.ask("qmp_capabilities", &json!({}));
        monitor
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        assert!(matches!(read, Ok(1..)), "QEMU ended: {}", self.messages());
        serde_json::from_str(&line).expect("QMP is JSON")
    }

    /// What QEMU has said on its standard error.
    #[must_use]
    pub fn messages(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }

    /// The answer to a command.
    ///
    /// # Panics
    /// If QEMU ends or answers with an error.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        let sent = writeln!(self.to, "{request}").and_then(|()| self.to.flush());
        assert!(sent.is_ok(), "QEMU ended: {}", self.messages());
        loop {
            let mut answer = self.line();
            if answer.get("event").is_some() {
                continue;
            }
            assert!(answer.get("return").is_some(), "{command}: {answer}");
            return answer["return"].take();
        }
    }

    /// The answer of the human monitor.
    ///
    /// # Panics
    /// As [`ask`](Self::ask).
    pub fn human(&mut self, command: &str) -> String {
        let arguments = json!({ "command-line": command });
        let answer = self.ask("human-monitor-command", &arguments);
        answer.as_str().expect("text").to_owned()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
