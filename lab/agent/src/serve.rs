//! Answering the lab's requests, one after the other.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::init;
use crate::process::{Finished, Task, Tasks};
use crate::wire::{self, Reply, Request, VERSION};

/// Greets the lab, then answers until it says [`Request::PowerOff`] or goes away.
///
/// # Errors
/// Errors of the channel; `UnexpectedEof` when the lab has gone.
pub fn serve(channel: &mut (impl Read + Write), troubles: Vec<String>) -> io::Result<()> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    wire::send(
        channel,
        &Reply::Hello {
            version: VERSION,
            release,
            troubles,
        },
        &[],
    )?;
    let mut tasks = Tasks::default();
    loop {
        let (request, body) = wire::receive::<Request>(channel)?;
        if request == Request::PowerOff {
            return Ok(());
        }
        let (reply, body) = answer(&mut tasks, request, body).unwrap_or_else(|error| {
            let failed = Reply::Failed {
                what: error.to_string(),
                errno: error.raw_os_error(),
            };
            (failed, Vec::new())
        });
        wire::send(channel, &reply, &body)?;
    }
}

fn answer(tasks: &mut Tasks, request: Request, body: Vec<u8>) -> io::Result<(Reply, Vec<u8>)> {
    match request {
        Request::Ping => Ok((Reply::Done, body)),
        Request::Run(spec) => Ok(ran(Task::start(&spec, body)?.wait(None)?)),
        Request::Spawn(spec) => {
            let task = tasks.add(Task::start(&spec, body)?);
            Ok((Reply::Started { task }, Vec::new()))
        }
        Request::Wait { task, limit } => {
            let finished = tasks.get(task)?.wait(Some(limit))?;
            tasks.remove(task);
            Ok(ran(finished))
        }
        Request::Kill { task } => tasks.get(task)?.kill().map(done),
        Request::Read {
            path,
            offset,
            limit,
        } => Ok((Reply::Done, init::read_part(&path, offset, limit)?)),
        Request::Write { path, mode } => write_file(&path, mode, &body).map(done),
        Request::List { path } => {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok((Reply::Names(names), Vec::new()))
        }
        Request::ReadLink { path } => {
            let target = fs::read_link(path)?.to_string_lossy().into_owned();
            Ok((Reply::Names(vec![target]), Vec::new()))
        }
        Request::Insmod(modules) => {
            for module in modules {
                if let Err(error) = init::load(&module) {
                    let what = format!("load {}: {error}", module.path);
                    return Ok((
                        Reply::Failed {
                            what,
                            errno: error.raw_os_error(),
                        },
                        Vec::new(),
                    ));
                }
            }
            Ok(done(()))
        }
        Request::Mount {
            source,
            target,
            kind,
            options,
        } => init::mount_at(&source, &target, &kind, &options).map(done),
        Request::PowerOff => Ok(done(())),
    }
}

fn write_file(path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let regular = fs::metadata(path).map_or(true, |facts| facts.is_file());
    let in_sysfs = path.starts_with("/sys/") || path.starts_with("/proc/");
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if regular && !in_sysfs {
        options.create(true).truncate(true);
    }
    options.open(path)?.write_all(bytes)
}

fn ran(finished: Finished) -> (Reply, Vec<u8>) {
    let stdout = finished.stdout.len() as u64;
    let mut body = finished.stdout;
    body.extend_from_slice(&finished.stderr);
    (
        Reply::Ran {
            ending: finished.ending,
            stdout,
        },
        body,
    )
}

fn done((): ()) -> (Reply, Vec<u8>) {
    (Reply::Done, Vec::new())
}
