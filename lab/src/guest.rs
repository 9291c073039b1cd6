//! Work of a test in a running machine: commands, files, modules, sysfs.

use std::time::Duration;

use varia_agent::HANG;
use varia_agent::wire::{AGENT_PATH, Ending, Reply, Request, RunSpec};

use crate::error::{LabError, Result};
use crate::running::{Running, ending_in_words};

/// A command for a machine.
#[derive(Clone, Debug)]
pub struct GuestCommand {
    spec: RunSpec,
    input: Vec<u8>,
    limit: Duration,
}

/// Result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit code, signal or time limit.
    pub ending: Ending,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    command: String,
}

/// A command that runs in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    number: u32,
    command: String,
}

impl GuestCommand {
    /// A program with its arguments.
    #[must_use]
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self {
            spec: RunSpec {
                argv,
                ..RunSpec::default()
            },
            input: Vec::new(),
            limit: HANG,
        }
    }

    /// A script for the machine's shell.
    #[must_use]
    pub fn sh(script: &str) -> Self {
        Self::new(["/bin/sh", "-c", script])
    }

    /// An applet of the agent with its arguments.
    #[must_use]
    pub fn applet(name: &str, arguments: &[&str]) -> Self {
        Self::new([AGENT_PATH, name].iter().chain(arguments).copied())
    }

    /// Runs it with this folder of the machine as its root.
    #[must_use]
    pub fn in_root(mut self, root: &str) -> Self {
        let wrapper = ["/bin/busybox", "chroot", root].map(str::to_owned);
        self.spec.argv.splice(..0, wrapper);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.spec.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it in this folder.
    #[must_use]
    pub fn cwd(mut self, folder: &str) -> Self {
        self.spec.cwd = Some(folder.to_owned());
        self
    }

    /// Gives it this as its standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Time after which the command is killed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn spec(&self) -> RunSpec {
        RunSpec {
            limit: Some(self.limit),
            ..self.spec.clone()
        }
    }

    fn line(&self) -> String {
        self.spec.argv.join(" ")
    }
}

impl Output {
    /// True if the command left with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.ending == Ending::Exit(0)
    }

    /// Standard output as text, without white space at the end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// The result if the command succeeded, else an error that shows what the command printed.
    ///
    /// # Errors
    /// [`LabError::GuestCommand`].
    pub fn checked(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        let mut output = String::from_utf8_lossy(&self.stdout).into_owned();
        output.push_str(&String::from_utf8_lossy(&self.stderr));
        Err(LabError::GuestCommand {
            command: self.command,
            ending: ending_in_words(self.ending),
            output: varia_debian::command::last_lines(&output, 40),
        })
    }
}

impl Running {
    /// Runs a command to its end, however it ends.
    ///
    /// # Errors
    /// [`LabError::Agent`] if it could not be started, [`LabError::Vm`].
    pub fn run(&self, command: &GuestCommand) -> Result<Output> {
        let request = Request::Run(command.spec());
        let answer = self.call(&request, &command.input, command.limit + HANG)?;
        self.output(answer, command.line())
    }

    /// Runs a shell script, which has to succeed, and gives what it printed (see
    /// [`Output::text`]).
    ///
    /// # Errors
    /// Those of [`Running::run`] and [`Output::checked`].
    pub fn sh(&self, script: &str) -> Result<String> {
        Ok(self.run(&GuestCommand::sh(script))?.checked()?.text())
    }

    /// Runs an applet of the agent, which has to succeed, and gives its standard output.
    ///
    /// # Errors
    /// Those of [`Running::run`] and [`Output::checked`].
    pub fn applet(&self, name: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let command = GuestCommand::applet(name, arguments).input(input);
        Ok(self.run(&command)?.checked()?.stdout)
    }

    /// Starts a command in the background.
    ///
    /// # Errors
    /// [`LabError::Agent`] if it could not be started, [`LabError::Vm`].
    pub fn spawn(&self, command: &GuestCommand) -> Result<Task> {
        match self.call(&Request::Spawn(command.spec()), &command.input, HANG)? {
            (Reply::Started { task }, _) => Ok(Task {
                number: task,
                command: command.line(),
            }),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// Waits for a command in the background.
    ///
    /// # Errors
    /// [`LabError::Agent`] with ETIMEDOUT when `limit` passes first: it runs on.
    pub fn wait(&self, task: &Task, limit: Duration) -> Result<Output> {
        let request = Request::Wait {
            task: task.number,
            limit,
        };
        let answer = self.call(&request, &[], limit + HANG)?;
        self.output(answer, task.command.clone())
    }

    /// Kills a command in the background and what it has started; it still has to be waited for.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn kill_task(&self, task: &Task) -> Result<()> {
        let request = Request::Kill { task: task.number };
        self.call(&request, &[], HANG).map(drop)
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// [`LabError::Agent`] with the error number in the machine, [`LabError::Vm`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_at(path, 0, u64::MAX)
    }

    /// Reads at most `limit` bytes of a file from `offset`.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn read_at(&self, path: &str, offset: u64, limit: u64) -> Result<Vec<u8>> {
        let request = Request::Read {
            path: path.to_owned(),
            offset,
            limit,
        };
        self.call(&request, &[], HANG).map(|(_, bytes)| bytes)
    }

