//! A container from its start to the line that says that it is ready.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::interrupt;
use crate::node::{Node, wait};

/// Longest start.
const START: Duration = Duration::from_secs(600);
/// Longest end.
const END: Duration = Duration::from_secs(20);

/// A running container. Dropping it ends and removes it.
pub(crate) struct Container<'n> {
    node: &'n Node,
    name: String,
    client: Child,
}

impl<'n> Container<'n> {
    /// Runs an image and waits until its output contains `ready`; returns when that was.
    pub(crate) fn run(node: &'n Node, reference: &str, ready: &str) -> anyhow::Result<(Self, Instant)> {
        let name = node.containerd.container_name();
        let mut client = node.run(reference, &name).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let lines = lines(&mut client);
        let container = Self { node, name, client };
        let end = Instant::now() + START;
        let mut seen = Vec::new();
        loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok((at, line)) => {
                    if line.contains(ready) {
                        return Ok((container, at));
                    }
                    seen.push(line);
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => interrupt::check()?,
                Err(why) => {
                    let why = if why == RecvTimeoutError::Timeout { "it takes too long" } else { "it ended" };
                    let seen = seen.join("\n");
                    bail!("{reference} did not print {ready:?}: {why}\n{seen}\n{}", node.log());
                }
            }
        }
    }
}

/// The lines of both outputs, and when each came.
fn lines(client: &mut Child) -> Receiver<(Instant, String)> {
    let (sender, lines) = channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        client.stdout.take().map(|output| Box::new(output) as _),
        client.stderr.take().map(|output| Box::new(output) as _),
    ];
    for output in outputs.into_iter().flatten() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let _ = sender.send((Instant::now(), String::from_utf8_lossy(&line).into_owned()));
            }
        });
    }
    lines
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // Without the task the client removes the rest. It may have ended by itself.
        let _ = self.node.ctr().args(["tasks", "kill", "--signal", "SIGKILL", &self.name]).output();
        if wait(&mut self.client, END).is_err() {
            let _ = self.node.ctr().args(["tasks", "delete", "--force", &self.name]).output();
            let _ = self.node.ctr().args(["containers", "delete", &self.name]).output();
        }
    }
}