    /// Reads a file as text, without white space at the end: a sysfs attribute, say.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn read_text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?)
            .trim_end()
            .to_owned())
    }

    /// Writes a file: a sysfs attribute in one piece, another one created or replaced.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let request = Request::Write {
            path: path.to_owned(),
            mode: 0o755,
        };
        self.call(&request, bytes.as_ref(), HANG).map(drop)
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        match self.call(
            &Request::List {
                path: path.to_owned(),
            },
            &[],
            HANG,
        )? {
            (Reply::Names(names), _) => Ok(names),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// The last part of where a symbolic link leads: the driver or IOMMU group of a
    /// device, say.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn link_name(&self, path: &str) -> Result<String> {
        match self.call(
            &Request::ReadLink {
                path: path.to_owned(),
            },
            &[],
            HANG,
        )? {
            (Reply::Names(names), _) => Ok(names
                .first()
                .and_then(|target| target.rsplit('/').next())
                .unwrap_or_default()
                .to_owned()),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// Loads a module that the description put into the machine, with what it depends on.
    ///
    /// # Errors
    /// [`LabError::Module`] if the description did not, else as for [`Running::read`].
    pub fn modprobe(&self, name: &str, parameters: &str) -> Result<()> {
        let known = self.modules.get(&name.replace('-', "_"));
        let mut order = known.cloned().ok_or_else(|| LabError::Module {
            name: name.to_owned(),
            why: "it is not in this machine; describe it with module_later".to_owned(),
        })?;
        if let Some(last) = order.last_mut().filter(|_| !parameters.is_empty()) {
            last.parameters = parameters.to_owned();
        }
        self.call(&Request::Insmod(order), &[], HANG).map(drop)
    }

    /// Mounts a file system, creating the mount point; an empty `kind` is a bind mount.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn mount(&self, source: &str, target: &str, kind: &str, options: &str) -> Result<()> {
        let request = Request::Mount {
            source: source.to_owned(),
            target: target.to_owned(),
            kind: kind.to_owned(),
            options: options.to_owned(),
        };
        self.call(&request, &[], HANG).map(drop)
    }

    /// Binds a PCI device (`0000:01:00.0`) to a driver by `driver_override`.
    ///
    /// # Errors
    /// As for [`Running::read`]; the driver's refusal comes as its error number.
    pub fn bind(&self, device: &str, driver: &str) -> Result<()> {
        let folder = format!("/sys/bus/pci/devices/{device}");
        if let Ok(current) = self.link_name(&format!("{folder}/driver")) {
            if current == driver {
                return Ok(());
            }
            self.write(&format!("{folder}/driver/unbind"), device)?;
        }
        self.write(&format!("{folder}/driver_override"), driver)?;
        self.write(&format!("/sys/bus/pci/drivers/{driver}/bind"), device)
    }

    /// The addresses of PCI devices with these ids, in order.
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn pci_devices(&self, vendor: u16, device: u16) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for address in self.list("/sys/bus/pci/devices")? {
            let folder = format!("/sys/bus/pci/devices/{address}");
            if self.read_text(&format!("{folder}/vendor"))? == format!("{vendor:#06x}")
                && self.read_text(&format!("{folder}/device"))? == format!("{device:#06x}")
            {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// Makes a writable root out of a shared one: the share under a RAM disk, with the
    /// machine's devices, processes and sysfs. Needs the module `overlay`. Gives the
    /// root's path, for [`GuestCommand::in_root`].
    ///
    /// # Errors
    /// As for [`Running::read`].
    pub fn userland(&self, tag: &str) -> Result<String> {
        let root = format!("/userland/{tag}");
        let upper = format!("/overlay/{tag}");
        self.modprobe("overlay", "")?;
        self.mount("tmpfs", &upper, "tmpfs", "")?;
        self.sh(&format!("mkdir {upper}/up {upper}/work"))?;
        let options = format!("lowerdir=/share/{tag},upperdir={upper}/up,workdir={upper}/work");
        self.mount("overlay", &root, "overlay", &options)?;
        for name in ["/dev", "/proc", "/sys"] {
            self.mount(name, &format!("{root}{name}"), "", "")?;
        }
        self.mount("tmpfs", &format!("{root}/tmp"), "tmpfs", "")?;
        Ok(root)
    }

    fn output(&self, answer: (Reply, Vec<u8>), command: String) -> Result<Output> {
        match answer {
            (Reply::Ran { ending, stdout }, mut body) => {
                let at = usize::try_from(stdout)
                    .unwrap_or(usize::MAX)
                    .min(body.len());
                let stderr = body.split_off(at);
                Ok(Output {
                    ending,
                    stdout: body,
                    stderr,
                    command,
                })
            }
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    fn unexpected(&self, reply: &Reply) -> LabError {
        self.fail(&format!("the agent answers with {reply:?}"))
    }
}
